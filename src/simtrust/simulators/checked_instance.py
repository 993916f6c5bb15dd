"""One environment of the user's, whose errors and malformed answers say where they happened."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from simtrust.errors import InstanceError, SimulatorError, describe_error
from simtrust.simulators.foreign_code import contained, signals_kept


def when(step: int, action: np.ndarray | None) -> str:
    """At what an instance failed, in words; ``action`` ``[A]`` is None at a reset."""
    if action is None:
        return ", at reset"
    shown = np.array2string(np.asarray(action), separator=", ", max_line_width=10**6)
    return f", step {step} since its reset, action {shown}"


def is_number(array: np.ndarray) -> bool:
    """Whether an array holds real numbers."""
    return array.dtype.kind in "fiu"


class CheckedInstance(gymnasium.Wrapper):
    """One environment whose errors and malformed answers become `SimulatorError`s that name it.

    Numbers that are not finite are left to `GuardedSimulator`, which checks all instances at once. What it
    answers is copied, and so is the action that it gets: the environment may reuse its arrays, or write into
    the action. Its spaces are read once.

    Raises:
        SimulatorError: at construction, if a space is not a 1-D Box, or an action bound not finite.
    """

    def __init__(self, env: gymnasium.Env, name: str, instance: int, num_envs: int) -> None:
        super().__init__(env)
        self._title, self._instance, self._num_envs = name, instance, num_envs
        self._steps = 0
        self._action: np.ndarray | None = None
        self._observation_box, action_box = _spaces(env, name)
        self.observation_space, self.action_space = self._observation_box, action_box

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As `gymnasium.Env.reset`; the observation is checked."""
        self._steps, self._action = 0, None
        with signals_kept():
            answer = self._call(self.env.reset, seed=seed, options=options)
        if not isinstance(answer, tuple) or len(answer) != 2:
            self._fail("reset must return (observation, info)")
        observation, info = answer
        return self._checked_observation(observation), _dict_of(info)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As `gymnasium.Env.step`; shape, kind of number and flags are checked."""
        self._steps, self._action = self._steps + 1, action
        answer = self._call(self.env.step, np.array(action))
        if not isinstance(answer, tuple) or len(answer) != 5:
            self._fail("step must return (observation, reward, terminated, truncated, info)")
        observation, reward, terminated, truncated, info = answer
        observation = self._checked_observation(observation)
        number = self._array("reward", reward)
        if number.ndim != 0 or not is_number(number):
            self._fail(f"the reward must be a number, got {reward!r}")
        for flag, value in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(value, bool | np.bool_):
                self._fail(f"{flag} must be a bool, got {value!r}")
        return observation, float(number), bool(terminated), bool(truncated), _dict_of(info)

    @property
    def offers_set_observation(self) -> bool:
        """Whether the environment's own class has a method ``set_observation``."""
        return callable(getattr(self.unwrapped, "set_observation", None))

    def set_observation(self, observation: np.ndarray) -> None:
        """Put the environment, just reset, into the state that an observation ``[O]`` tells."""
        environment: Any = self.unwrapped
        self._action = None
        self._call(environment.set_observation, np.array(observation))

    def close(self) -> None:
        """Close the environment, which may raise anything but `SystemExit`."""
        with contained():
            super().close()

    def here(self, problem: str) -> InstanceError:
        """An error at the latest step or reset."""
        told = f"{when(self._steps, self._action)}: {problem}"
        return InstanceError(self._title, self._instance, self._num_envs, told)

    def _call(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        try:
            with contained():
                return function(*args, **kwargs)
        except Exception as error:
            self._fail(f"the environment raised {describe_error(error)}", error)

    def _checked_observation(self, observation: Any) -> np.ndarray:
        space = self._observation_box
        array = self._array("observation", observation)
        if array.shape != space.shape:
            self._fail(f"the observation has shape {array.shape}, its space {space.shape}: {array}")
        if not is_number(array) or not np.can_cast(array.dtype, space.dtype, "same_kind"):
            self._fail(f"the observation has dtype {array.dtype}, its space {space.dtype}: {observation!r}")
        if space.dtype.kind in "iu" and (array.astype(space.dtype) != array).any():
            self._fail(f"the observation does not fit its space's dtype {space.dtype}: {array}")
        return array

    def _array(self, what: str, value: Any) -> np.ndarray:
        try:
            return np.array(value)
        except Exception as error:  # ragged, say, or on a GPU
            self._fail(f"the {what} is not an array: {error}", error)

    def _fail(self, problem: str, cause: Exception | None = None) -> NoReturn:
        raise self.here(problem) from cause


def _dict_of(info: Any) -> dict[str, Any]:
    """The info, or none: nothing learns from infos, so a malformed one is no reason to stop."""
    return info if isinstance(info, dict) else {}


def make_checked(
    make_env: Callable[[], gymnasium.Env],
    name: str,
    instance: int,
    num_envs: int,
    others: Iterable[CheckedInstance],
) -> CheckedInstance:
    """Make an environment and check that it is none of the others; close it if it cannot be used.

    Raises:
        SimulatorError: it cannot be made, is one of the others, or has spaces that are not supported.
    """
    env = make_env()
    if any(env.unwrapped is other.unwrapped for other in others):
        raise SimulatorError(f"{name}: the factory must return a new environment at every call")
    try:
        return CheckedInstance(env, name, instance, num_envs)
    except BaseException:
        with suppress(Exception), contained():
            env.close()
        raise


def _spaces(env: gymnasium.Env, name: str) -> tuple[Box, Box]:
    """The observation and the action space, if both are supported; copies, of no class of the user's own."""
    try:
        with contained():
            observation, action = env.observation_space, env.action_space
    except Exception as error:
        raise SimulatorError(f"{name}: it does not tell its spaces: {describe_error(error)}") from error
    if not isinstance(observation, Box) or len(observation.shape) != 1 or observation.dtype.kind not in "fiu":
        problem = f"its observation space is {observation}"
    elif not isinstance(action, Box) or len(action.shape) != 1 or action.dtype.kind != "f":
        problem = f"its action space is {action}"
    elif not (np.isfinite(action.low) & np.isfinite(action.high) & (action.low < action.high)).all():
        problem = f"its action bounds are {action.low} to {action.high}"
    else:
        return _plain(observation), _plain(action)
    raise SimulatorError(
        f"{name}: unsupported: {problem}. Supported are a 1-D Box of numbers as observation space and a 1-D "
        "Box of floats with finite bounds, low < high, as action space; wrap the environment in a "
        "factory (FlattenObservation, RescaleAction, ...) and name it as module:factory"
    )


def _plain(space: Box) -> Box:
    return Box(space.low.copy(), space.high.copy(), space.shape, space.dtype.type)
