"""A run in progress: collect, update, evaluate, save, round after round.

The models that a recipe reads are fitted first (`gap_model`, `dynamics_model`). One round is
``rollout_steps`` simulator steps with the current policy, then as many updates. At every checkpoint the
simulator's episode is cut (truncated, not terminal) and restarted from a seed derived from (run seed,
step), whether or not the run is ever interrupted. So a resumed run repeats the uninterrupted one bit for
bit on CPU, with any simulator that honours its seeds, and nothing of its inside needs saving. Where a
simulator or the user's code fails, the state is saved off this schedule: nothing is lost, but the episode
is cut once more, and the rest of the run has other bits. So it is where it was another training's failure, in
a simulator that this one shares (`training.rollouts`).

After every round all of the state is checked: one that is not finite is never saved (`training.diagnosis`).
"""

import time
from collections import deque
from collections.abc import Generator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simtrust.data.replay import ReplayBuffer, insert, pack
from simtrust.device import device_kind
from simtrust.errors import NonFiniteAnswer, SimtrustError, SimulatorError
from simtrust.evaluation.evaluators import Evaluator
from simtrust.gap.simulator_gap import SimulatorGap
from simtrust.training.callbacks import Callbacks, RunStart
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.collect import Rollout
from simtrust.training.diagnosis import diagnose, diagnose_answer
from simtrust.training.dynamics_model import with_dynamics_model
from simtrust.training.fleet import EXPLORE, UPDATE, Fleet, seed_keys
from simtrust.training.gap_model import gap_model_of_run, measure
from simtrust.training.in_step import Asked, AskedUpdates, Begun, Rounds, in_step
from simtrust.training.judging import RESTART, Judge, episode_seeds
from simtrust.training.metrics import MetricsFile
from simtrust.training.non_finite import find_in_rollout, find_in_state, find_in_updates, is_finite
from simtrust.training.progress import MakeDisplay, make_progress
from simtrust.training.restoring import restore_buffer, unfinished_lines
from simtrust.training.result import RESULT_FORMAT, RunResult, seed_results, write_result
from simtrust.training.rollouts import AskedRollout, Member
from simtrust.training.run_directory import CHECKPOINTS, resume_command
from simtrust.training.setup import Problem, versions
from simtrust.training.stopping import telling_how_to_go_on
from simtrust.training.updating import Share

RATE_ROUNDS = 20
"""Rounds over which the displayed speed is averaged."""


class Training:
    """A run in progress: the agents, the buffers, and where it stands."""

    def __init__(
        self,
        problem: Problem,
        directory: Path,
        extra: dict[str, Any],
        callbacks: Callbacks,
        evaluators: Mapping[str, Evaluator],
        fleet: Fleet,
    ):
        self.problem, self.config, self.directory, self.extra = problem, problem.config, directory, extra
        self.seeds = self.config.run_seeds
        self.fleet = fleet
        self.callbacks, self.judge = callbacks, Judge(problem, self.fleet, evaluators)
        self.store = CheckpointStore(directory / CHECKPOINTS)
        self.member = None
        if problem.simulator is not None:
            self.member = Member(problem.simulator, problem.scaling, len(self.seeds))
        self.gap_model: SimulatorGap | None = None
        self.agents = self.fleet.create(self.seeds)
        self.buffer: ReplayBuffer | None = None
        if self.member is not None:
            row = problem.algorithm.simulated_row_size
            self.buffer = ReplayBuffer.create(len(self.seeds), problem.capacity, row)
        self.unsaved: list[np.ndarray] = []
        self.manifest = self.store.latest()
        self.step = 0
        self.started = time.monotonic()
        self.wall_before = self.update_seconds = 0.0
        path, kept, self.unfinished = directory / "metrics.jsonl", 0, None
        if self.manifest is not None:
            self._restore()
            self.unfinished = unfinished_lines(path, self.manifest, self.seeds)
            kept = self.manifest.metrics_bytes + (self.unfinished.size if self.unfinished else 0)
        self.metrics = MetricsFile(path, kept)
        self.metrics_bytes: int | None = None
        """Where the lines of a step begin whose evaluation is not done; None if there is no such step."""
        self.keys = {purpose: seed_keys(self.seeds, purpose) for purpose in (UPDATE, EXPLORE)}
        self.must_restart = True
        self.last_return = ""
        scale = problem.scaling.reward_scale
        self._diagnose = partial(diagnose, directory, self.config, extra, reward_scale=scale)
        self._diagnose_answer = partial(diagnose_answer, directory, self.config, extra, reward_scale=scale)

    def _restore(self) -> None:
        assert self.manifest is not None
        self.agents = self.store.load_state(self.manifest, self.agents)
        self.step = self.manifest.step
        self.wall_before, self.update_seconds = self.manifest.wall_seconds, self.manifest.update_seconds
        if self.buffer is not None:
            self.buffer = restore_buffer(
                self.store,
                self.manifest,
                self.buffer,
                rollout_steps=self.config.rollout_steps,
                recipe=self.config.recipe,
            )

    def run(self, *, quiet: bool) -> RunResult:
        """Train to the last step, then evaluate and write ``result.json``."""
        title = f"{self.config.recipe} × {len(self.seeds)}" if len(self.seeds) > 1 else self.config.recipe
        display = partial(make_progress, title, quiet=quiet)
        (outcome,) = in_step([self.rounds(display, quiet=quiet)], self.fleet)
        if isinstance(outcome, SimtrustError):
            raise outcome
        return outcome

    def rounds(self, display: MakeDisplay, *, quiet: bool) -> Rounds:
        """The same as a generator for `in_step`, which asks for every round's rollout and updates."""
        try:
            with telling_how_to_go_on(
                saved_step=self._saved_step,
                save=self._save,
                command=resume_command(self.directory, self.config, self.extra),
            ):
                result = yield from self._rounds(display, quiet=quiet)
        except BaseException as error:
            self.callbacks.on_stop(error)
            raise
        self.callbacks.on_end(result)
        return result

    def _rounds(self, display: MakeDisplay, *, quiet: bool) -> Rounds:
        config = self.config
        self.callbacks.on_start(RunStart(self.directory, config, self.step, MappingProxyType(self.extra)))
        yield Begun()
        if not self.fleet.finite(self.agents).all():
            found = find_in_state(self.seeds, self.agents, self.step)
            raise self._diagnose(found, saved=self._saved_step(), in_checkpoint=True)
        self.problem = with_dynamics_model(self.problem, self.directory, quiet=quiet)
        if self.problem.recipe.measures_gap:
            self.gap_model = self.fleet.on_processor(
                gap_model_of_run(self.problem, self.directory, quiet=quiet)
            )
        if self.unfinished is not None:
            self._conclude(dict(self.unfinished.metrics))
        recent, compiling = deque([(time.monotonic(), self.step)], maxlen=RATE_ROUNDS + 1), True
        with display(config.steps, self.step) as progress:
            while self.step < config.steps:
                yield from self._round()
                recent.append((time.monotonic(), self.step))
                (began, first), (now, step) = recent[0], recent[-1]
                progress.advance(step, (step - first) / (now - began), self.last_return)
                if compiling:
                    # The first round compiles, which says nothing of the rounds to come.
                    recent.popleft()
                    compiling = False
        return self._finish()

    def _round(self) -> Generator[Asked, Any, None]:
        count = min(self.config.rollout_steps, self.config.steps - self.step)
        metrics: dict[str, Any] = {}
        if self.member is not None:
            metrics |= yield from self._collect(self.member, count)
        before = self.fleet.copy(self.agents)
        coefficients = self.problem.algorithm.coefficients
        # Not kept under a name: the agents are given up.
        (self.agents, updated, finite), seconds = yield AskedUpdates(
            Share(self.agents, self.problem.log, self.buffer, self.keys[UPDATE], coefficients, self.step),
            count,
        )
        self.update_seconds += seconds
        if not (all(map(is_finite, updated.values())) and finite.all()):
            found = find_in_updates(
                self.problem, self.fleet, before, self.buffer, step=self.step, updates=count
            )
            raise self._diagnose(found, saved=self._saved_step())
        del before
        self.step += count
        told = {k: np.asarray(v) if isinstance(v, jax.Array) else v for k, v in metrics.items()}
        self._conclude(told | updated)

    def _conclude(self, metrics: dict[str, Any]) -> None:
        """What is due at the end of a round: evaluate, write the metrics, save."""
        config, before = self.config, self.metrics.size
        done = False
        try:
            if config.evaluate_every and self.step % config.evaluate_every == 0:
                metrics |= self._evaluate()
                # One by one, so that those before one that raises are kept.
                metrics.update(self.judge.evaluators(self.agents, self.step))
            done = True
        finally:
            # Also where the evaluation failed, which is done when the run goes on: the losses are known.
            if self.unfinished is not None:
                before -= self.unfinished.size
                self.metrics, self.unfinished = MetricsFile(self.metrics.path, before), None
            self.metrics_bytes = None if done else before
            self.callbacks.on_metrics(self.metrics.write(self.step, self.seeds, metrics))
        if self.step % config.checkpoint_every == 0 or self.step == config.steps:
            self._save()
            self.must_restart = True
            self.callbacks.on_checkpoint(self.step, self.directory)

    def _collect(self, member: Member, count: int) -> Generator[Asked, Rollout, dict[str, Any]]:
        assert self.buffer is not None
        seeds = episode_seeds(self.seeds, self.step, RESTART)
        keys = self.keys[EXPLORE]
        try:
            rollout = yield AskedRollout(
                member, self.agents, keys, self.step, count, seeds, self.must_restart
            )
        except SimulatorError as error:
            if (found := member.witness.find(self.seeds, self.step, error)) is not None:
                raise self._diagnose(found, saved=self._saved_step()) from error
            if isinstance(error, NonFiniteAnswer):
                run = error.instance // self.config.sim_instances
                answer = member.witness.answer(self.seeds, run, self.step, error)
                error.add_note(self._diagnose_answer(answer, error))
            raise
        self.must_restart = False
        simulated = rollout.transitions
        gap = None if self.gap_model is None else measure(self.gap_model, simulated)
        # What is beyond float32 is told below, in better words than numpy's.
        with np.errstate(over="ignore"):
            inside = self.problem.scaling.transitions(simulated)
        if (found := find_in_rollout(self.seeds, simulated, inside, gap, self.step)) is not None:
            raise self._diagnose(found, saved=self._saved_step())
        rows = pack(inside, gap)
        metrics: dict[str, Any] = {
            "simulator_return": [np.mean(r) if r else None for r in rollout.episode_returns]
        }
        if self.problem.log is not None and self.problem.recipe.trains_gap_model:
            metrics |= self.fleet.held_out_accuracy(self.agents, self.problem.log, rows)
        self.buffer = insert(self.buffer, jnp.asarray(rows))
        self.unsaved.append(rows)
        return metrics

    def _evaluate(self) -> dict[str, Any]:
        episodes = self.judge.episodes(self.agents, self.step)
        mean = episodes.returns.mean(-1)
        self.last_return = f"return {mean.mean():,.0f}"
        if len(mean) > 1:
            self.last_return += f" ({', '.join(f'{m:,.0f}' for m in mean)})"
        return {
            "return_mean": mean,
            "return_std": episodes.returns.std(-1),
            "episode_length": episodes.lengths.mean(-1),
        }

    def _saved_step(self) -> int:
        return self.manifest.step if self.manifest else 0

    def _save(self) -> int:
        if self.manifest is not None and self.manifest.step == self.step:
            return self.step
        new = np.concatenate(self.unsaved, axis=1) if self.unsaved else None
        written = self.metrics.flush()
        self.manifest = self.store.save(
            self.step,
            self.agents,
            new,
            previous=self.manifest,
            capacity=self.problem.capacity,
            metrics_bytes=written if self.metrics_bytes is None else self.metrics_bytes,
            wall_seconds=self._wall_seconds(),
            update_seconds=self.update_seconds,
        )
        self.unsaved = []
        return self.step

    def _wall_seconds(self) -> float:
        return self.wall_before + time.monotonic() - self.started

    def _finish(self) -> RunResult:
        episodes = self.judge.episodes(self.agents, self.step)
        evaluators = dict(self.judge.evaluators(self.agents, self.step))
        updates = self.step * len(self.seeds)
        summary = {
            "format": RESULT_FORMAT,
            "recipe": self.config.recipe,
            "steps": self.step,
            "runs": seed_results(self.seeds, episodes, evaluators),
            "evaluation_environment": self.problem.evaluation_name,
            "updates_per_second": round(updates / max(self.update_seconds, 1e-9), 1),
            "wall_seconds": round(self._wall_seconds(), 1),
            "versions": versions(),
            "device": device_kind(),
            "dataset_sha256": self.extra["dataset_sha256"],
            "command": self.extra["command"],
        }
        if "changes" in self.extra:
            summary["changes"] = self.extra["changes"]
        result = RunResult(self.directory, summary)
        write_result(result)
        return result
