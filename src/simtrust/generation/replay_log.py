"""The replay buffer of a training as a log: the rows as they were collected, up to a step.

The buffer holds neither the physics' states nor where an episode was cut. But between two checkpoints
training starts the simulator from a seed that follows from the run's seed and the step
(`simtrust.training.running`). So the stored actions are taken once more from there, all stretches side by
side, which gives both. Every stored number must come out bit for bit. Where it does not, after a change
of MuJoCo's version for example, states are what observations tell.
"""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from simtrust.data.replay import unpack
from simtrust.errors import RunError
from simtrust.generation.behaviour import GivenActions
from simtrust.generation.recording import INFO_KEYS, record
from simtrust.simulators import make_simulator
from simtrust.simulators.built_in import BuiltIn
from simtrust.simulators.closing import closed_at_end
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.judging import RESTART, episode_seeds
from simtrust.training.run_directory import CHECKPOINTS
from simtrust.training.scaling import Scaling

REPLAYED = "the training's own: its actions were taken again from its starts, and gave every stored number"
FROM_OBSERVATIONS = (
    "what observations tell, since the training's actions give other numbers on this machine: float32, "
    "velocities as far as observed, and 0 for positions along the floor, which no observation tells"
)
Columns = dict[str, np.ndarray]


class Stretch(NamedTuple):
    """Rows between two checkpoints, by D4RL key, in machine units; without timeouts."""

    start: int
    """The step at which the first was collected."""
    columns: Columns

    @property
    def length(self) -> int:
        return len(self.columns["rewards"])


class ReplayLog(NamedTuple):
    """Rows of a replay buffer."""

    columns: Columns
    """By D4RL key, as of `simtrust.generation.recording.record`, without log-probabilities."""
    states: str
    """Where ``infos/qpos`` and ``infos/qvel`` are from: `REPLAYED` or `FROM_OBSERVATIONS`."""


def replay_log(
    run: Path, until: int, machine: BuiltIn, scaling: Scaling, *, seed: int, quiet: bool = False
) -> ReplayLog:
    """The first ``until`` rows that a run of one seed, unshifted and with one instance, was trained on.

    Raises `RunError` if its checkpoints do not hold them.
    """
    stretches = _stretches(run, until, scaling)
    stored = _joined([stretch.columns for stretch in stretches])
    again = _joined(_replayed(machine, stretches, seed, quiet=quiet))
    if all(np.array_equal(stored[key], again[key]) for key in stored):
        return ReplayLog(again, REPLAYED)
    return ReplayLog(stored | _from_observations(machine, stretches, stored), FROM_OBSERVATIONS)


def _from_observations(machine: BuiltIn, stretches: list[Stretch], stored: Columns) -> Columns:
    """Timeouts and states of rows that could not be repeated."""
    states = machine.state_of(stored["observations"])
    cut = np.append((stored["next_observations"][:-1] != stored["observations"][1:]).any(1), True)
    cut[np.cumsum([stretch.length for stretch in stretches]) - 1] = True
    infos = zip(INFO_KEYS, (states.position, states.velocity), strict=True)
    return {"timeouts": cut & ~stored["terminals"], **dict(infos)}


def _stretches(run: Path, until: int, scaling: Scaling) -> list[Stretch]:
    """The stored rows up to a step."""
    store = CheckpointStore(run / CHECKPOINTS)
    manifest = store.latest()
    if manifest is None:
        raise RunError(f"{run} holds no checkpoint; train anew in another --run")
    sizes = len(scaling.observation_mean), len(scaling.action_low)
    found, end = [], 0
    for start, packed in store.load_rows(manifest):
        if start != end or start >= until:
            break
        rows = unpack(jnp.asarray(packed[0, : until - start]), *sizes)
        observation, action, reward, following, terminated = map(np.asarray, rows)
        columns = {
            "observations": observation,
            "actions": scaling.to_machine_action(action),
            "rewards": reward,
            "next_observations": following,
            "terminals": terminated > 0,
        }
        found.append(Stretch(start, columns))
        end = start + len(reward)
    if end != until:
        raise RunError(f"{run} holds {end:,} rows of its training where {until:,} are needed; train anew")
    return found


def _replayed(machine: BuiltIn, stretches: list[Stretch], seed: int, *, quiet: bool) -> list[Columns]:
    """The same stretches with timeouts and states; those of equal length are stepped side by side."""
    again: dict[int, Columns] = {}
    for length in sorted({stretch.length for stretch in stretches}):
        together = [stretch for stretch in stretches if stretch.length == length]
        seeds = [one for stretch in together for one in episode_seeds([seed], stretch.start, RESTART)]
        actions = np.stack([stretch.columns["actions"] for stretch in together])
        with closed_at_end(make_simulator(machine.name, num_envs=len(together))) as simulator:
            columns = record(
                simulator,
                GivenActions(actions),
                len(together) * length,
                seeds=seeds,
                title=f"Replaying {machine.name}",
                quiet=quiet,
            )
        for index, stretch in enumerate(together):
            rows = slice(index * length, (index + 1) * length)
            again[stretch.start] = {key: values[rows] for key, values in columns.items()}
    return [again[start] for start in sorted(again)]


def _joined(parts: list[Columns]) -> Columns:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
