"""Instances of a slow environment shared out among processes, and stepped side by side.

Gymnasium's ``AsyncVectorEnv`` has one process for each instance, shuts a worker down at its first error, and
of a worker that was killed tells neither which it was nor lets itself be closed. Here a worker has several
instances, answers once for each instance that it was asked for, and goes on after an error; so the main
process knows which instance a dead worker was at.
"""

import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from simtrust.errors import SimulatorError
from simtrust.simulators.side_by_side import TolerantInfos
from simtrust.simulators.worker_handle import Worker, WorkerDied, WorkerFault, end, gather, start
from simtrust.simulators.worker_process import Call, Facts, Failure, serve

MAKING_SECONDS = 60.0
"""What making an instance may take where the time limit is shorter: much may have to be imported."""

MAIN_GUARD = (
    ". If a script of yours makes it, "
    'it must do so under `if __name__ == "__main__":`, since workers import it'
)


class InWorker(Exception):
    """The traceback of an error in a worker process, as text."""


class WorkerInstances(TolerantInfos):
    """S instances in at most ``workers`` processes, in `AutoresetMode.DISABLED`.

    The same seeds give the same rows as in one process. The workers end with `close`, with this object, or
    with the main process, however that ends. An environment cannot start processes through
    ``multiprocessing`` there.

    Args:
        name: a Gymnasium id or ``module:factory``; a worker imports it anew, by this process's ``sys.path``.
        num_envs: S.
        workers: how many processes, at least 1; no more than S are started.
        max_episode_steps: truncate episodes there; None: the environment's own limit, if it has one.
        step_timeout: seconds that one reset or step of one instance may take, and to make it if they are
            more than `MAKING_SECONDS`; None: no limit. A worker that is late is killed, even in the middle of
            C code that never returns, with the processes that it has started; then the others are ended.

    Raises:
        SimulatorError: a worker cannot import or make its instances, or not in time, or their spaces differ.
    """

    def __init__(
        self,
        name: str,
        num_envs: int,
        workers: int,
        max_episode_steps: int | None = None,
        step_timeout: float | None = None,
    ) -> None:
        self._name, self.num_envs, self._step_timeout = name, num_envs, step_timeout
        self._workers: list[Worker] = []
        self._end = weakref.finalize(self, end, self._workers)
        for share in np.array_split(np.arange(num_envs), min(workers, num_envs)):
            instances = tuple(int(index) for index in share)
            task = (name, instances, num_envs, max_episode_steps, str(Path.cwd()))
            self._workers.append(start(serve, instances, *task, title=f"simtrust {name}"))
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
        limit = None if self._step_timeout is None else max(self._step_timeout, MAKING_SECONDS)
        try:
            # That Python and this package are up says each worker first, which no limit is set to.
            gather({worker.instances[0]: worker for worker in self._workers})
            facts = gather({index: worker for worker in self._workers for index in worker.instances}, limit)
        except WorkerFault as error:
            hint = MAIN_GUARD if isinstance(error, WorkerDied) else ""
            self._refuse(f"{self._name}, instance {error.ids[0]} of {self.num_envs}: {error}{hint}")
        except BaseException:
            self.close()
            raise
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
        asked: dict[int, Worker] = {}
        try:
            for worker in self._workers:
                chosen = {index: calls[index] for index in worker.instances if index in calls}
                asked |= dict.fromkeys(chosen, worker)
                # A worker that is gone is found out when its answer is read.
                with suppress(OSError):
                    if chosen:
                        worker.pipe.send(chosen)
            answers = gather(asked, self._step_timeout)
        except BaseException:
            # Answers not read would be taken for those to the next call.
            self.close()
            raise
        for answer in answers.values():
            if isinstance(answer, Failure):
                raise SimulatorError(answer.message) from InWorker(answer.trace)
        return answers
