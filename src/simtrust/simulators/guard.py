"""The guard around every simulator: nothing malformed gets in or out, and errors say where."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv, VectorWrapper

from simtrust.errors import InstanceError, NonFiniteAnswer, SimulatorError, describe_error
from simtrust.simulators.batched import BatchedTask
from simtrust.simulators.checked_instance import CheckedInstance, is_number, when
from simtrust.simulators.task_specs import States


class StateNotSettable(SimulatorError):
    """The simulator cannot be put into a logged state; estimate its gap by other means than replay."""


@runtime_checkable
class SettableInstances(Protocol):
    """A vector environment that knows whether, and how, its own instances are put into a state."""

    @property
    def offers_set_observation(self) -> bool: ...

    def set_observations(self, observations: np.ndarray) -> None: ...


class GuardedSimulator(VectorWrapper):
    """A simulator that lets nothing malformed in or out.

    Every error is a `SimulatorError` naming the simulator, instance, step since its reset, and
    action; after one, reset before going on. ``str()`` tells the name, shifts and size.

    Args:
        env: a vector environment in `AutoresetMode.DISABLED`.
        name: what errors and ``str()`` call it.
        state_of: the states behind observations ``[S, O]``; only of use for a built-in task.
    """

    def __init__(
        self, env: VectorEnv, name: str, state_of: Callable[[np.ndarray], States] | None = None
    ) -> None:
        super().__init__(env)
        self.name = name
        self._state_of = state_of
        self._action_shape = self.action_space.shape
        self._observation_shape = self.observation_space.shape
        self._steps = np.zeros(env.num_envs, np.int64)
        self._must_reset = np.ones(env.num_envs, bool)

    def __str__(self) -> str:
        return f"{self.name}, {self.num_envs} instance{'s' if self.num_envs > 1 else ''}"

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Restart the instances of ``options["reset_mask"]`` ``[S]`` bool, or all.

        Args:
            seed: one per instance, or an int n for n, n+1, ..., n+S−1, or None to go on.
            options: handed on to the environments, save ``reset_mask``; not modified.

        Returns:
            Observations ``[S, O]``, with the latest one where nothing was restarted; and info.
        """
        options = dict(options or {})
        mask = self._checked_mask(options.get("reset_mask"))
        if "reset_mask" in options:
            options["reset_mask"] = mask
        seeds = self._checked_seeds(seed)
        self._steps[mask] = 0
        # An instance whose reset fails stays closed to steps.
        self._must_reset |= mask
        observation, info = self._call(None, self.env.reset, seed=seeds, options=options or None)
        self._check_observation(observation, None)
        self._must_reset &= ~mask
        return observation, info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every instance; see `make_simulator`.

        Args:
            actions: ``[S, A]``, finite; beyond the action space they are the simulator's to bound.
        """
        if self._must_reset.any():
            first = int(self._must_reset.argmax())
            raise InstanceError(self.name, first, self.num_envs, ": reset it before this step")
        actions = self._checked_actions(actions)
        self._steps += 1
        answer = self._call(actions, self.env.step, actions)
        observation, reward, terminated, truncated, info = answer
        self._check_observation(observation, actions)
        self._check_finite("reward", reward, actions)
        np.logical_or(terminated, truncated, out=self._must_reset)
        return observation, reward, terminated, truncated, info

    @property
    def state(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions ``[S, nq]`` and velocities ``[S, nv]``, where the simulator can tell them."""
        return self._with_settable_state().state

    def set_state(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Start an episode of every instance in a state given; return its observations ``[S, O]``.

        Raises:
            SimulatorError: the simulator cannot be set to a state, or not to this one.
        """
        observation = self._with_settable_state().set_state(position, velocity)
        self._check_observation(observation, None)
        self._steps[:] = 0
        self._must_reset[:] = False
        return observation

    def set_observations(self, observations: np.ndarray) -> np.ndarray:
        """Start an episode of every instance in the state that its observation ``[S, O]`` tells.

        A built-in simulator knows how; any other environment is reset and then told by its own
        method ``set_observation(observation)``.

        Returns:
            ``[S]`` bool; False where the observation does not determine the state, and the instance
            starts in one of those it could be.

        Raises:
            StateNotSettable: the environment has no such method.
            SimulatorError: it raised, or a shape is wrong.
        """
        self.check_settable()
        if np.shape(observations) != self._observation_shape:
            raise SimulatorError(
                f"{self.name}: observations to set must be of shape {self._observation_shape}, got "
                f"{np.shape(observations)}"
            )
        if self._state_of is not None:
            position, velocity, determined = self._state_of(observations)
            self.set_state(position, velocity)
            return determined
        self.reset()
        own = np.array(observations, self.single_observation_space.dtype)
        if isinstance(self.env, SettableInstances):
            self._call(None, self.env.set_observations, own)
        else:
            for instance, observation in zip(self._settable_instances(), own, strict=True):
                self._call(None, instance.set_observation, observation)
        return np.ones(self.num_envs, bool)

    def check_settable(self) -> None:
        """Raise `StateNotSettable` if `set_observations` cannot work, before anything is set."""
        if isinstance(self.env, SettableInstances):
            settable = self.env.offers_set_observation
        else:
            settable = self._state_of is not None or bool(self._settable_instances())
        if not settable:
            raise StateNotSettable(
                f"{self.name} cannot be put into a logged state. Remedy: give the environment's class a "
                "method set_observation(observation) that puts it into the state which an observation tells"
            )

    def _settable_instances(self) -> list[CheckedInstance]:
        instances = self.env.envs if isinstance(self.env, SyncVectorEnv) else ()
        checked = [instance for instance in instances if isinstance(instance, CheckedInstance)]
        return checked if all(instance.offers_set_observation for instance in checked) else []

    def go_on(self) -> bool:
        """Let finished instances be stepped on where that has a meaning; whether all can be stepped now.

        The physics of a built-in simulator know no end of an episode; of another environment nobody
        knows what a step after the end would do.
        """
        if isinstance(self.env, BatchedTask):
            self._must_reset[:] = False
        return not self._must_reset.any()

    def _with_settable_state(self) -> BatchedTask:
        if not isinstance(self.env, BatchedTask):
            raise SimulatorError(f"{self.name} cannot be set to a state; only built-in simulators can")
        return self.env

    def _checked_mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, bool)
        mask = np.asarray(mask)
        if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise SimulatorError(
                f"{self.name}: reset_mask must be bool of shape ({self.num_envs},) with at least one True, "
                f"got {mask!r}"
            )
        return mask

    def _checked_seeds(self, seed: Any) -> list[int | None] | None:
        if seed is None:
            return None
        seeds: list[int | None] = []
        try:
            given = [seed + i for i in range(self.num_envs)] if np.ndim(seed) == 0 else list(seed)
            seeds = [None if one is None else operator.index(one) for one in given]
        except TypeError:
            pass  # reported below
        if len(seeds) != self.num_envs or any(one is not None and one < 0 for one in seeds):
            raise SimulatorError(
                f"{self.name}: seed must be an int of at least 0, or {self.num_envs} of them (or None), "
                f"got {seed!r}"
            )
        return seeds

    def _checked_actions(self, actions: Any) -> np.ndarray:
        actions = np.ascontiguousarray(actions)
        if actions.shape != self._action_shape or not is_number(actions):
            raise SimulatorError(
                f"{self.name}: actions must be numbers of shape {self._action_shape}, got {actions.dtype} of "
                f"shape {actions.shape}"
            )
        if not np.isfinite(actions).all():
            instance, dimension = _first_not_finite(actions)
            step, value = int(self._steps[instance]) + 1, actions[instance, dimension]
            problem = f"action dimension {dimension} is {value}; nothing was stepped"
            told = f"{when(step, actions[instance])}: {problem}"
            raise InstanceError(self.name, instance, self.num_envs, told)
        return actions if actions.dtype.kind == "f" else actions.astype(self.single_action_space.dtype)

    def _check_observation(self, observation: np.ndarray, actions: np.ndarray | None) -> None:
        if observation.shape != self._observation_shape:
            raise SimulatorError(
                f"{self.name}: observations have shape {observation.shape}, not {self._observation_shape}"
            )
        self._check_finite("observation", observation, actions)

    def _check_finite(self, what: str, values: np.ndarray, actions: np.ndarray | None) -> None:
        """Name the first number of ``[S]`` or ``[S, n]`` that is not finite."""
        if np.isfinite(values).all():
            return
        instance, *dimension = _first_not_finite(values)
        self._must_reset[:] = True
        place = f" dimension {dimension[0]}" if dimension else ""
        value = values[(instance, *dimension)]
        told = f"{self._when(instance, actions)}: {what}{place} is {value}"
        answered = np.array(values[instance])
        raise NonFiniteAnswer(self.name, instance, self.num_envs, told, what, answered)

    def _call(self, actions: np.ndarray | None, function: Callable, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except SimulatorError:
            self._must_reset[:] = True
            raise
        except Exception as error:
            self._must_reset[:] = True
            # MuJoCo's batch and our tasks tell which instances failed; others name it themselves.
            instance = int(np.ravel(getattr(error, "ids", [0]))[0])
            told = f"{self._when(instance, actions)}: {describe_error(error)}"
            raise InstanceError(self.name, instance, self.num_envs, told) from error

    def _when(self, instance: int, actions: np.ndarray | None) -> str:
        return when(int(self._steps[instance]), None if actions is None else actions[instance])


def _first_not_finite(values: np.ndarray) -> list[int]:
    return [int(index) for index in np.argwhere(~np.isfinite(values))[0]]
