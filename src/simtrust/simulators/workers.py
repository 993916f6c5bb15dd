"""Instances of a slow environment shared out among processes, and stepped side by side.

Gymnasium's ``AsyncVectorEnv`` has one process for each instance, shuts a worker down at its first error, and
of a worker that was killed tells neither which it was nor lets itself be closed. Here a worker has several
instances, answers once for each instance that it was asked for, and goes on after an error; so the main
process knows which instance a dead worker was at.
"""

import multiprocessing
import signal
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from simtrust.errors import SimulatorError
from simtrust.simulators.worker_process import Call, Facts, Failure, serve

GRACE_SECONDS = 5.0
"""How long a worker may take to finish its step and close its instances."""


class WorkerDied(RuntimeError):
    """A worker process ended by itself; ``ids`` has the instance that it was at."""

    def __init__(self, instance: int, how: str) -> None:
        self.ids = [instance]
        super().__init__(f"its worker process {how}; all workers were ended, so make the simulator anew")


class InWorker(Exception):
    """The traceback of an error in a worker process, as text."""


class _Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection
    instances: tuple[int, ...]


class WorkerInstances(VectorEnv):
    """S instances in at most ``workers`` processes, in `AutoresetMode.DISABLED`.

    The same seeds give the same rows as in one process. The workers end with `close`, with this object, or
    with the main process, however that ends. An environment cannot start processes through
    ``multiprocessing`` there.

    Args:
        name: a Gymnasium id or ``module:factory``; a worker imports it anew, by this process's ``sys.path``.
        num_envs: S.
        workers: how many processes, at least 1; no more than S are started.
        max_episode_steps: truncate episodes there; None: the environment's own limit, if it has one.

    Raises:
        SimulatorError: a worker cannot import or make its instances, or their spaces differ.
    """

    def __init__(self, name: str, num_envs: int, workers: int, max_episode_steps: int | None = None) -> None:
        self._name, self.num_envs = name, num_envs
        # Spawned, not forked: JAX and MuJoCo have threads, which a fork would leave in the middle of things.
        context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._end = weakref.finalize(self, _end, self._workers)
        for share in np.array_split(np.arange(num_envs), min(workers, num_envs)):
            pipe, theirs = context.Pipe()
            instances = tuple(int(index) for index in share)
            task = (theirs, name, instances, num_envs, max_episode_steps, str(Path.cwd()))
            process = context.Process(target=serve, args=task, daemon=True, name=f"simtrust {name}")
            try:
                process.start()
            finally:
                # Else nobody would hear when the worker ends.
                theirs.close()
            self._workers.append(_Worker(process, pipe, instances))
        first, *others = self._first_facts()
        for index, other in enumerate(others, start=1):
            if (other.observation, other.action) != (first.observation, first.action):
                self._refuse(
                    f"{name}: the instances cannot be run side by side: the spaces of instance {index} are "
                    f"{other.observation} and {other.action}, of instance 0 {first.observation} and "
                    f"{first.action}"
                )
        self.single_observation_space, self.single_action_space = first.observation, first.action
        self.observation_space = batch_space(first.observation, num_envs)
        self.action_space = batch_space(first.action, num_envs)
        self.metadata = first.metadata | {"autoreset_mode": AutoresetMode.DISABLED}
        self._offers_set_observation = all(facts.offers_set_observation for facts in (first, *others))
        self._observations = np.zeros((num_envs, *first.observation.shape), first.observation.dtype)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Restart the instances of ``options["reset_mask"]``, or all; as `GuardedSimulator.reset`."""
        everyone = range(self.num_envs)
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + index for index in everyone]
        own = None if options is None else {k: v for k, v in options.items() if k != "reset_mask"}
        mask = (options or {}).get("reset_mask")
        chosen = [i for i in everyone if mask is None or mask[i]]
        calls = {i: Call("reset", (), {"seed": seed[i], "options": own}) for i in chosen}
        infos: dict[str, Any] = {}
        for index, (observation, info) in self._exchange(calls).items():
            self._observations[index] = observation
            infos = self._add_info(infos, info, index)
        return self._observations.copy(), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every instance with its row of ``actions [S, A]``."""
        answers = self._exchange({i: Call("step", (action,)) for i, action in enumerate(actions)})
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        infos: dict[str, Any] = {}
        for index, answer in answers.items():
            self._observations[index], rewards[index], terminated[index], truncated[index], info = answer
            infos = self._add_info(infos, info, index)
        return self._observations.copy(), rewards, terminated, truncated, infos

    @property
    def offers_set_observation(self) -> bool:
        """Whether every instance's class has a method ``set_observation``."""
        return self._offers_set_observation

    def set_observations(self, observations: np.ndarray) -> None:
        """Call each instance's ``set_observation`` with its row of ``observations [S, O]``."""
        self._exchange({i: Call("set_observation", (row,)) for i, row in enumerate(observations)})

    def close_extras(self, **kwargs: Any) -> None:
        """End the workers; those in the middle of a long step after a grace."""
        self._end()

    def _first_facts(self) -> list[Facts]:
        try:
            facts = _answers({index: worker for worker in self._workers for index in worker.instances})
        except WorkerDied as error:
            self._refuse(
                f"{self._name}, instance {error.ids[0]} of {self.num_envs}: {error}. If a script of "
                'yours makes it, it must do so under `if __name__ == "__main__":`, since workers import it'
            )
        failed = next((answer for answer in facts.values() if isinstance(answer, Failure)), None)
        if failed is not None:
            self._refuse(
                f"{failed.message} (in a worker process, which imports it anew: it must be in a file on "
                "sys.path; or leave out the workers)",
                failed.trace,
            )
        return list(facts.values())

    def _refuse(self, message: str, trace: str = "") -> NoReturn:
        self.close()
        raise SimulatorError(message) from (InWorker(trace) if trace else None)

    def _exchange(self, calls: Mapping[int, Call]) -> dict[int, Any]:
        """The answers of the instances called, by instance; raises the first failure in their order."""
        if self.closed:
            raise SimulatorError(f"{self._name}: its worker processes were ended; make the simulator anew")
        asked: dict[int, _Worker] = {}
        try:
            for worker in self._workers:
                chosen = {index: calls[index] for index in worker.instances if index in calls}
                asked |= dict.fromkeys(chosen, worker)
                # A worker that is gone is found out when its answer is read.
                with suppress(OSError):
                    if chosen:
                        worker.pipe.send(chosen)
            answers = _answers(asked)
        except BaseException:
            # Answers not read would be taken for those to the next call.
            self.close()
            raise
        for answer in answers.values():
            if isinstance(answer, Failure):
                raise SimulatorError(answer.message) from InWorker(answer.trace)
        return answers


def _answers(asked: Mapping[int, _Worker]) -> dict[int, Any]:
    """The next answer of each instance's worker, by instance; the order is that in which they answer."""
    answers: dict[int, Any] = {}
    for index, worker in asked.items():
        try:
            answers[index] = worker.pipe.recv()
        except (EOFError, OSError):
            raise WorkerDied(index, _how_it_ended(worker.process)) from None
    return answers


def _how_it_ended(process: BaseProcess) -> str:
    process.join(GRACE_SECONDS)
    status = process.exitcode
    if status is None:
        return "closed its connection"
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        told = signal.Signals(-status).name
    except ValueError:
        told = f"signal {-status}"
    return f"was killed by {told}" + (" (was memory short?)" if told == "SIGKILL" else "")


def _end(workers: list[_Worker]) -> None:
    """End worker processes and wait for them, so that none is left as a zombie."""
    for worker in workers:
        with suppress(OSError):
            worker.pipe.send(None)
        worker.pipe.close()
    limit = time.monotonic() + GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(limit - time.monotonic(), 0.0))
        for stop in (worker.process.terminate, worker.process.kill):
            if worker.process.is_alive():
                stop()
                worker.process.join(1.0)
    workers.clear()
