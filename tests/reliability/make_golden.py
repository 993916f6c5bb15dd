"""Makes ``golden/``: one small file of every format that is read again, and what was in them.

    python tests/reliability/make_golden.py

Run only where a format's version was raised: the files of the old version then go, or move to a folder of
their own, if the new reader is to take them too. A test that fails because of a change to a reader is no
reason to run it: what users have on their disks does not change with it.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

import simtrust
from simtrust.algorithms.agent import Algorithm, least
from simtrust.algorithms.recipes import get_recipe
from simtrust.data.convert import convert
from simtrust.export.numpy_runner import TrustRunner
from simtrust.export.policy_runner import PolicyRunner
from simtrust.export.trust_onnx import export_trust
from simtrust.gap.dynamics_fitting import model_shapes
from simtrust.gap.dynamics_model import DynamicsModel
from simtrust.gap.trust_model import TRUST_MODEL_OPTIONS, fit_trust_model
from simtrust.paper.cheetah import Point, load_point, save_point
from simtrust.paper.robot import Cell, load_cell, save_cell
from simtrust.training import dynamics_model, gap_model
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.config import config_from_json
from simtrust.training.fleet import Fleet
from simtrust.training.rounds import over_runs
from simtrust.training.scaling import Scaling
from simtrust.types import Transitions

GOLDEN = Path(__file__).parent / "golden"
KNOWN = GOLDEN / "known.json"
TINY = {
    "hidden_sizes": (8,),
    "batch_size": 16,
    "classifier_hidden_sizes": (8,),
    "classifier_batch_size": 16,
    "rollout_steps": 50,
    "checkpoint_every": 100,
    "evaluate_every": 100,
    "evaluation_episodes": 1,
    "gap_probe_rows": 200,
    "gap_epochs": 1,
    "steps": 200,
}
SMALL = {"members": 2, "elites": 2, "hidden_sizes": (8, 8)}
"""Of the models fitted before training: a real one has half a million numbers."""


class Stop(simtrust.Callback):
    """As if the machine had been switched off after the first checkpoint."""

    def on_checkpoint(self, step: int, directory: Path) -> None:
        raise KeyboardInterrupt


@contextmanager
def small_models() -> Iterator[None]:
    """Models of `SMALL`, fitted before training and read."""
    of_both, of_log = gap_model.SIMULATOR_GAP_OPTIONS, dynamics_model.REVERSE_GAP_OPTIONS
    gap_model.SIMULATOR_GAP_OPTIONS = replace(of_both, **SMALL)
    dynamics_model.REVERSE_GAP_OPTIONS = replace(of_log, **SMALL)
    try:
        yield
    finally:
        gap_model.SIMULATOR_GAP_OPTIONS, dynamics_model.REVERSE_GAP_OPTIONS = of_both, of_log


def load_dynamics(folder: Path) -> DynamicsModel:
    """The model of the log in a run's directory."""
    with small_models():
        like = model_shapes(3, 1, dynamics_model.REVERSE_GAP_OPTIONS)
        return dynamics_model.DYNAMICS_MODEL.load(folder, like)


def answers(folder: Path) -> dict[str, Any]:
    """What the files in a folder say to today's readers, as JSON has it."""
    log = simtrust.load_dataset(folder / "log.npz")
    rows = Transitions(*(field[:5] for field in log.transitions))
    with small_models():
        gap = gap_model.load_gap_model(folder / "unfinished", observation_size=3, action_size=1)
    trust = TrustRunner(folder / "trust.npz")(rows.observation, rows.action)
    action, valid = PolicyRunner(folder / "exported/policy.npz")(rows.observation)
    found = {
        "log.npz": of_log(log),
        "log.hdf5": of_log(simtrust.load_dataset(folder / "log.hdf5")),
        "unfinished": of_run(folder / "unfinished", rows),
        "finished": of_run(folder / "finished", rows),
        "gap model": gap.divergence(rows),
        "dynamics model": load_dynamics(folder / "modelled")
        .next_states(rows.observation, rows.action)
        ._asdict(),
        "policy.npz": {"action": action, "valid": valid},
        "trust.npz": trust,
        "point": asdict(load_point(folder / "point-000000100.npz")),
        "measures": asdict(load_cell(folder / "measures.json")),
    }
    return json.loads(json.dumps(found, default=lambda array: np.asarray(array).tolist()))


def of_log(log: simtrust.Dataset) -> dict[str, Any]:
    return {
        "rows": len(log),
        "ends": np.flatnonzero(log.episode_end),
        "first": [np.asarray(field)[0] for field in log.transitions],
        "sums": [np.asarray(field, np.float64).sum() for field in log.transitions],
        "time": None if log.time is None else log.time[:3],
        "names": log.names._asdict(),
    }


def of_run(run: Path, rows: Transitions[np.ndarray]) -> dict[str, Any]:
    """Of every seed: the best actions and the critics' least Q for rows of the log; and the replay buffer."""
    policy = simtrust.Policy(run)
    config, extra = config_from_json(run / "config.json")
    store = CheckpointStore(run / "checkpoints")
    manifest = store.latest()
    assert manifest is not None
    sizes = {"observation_size": 3, "action_size": 1, "next_state_noise": jnp.zeros((3, 3))}
    fleet = Fleet(Algorithm(get_recipe(config.recipe), config.algorithm, **sizes))
    # Shapes are enough, and cost no compilation.
    agents = store.load_state(manifest, jax.eval_shape(lambda: fleet.create(config.run_seeds)))
    inside = Scaling.from_json(extra["scaling"]).transitions(rows)
    value = over_runs(
        lambda agent: least(agent.critic(jnp.asarray(inside.observation), jnp.asarray(inside.action))), (0,)
    )
    chunks = list(store.load_rows(manifest))
    return {
        "config": asdict(config),
        "step": policy.step,
        "action": policy(np.broadcast_to(rows.observation, (len(policy.seeds), *rows.observation.shape))),
        "q": value(agents),
        "replay": [[start, *chunk.shape] for start, chunk in chunks],
        "replay sum": sum(chunk.sum(dtype=np.float64) for _, chunk in chunks),
    }


def record_log() -> simtrust.Dataset:
    """200 rows of Gymnasium's Pendulum, in four episodes, with names, units and time."""
    env = gymnasium.make("Pendulum-v1", disable_env_checker=True)
    torques = np.random.default_rng(0).uniform(-2, 2, (200, 1)).astype(np.float32)
    steps, observation = [], np.empty(0)
    for row, torque in enumerate(torques):
        if row % 50 == 0:
            observation, _ = env.reset(seed=row)
        following, reward, *_ = env.step(torque)
        steps.append((observation, torque, np.float32(reward), following, np.float32(0)))
        observation = following
    fields = Transitions(*(np.stack(column) for column in zip(*steps, strict=True)))
    ends = np.arange(200) % 50 == 49
    time = np.arange(200) % 50 * 0.05
    names = (("cos θ", "sin θ", "θ̇"), ("torque",), ("", "", "rad/s"), ("N m",))
    return simtrust.Dataset(fields, ends, "log.npz", "", None, time, *names)


def make(folder: Path) -> None:
    """Everything but the answers."""
    log = record_log()
    for name in ("log.npz", "log.hdf5"):
        convert(log, folder / name)
    os.chdir(folder)
    options = {**TINY, "real": "log.npz", "sim": "Pendulum-v1", "quiet": True}
    simtrust.train("h2o", **options, seeds=2, out="finished")
    with small_models(), suppress(KeyboardInterrupt):
        simtrust.train("trust", **options, out="unfinished", callbacks=[Stop()])
    make_dynamics_model(options)
    simtrust.export_policy("finished", "exported", rate=20.0)
    export_small_trust(log, folder)
    generator = np.random.default_rng(0)
    save_point(
        Point(100, (0, 1), np.arange(0, 60, 20), *generator.normal(size=(5, 2, 3))),
        folder / "point-000000100.npz",
    )
    measures = {"real return": [[1.5, 2.5], [3.0, -4.0]], "real error": [[0.1, 0.2], [0.3, 0.4]]}
    save_cell(Cell("standing-still", "h2o", (0, 1), 100, measures), folder / "measures.json")
    for file in ("exported/README.md", "exported/latency.json", "exported/policy_runner.py"):
        (folder / file).unlink()
    (folder / "trust_runner.py").unlink()
    for lock in folder.glob("*/.lock"):
        lock.unlink()


def make_dynamics_model(options: dict[str, Any]) -> None:
    """Of a run, the model of its log alone."""
    with small_models(), suppress(KeyboardInterrupt):
        simtrust.train("h2o_reverse_kl", **options, dynamics_epochs=1, out="run", callbacks=[Stop()])
    Path("modelled").mkdir()
    for file in Path("run").glob("dynamics_model.*"):
        file.rename(Path("modelled") / file.name)
    shutil.rmtree("run")


def export_small_trust(log: simtrust.Dataset, folder: Path) -> None:
    rows = log.transitions
    error = 0.1 * np.random.default_rng(0).normal(size=rows.observation.shape)
    options = replace(TRUST_MODEL_OPTIONS, epochs=1, **SMALL)
    scale = (rows.next_observation - rows.observation).std(0)
    key = jax.random.key(0)
    fitted = fit_trust_model(
        rows.observation,
        rows.action,
        error,
        log.episode_end,
        scale,
        key=key,
        trusted_error=0.1,
        options=options,
    )
    names: dict[str, Sequence[str]] = {"observation_names": ["c", "s", "w"], "action_names": ["torque"]}
    export_trust(fitted.model, folder, metadata={"log_sha256": log.sha256}, **names)


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir()
    make(GOLDEN)
    KNOWN.write_text(json.dumps(answers(GOLDEN), indent=1) + "\n")
