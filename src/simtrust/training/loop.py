"""The training loop: collect, update, evaluate, save; and how an interrupted run goes on.

Where the recipe reads the measured gap, the model that measures it is fitted first (`training.gap_model`).
One round is ``rollout_steps`` simulator steps with the current policy, then as many updates. At every
checkpoint the simulator's episode is cut (truncated, not terminal) and restarted from a seed derived
from (run seed, step), whether or not the run is ever interrupted. So a run resumed from a checkpoint
repeats the uninterrupted one bit for bit on CPU, with any simulator that honours its seeds, and nothing
of the simulator's inside needs saving.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simtrust.data.replay import ReplayBuffer, insert, pack
from simtrust.errors import RunError, SimulatorError
from simtrust.evaluation.evaluators import Evaluator
from simtrust.gap.simulator_gap import SimulatorGap
from simtrust.training.callbacks import Callback, CallbackError, Callbacks, RunStart
from simtrust.training.checkpoint import CheckpointStore, Manifest, write_atomically
from simtrust.training.collect import Collector
from simtrust.training.config import TrainConfig, config_from_json, config_to_json
from simtrust.training.fleet import EXPLORE, UPDATE, Fleet, seed_keys
from simtrust.training.gap_model import gap_model_of_run, measure
from simtrust.training.judging import RESTART, Judge, check_evaluators, episode_seeds
from simtrust.training.metrics import MetricsFile, make_progress
from simtrust.training.result import RunResult, read_result, seed_results, write_result
from simtrust.training.run_directory import confirm_code, confirm_evaluators, lock, resume_command
from simtrust.training.setup import Problem, observed_range, prepare, versions
from simtrust.training.trackers import make_trackers

RATE_ROUNDS = 20
"""Rounds over which the displayed speed is averaged."""


def train(
    config: TrainConfig,
    *,
    quiet: bool = False,
    command: str = "simtrust.train(...)",
    callbacks: Sequence[Callback] = (),
    evaluators: Mapping[str, Evaluator] | None = None,
) -> RunResult:
    """Train as ``config`` says into its new directory, and evaluate the result.

    ``command`` is what made the run, for the record in ``result.json``; ``callbacks`` are told after the
    trackers that ``config`` names.

    Raises a `SimtrustError` before any work if something in the configuration, the log or the
    simulator cannot be used, and `RunError` if the directory already holds a run. `CallbackError` if a
    callback or an evaluator raises, once the state is saved.
    """
    listeners, evaluators = _listeners(config, callbacks, evaluators)
    directory = Path(config.out or f"runs/{config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
    config = replace(config, out=str(directory))
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{directory} cannot be made: {error.strerror}; choose another --out") from error
    keep_compiled()
    with lock(directory):
        if (directory / "config.json").exists():
            raise RunError(f"{directory} already holds a run; go on with: simtrust resume {directory}")
        with closing(prepare(config)) as problem:
            extra = {
                "command": command,
                "versions": versions(),
                "dataset_sha256": problem.dataset.sha256 if problem.dataset else None,
                "scaling": problem.scaling.to_json(),
                **observed_range(problem.dataset),
                "evaluation_environment": problem.evaluation_name,
            }
            if evaluators:
                extra["evaluators"] = sorted(evaluators)
            write_atomically(directory / "config.json", config_to_json(config, **extra).encode())
            return _Training(problem, directory, extra, listeners, evaluators).run(quiet=quiet)


def resume(
    directory: str | Path,
    *,
    sim: str | None = None,
    real_env: str | None = None,
    quiet: bool = False,
    callbacks: Sequence[Callback] = (),
    evaluators: Mapping[str, Evaluator] | None = None,
) -> RunResult:
    """Go on with an interrupted run from its last checkpoint; a finished run is only reported.

    A simulator or real environment that is code of yours (``module:factory``) must be named again, as
    ``sim`` and ``real_env``: no file of a run directory may decide which code is imported. Its evaluators
    must be given again too, and its callbacks if they are to be told of the rest.

    Raises `RunError` if the directory holds no run, is in use, if the log has changed since, or if the
    run's own code is not confirmed; `CallbackError` as `train`.
    """
    directory = Path(directory)
    config, extra = config_from_json(directory / "config.json")
    if (finished := read_result(directory)) is not None:
        return finished
    listeners, evaluators = _listeners(config, callbacks, evaluators)
    confirm_evaluators(directory, extra.get("evaluators", []), evaluators)
    confirm_code(directory, {"sim": (config.sim, sim), "real-env": (config.real_env, real_env)})
    keep_compiled()
    with lock(directory), closing(prepare(config)) as problem:
        found = problem.dataset.sha256 if problem.dataset else None
        if found != extra.get("dataset_sha256"):
            raise RunError(
                f"{config.real} is not the log that this run began with: its SHA-256 is {found}, "
                f"the run's {extra.get('dataset_sha256')}; restore the file"
            )
        return _Training(problem, directory, extra, listeners, evaluators).run(quiet=quiet)


def _listeners(
    config: TrainConfig, callbacks: Sequence[Callback], evaluators: Mapping[str, Evaluator] | None
) -> tuple[Callbacks, Mapping[str, Evaluator]]:
    """The trackers and callbacks as one, and the evaluators, checked."""
    check_evaluators(evaluators or {})
    return Callbacks([*make_trackers(config.track), *callbacks]), evaluators or {}


class _Training:
    """A run in progress: the agents, the buffers, and where it stands."""

    def __init__(
        self,
        problem: Problem,
        directory: Path,
        extra: dict[str, Any],
        callbacks: Callbacks,
        evaluators: Mapping[str, Evaluator],
    ):
        self.problem, self.config, self.directory, self.extra = problem, problem.config, directory, extra
        self.seeds = self.config.run_seeds
        self.fleet = Fleet(problem.algorithm)
        self.callbacks, self.judge = callbacks, Judge(problem, self.fleet, evaluators)
        self.store = CheckpointStore(directory / "checkpoints")
        self.collector = None
        if problem.simulator is not None:
            self.collector = Collector(problem.simulator, problem.scaling)
        self.gap_model: SimulatorGap | None = None
        self.agents = self.fleet.create(self.seeds)
        self.buffer = self._empty_buffer()
        self.unsaved: list[np.ndarray] = []
        self.manifest = self.store.latest()
        self.step = 0
        self.started = time.monotonic()
        self.wall_before = self.update_seconds = 0.0
        if self.manifest is not None:
            self._restore(self.manifest)
        kept = self.manifest.metrics_bytes if self.manifest else 0
        self.metrics = MetricsFile(directory / "metrics.jsonl", kept)
        self.keys = {purpose: seed_keys(self.seeds, purpose) for purpose in (UPDATE, EXPLORE)}
        self.must_restart = True
        self.last_return = ""

    def _empty_buffer(self) -> ReplayBuffer | None:
        if self.collector is None:
            return None
        row = self.problem.algorithm.simulated_row_size
        return ReplayBuffer.create(len(self.seeds), self.problem.capacity, row)

    def _restore(self, manifest: Manifest) -> None:
        self.agents = self.store.load_state(manifest, self.agents)
        self.step = manifest.step
        self.wall_before, self.update_seconds = manifest.wall_seconds, manifest.update_seconds
        if self.buffer is None:
            return
        for start, rows in self.store.load_rows(manifest):
            if rows.shape[-1] != self.buffer.rows.shape[-1]:
                raise RunError(
                    f"{self.directory} was begun when recipe {self.config.recipe} was another: its simulated "
                    f"rows hold {rows.shape[-1]} numbers, not {self.buffer.rows.shape[-1]}; train anew"
                )
            # The oldest chunk kept may begin anywhere in the ring: its rows go where they were.
            position = jnp.asarray(start % self.buffer.capacity, jnp.int32)
            size = jnp.asarray(min(start, self.buffer.capacity), jnp.int32)
            self.buffer = ReplayBuffer(self.buffer.rows, size, position)
            for first in range(0, rows.shape[1], self.config.rollout_steps):
                part = rows[:, first : first + self.config.rollout_steps]
                self.buffer = insert(self.buffer, jnp.asarray(part))

    def run(self, *, quiet: bool) -> RunResult:
        """Train to the last step, then evaluate and write ``result.json``."""
        try:
            result = self._run(quiet=quiet)
        except BaseException as error:
            self.callbacks.on_stop(error)
            raise
        self.callbacks.on_end(result)
        return result

    def _run(self, *, quiet: bool) -> RunResult:
        config = self.config
        title = f"{config.recipe} × {len(self.seeds)}" if len(self.seeds) > 1 else config.recipe
        with self._telling_how_to_go_on():
            self.callbacks.on_start(RunStart(self.directory, config, self.step, MappingProxyType(self.extra)))
            if self.problem.recipe.measures_gap:
                self.gap_model = gap_model_of_run(self.problem, self.directory, quiet=quiet)
        recent = deque([(time.monotonic(), self.step)], maxlen=RATE_ROUNDS + 1)
        with make_progress(title, config.steps, self.step, quiet=quiet) as progress:
            while self.step < config.steps:
                with self._telling_how_to_go_on():
                    self._round()
                recent.append((time.monotonic(), self.step))
                (began, first), (now, step) = recent[0], recent[-1]
                progress.advance(step, (step - first) / (now - began), self.last_return)
                if len(recent) == 2:
                    # The first round compiles, which says nothing of the rounds to come.
                    recent.popleft()
        with self._telling_how_to_go_on():
            return self._finish()

    @contextmanager
    def _telling_how_to_go_on(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as interrupt:
            saved = self.manifest.step if self.manifest else 0
            interrupt.add_note(f"Step {saved} is saved; go on with: {self._resume_command()}")
            raise
        except (SimulatorError, CallbackError) as error:
            self._save()
            what = "the simulator" if isinstance(error, SimulatorError) else "that"
            error.add_note(
                f"The training state at step {self.step} is saved; when {what} is mended, "
                f"go on with: {self._resume_command()}"
            )
            raise

    def _resume_command(self) -> str:
        return resume_command(self.directory, self.config, self.extra)

    def _round(self) -> None:
        config, count = self.config, min(self.config.rollout_steps, self.config.steps - self.step)
        metrics: dict[str, Any] = {}
        if self.collector is not None:
            metrics |= self._collect(count)
        began = time.monotonic()
        self.agents, updated = self.fleet.train(
            self.agents, self.problem.log, self.buffer, self.keys[UPDATE], step=self.step, updates=count
        )
        self.update_seconds += time.monotonic() - began
        self._refuse_non_finite(updated)
        self.step += count
        metrics |= updated
        try:
            if config.evaluate_every and self.step % config.evaluate_every == 0:
                metrics |= self._evaluate()
                # One by one, so that those before one that raises are kept.
                metrics.update(self.judge.evaluators(self.agents, self.step))
        finally:
            # Also where the evaluation failed: this round's losses are known.
            self.callbacks.on_metrics(self.metrics.write(self.step, self.seeds, metrics))
        if self.step % config.checkpoint_every == 0 or self.step == config.steps:
            self._save()
            self.must_restart = True
            self.callbacks.on_checkpoint(self.step, self.directory)

    def _collect(self, count: int) -> dict[str, Any]:
        assert self.collector is not None
        assert self.buffer is not None
        if self.must_restart:
            self.collector.restart(episode_seeds(self.seeds, self.step, RESTART))
            self.must_restart = False
        act = self.fleet.actor(self.agents)
        rollout = self.collector.collect(act, self.keys[EXPLORE], step=self.step, count=count)
        simulated = rollout.transitions
        gap = None if self.gap_model is None else measure(self.gap_model, simulated)
        rows = pack(self.problem.scaling.transitions(simulated), gap)
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

    def _save(self) -> None:
        if self.manifest is not None and self.manifest.step == self.step:
            return
        new = np.concatenate(self.unsaved, axis=1) if self.unsaved else None
        self.manifest = self.store.save(
            self.step,
            self.agents,
            new,
            previous=self.manifest,
            capacity=self.problem.capacity,
            metrics_bytes=self.metrics.flush(),
            wall_seconds=self._wall_seconds(),
            update_seconds=self.update_seconds,
        )
        self.unsaved = []

    def _wall_seconds(self) -> float:
        return self.wall_before + time.monotonic() - self.started

    def _refuse_non_finite(self, metrics: dict[str, np.ndarray]) -> None:
        for name, values in metrics.items():
            for seed, value in zip(self.seeds, values, strict=True):
                if not np.isfinite(value):
                    saved = self.manifest.step if self.manifest else 0
                    raise RunError(
                        f"{name} of seed {seed} became {value} between steps {self.step} and "
                        f"{self.step + self.config.rollout_steps}; the last good checkpoint is step {saved}. "
                        "A lower --learning-rate or a smaller --reward-scale usually helps"
                    )

    def _finish(self) -> RunResult:
        episodes = self.judge.episodes(self.agents, self.step)
        evaluators = dict(self.judge.evaluators(self.agents, self.step))
        updates = self.step * len(self.seeds)
        summary = {
            "recipe": self.config.recipe,
            "steps": self.step,
            "runs": seed_results(self.seeds, episodes, evaluators),
            "evaluation_environment": self.problem.evaluation_name,
            "updates_per_second": round(updates / max(self.update_seconds, 1e-9), 1),
            "wall_seconds": round(self._wall_seconds(), 1),
            "versions": versions(),
            "dataset_sha256": self.extra["dataset_sha256"],
            "command": self.extra["command"],
        }
        result = RunResult(self.directory, summary)
        write_result(result)
        return result


def keep_compiled() -> None:
    """Keep compiled updates between processes, unless the user chose a place for them already."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simtrust" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
