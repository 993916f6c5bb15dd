"""The training loop: collect, update, evaluate, save; and how an interrupted run goes on.

Where the recipe reads the measured gap, the model that measures it is fitted first (`training.gap_model`).
One round is ``rollout_steps`` simulator steps with the current policy, then as many updates. At every
checkpoint the simulator's episode is cut (truncated, not terminal) and restarted from a seed derived
from (run seed, step), whether or not the run is ever interrupted. So a run resumed from a checkpoint
repeats the uninterrupted one bit for bit on CPU, with any simulator that honours its seeds, and nothing
of the simulator's inside needs saving.
"""

import json
import os
import shlex
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import jax
import jax.numpy as jnp
import numpy as np

from simtrust.data.replay import ReplayBuffer, insert, pack
from simtrust.errors import RunError, SimulatorError
from simtrust.evaluation.returns import EpisodeReturns, run_episodes
from simtrust.gap.simulator_gap import SimulatorGap
from simtrust.training.checkpoint import CheckpointStore, Manifest, write_atomically
from simtrust.training.collect import Collector
from simtrust.training.config import TrainConfig, config_from_json, config_to_json
from simtrust.training.fleet import EXPLORE, UPDATE, Fleet, seed_keys
from simtrust.training.gap_model import gap_model_of_run, measure
from simtrust.training.metrics import MetricsFile, TensorBoard, make_progress, plain
from simtrust.training.setup import Problem, observed_range, prepare, versions

RESTART, EVALUATE = "restart", "evaluate"
RATE_ROUNDS = 20
"""Rounds over which the displayed speed is averaged."""


class RunResult(NamedTuple):
    """What a finished run leaves: its directory, and the content of ``result.json``."""

    directory: Path
    summary: dict[str, Any]


def episode_seeds(run_seeds: Sequence[int], step: int, purpose: str, count: int = 1) -> list[int]:
    """Simulator seeds [R·count], a function of (run seed, step, purpose) alone."""
    salt = {RESTART: 1, EVALUATE: 2}[purpose]
    states = [np.random.SeedSequence([seed, step, salt]).generate_state(count) for seed in run_seeds]
    return [int(s) for state in states for s in state]


def train(config: TrainConfig, *, quiet: bool = False, command: str = "simtrust.train(...)") -> RunResult:
    """Train as ``config`` says into its new directory, and evaluate the result.

    ``command`` is what made the run, for the record in ``result.json``.

    Raises a `SimtrustError` before any work if something in the configuration, the log or the
    simulator cannot be used, and `RunError` if the directory already holds a run.
    """
    directory = Path(config.out or f"runs/{config.recipe}-{time.strftime('%Y%m%d-%H%M%S')}")
    config = replace(config, out=str(directory))
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{directory} cannot be made: {error.strerror}; choose another --out") from error
    keep_compiled()
    with _lock(directory):
        if (directory / "config.json").exists():
            raise RunError(f"{directory} already holds a run; go on with: simtrust resume {directory}")
        problem = prepare(config)
        extra = {
            "command": command,
            "versions": versions(),
            "dataset_sha256": problem.dataset.sha256 if problem.dataset else None,
            "scaling": problem.scaling.to_json(),
            **observed_range(problem.dataset),
            "evaluation_environment": problem.evaluation_name,
        }
        write_atomically(directory / "config.json", config_to_json(config, **extra).encode())
        return _Training(problem, directory, extra).run(quiet=quiet)


def resume(
    directory: str | Path, *, sim: str | None = None, real_env: str | None = None, quiet: bool = False
) -> RunResult:
    """Go on with an interrupted run from its last checkpoint; a finished run is only reported.

    A simulator or real environment that is code of yours (``module:factory``) must be named again, as
    ``sim`` and ``real_env``: no file of a run directory may decide which code is imported.

    Raises `RunError` if the directory holds no run, is in use, if the log has changed since, or if the
    run's own code is not confirmed.
    """
    directory = Path(directory)
    config, extra = config_from_json(directory / "config.json")
    if (directory / "result.json").exists():
        return RunResult(directory, json.loads((directory / "result.json").read_text()))
    confirm_code(directory, {"sim": (config.sim, sim), "real-env": (config.real_env, real_env)})
    keep_compiled()
    with _lock(directory):
        problem = prepare(config)
        found = problem.dataset.sha256 if problem.dataset else None
        if found != extra.get("dataset_sha256"):
            raise RunError(
                f"{config.real} is not the log that this run began with: its SHA-256 is {found}, "
                f"the run's {extra.get('dataset_sha256')}; restore the file"
            )
        return _Training(problem, directory, extra).run(quiet=quiet)


def confirm_code(directory: Path, names: dict[str, tuple[str | None, str | None]]) -> None:
    """Raise `RunError` unless every stored name that imports code equals what the user gave now."""
    for option, (stored, given) in names.items():
        if given is not None and given != stored:
            raise RunError(f"{directory} was begun with --{option} {stored}, not {given}")
        if stored is not None and ":" in stored and given is None:
            raise RunError(
                f"{directory} uses code of your own, {stored}; if you trust it, add --{option} {stored}"
            )


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    lock = filelock.FileLock(directory / ".lock", blocking=False)
    try:
        with lock:
            yield
    except filelock.Timeout:
        raise RunError(
            f"{directory} is in use by another process; wait for it, or choose another --out"
        ) from None


class _Training:
    """A run in progress: the agents, the buffers, and where it stands."""

    def __init__(self, problem: Problem, directory: Path, extra: dict[str, Any]):
        self.problem, self.config, self.directory, self.extra = problem, problem.config, directory, extra
        self.seeds = self.config.run_seeds
        self.fleet = Fleet(problem.algorithm)
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
        self.board = (
            TensorBoard(directory / "tensorboard", self.seeds, self.step) if self.config.tensorboard else None
        )
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
        config = self.config
        title = f"{config.recipe} × {len(self.seeds)}" if len(self.seeds) > 1 else config.recipe
        if self.problem.recipe.measures_gap:
            with self._telling_how_to_go_on():
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
        if self.board is not None:
            self.board.close()
        return self._finish()

    @contextmanager
    def _telling_how_to_go_on(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt as interrupt:
            saved = self.manifest.step if self.manifest else 0
            interrupt.add_note(f"Step {saved} is saved; go on with: {self._resume_command()}")
            raise
        except SimulatorError as error:
            self._save()
            error.add_note(
                f"The training state at step {self.step} is saved; when the simulator is mended, "
                f"go on with: {self._resume_command()}"
            )
            raise

    def _resume_command(self) -> str:
        names = {"--sim": self.config.sim, "--real-env": self.config.real_env}
        own = [word for option, name in names.items() if name and ":" in name for word in (option, name)]
        return shlex.join(["simtrust", "resume", str(self.directory), *own])

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
        finally:
            # Also where the evaluation failed: this round's losses are known.
            self.metrics.write(self.step, self.seeds, metrics)
            if self.board is not None:
                self.board.write(self.step, metrics)
        if self.step % config.checkpoint_every == 0 or self.step == config.steps:
            self._save()
            self.must_restart = True

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
        episodes = self._episodes(self.step)
        mean = episodes.returns.mean(-1)
        self.last_return = f"return {mean.mean():,.0f}"
        if len(mean) > 1:
            self.last_return += f" ({', '.join(f'{m:,.0f}' for m in mean)})"
        return {
            "return_mean": mean,
            "return_std": episodes.returns.std(-1),
            "episode_length": episodes.lengths.mean(-1),
        }

    def _episodes(self, step: int) -> EpisodeReturns:
        best, scaling = self.fleet.actor(self.agents), self.problem.scaling
        return run_episodes(
            self.problem.evaluation,
            lambda observation: scaling.to_machine_action(best(scaling.observe(observation))),
            runs=len(self.seeds),
            seeds=episode_seeds(self.seeds, step, EVALUATE, self.config.evaluation_episodes),
        )

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
        episodes = self._episodes(self.step)
        updates = self.step * len(self.seeds)
        summary = {
            "recipe": self.config.recipe,
            "steps": self.step,
            "runs": [
                {
                    "seed": seed,
                    "return_mean": plain(returns.mean()),
                    "return_std": plain(returns.std()),
                    "episode_returns": plain(returns),
                    "episode_lengths": plain(lengths),
                }
                for seed, returns, lengths in zip(self.seeds, *episodes, strict=True)
            ],
            "evaluation_environment": self.problem.evaluation_name,
            "updates_per_second": round(updates / max(self.update_seconds, 1e-9), 1),
            "wall_seconds": round(self._wall_seconds(), 1),
            "versions": versions(),
            "dataset_sha256": self.extra["dataset_sha256"],
            "command": self.extra["command"],
        }
        write_atomically(self.directory / "result.json", (json.dumps(summary, indent=2) + "\n").encode())
        return RunResult(self.directory, summary)


def keep_compiled() -> None:
    """Keep compiled updates between processes, unless the user chose a place for them already."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simtrust" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
