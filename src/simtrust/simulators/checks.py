"""Whether a simulator keeps its promises: each check says what was seen, and how to mend it."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

from simtrust.data import Dataset, check_against_simulator
from simtrust.errors import DataError, ShiftError, SimulatorError, describe_error
from simtrust.simulators.adapters import make_simulator, positive_seconds
from simtrust.simulators.built_in import find_built_in
from simtrust.simulators.check_answers import action_bounds, episode_end, nan_action, observations, step_time
from simtrust.simulators.check_process import Findings, findings_in_process
from simtrust.simulators.check_repeatability import (
    nothing_leaks,
    same_again,
    second_instance,
    seeded_start,
    settable,
)
from simtrust.simulators.checked_instance import CheckedInstance, make_checked
from simtrust.simulators.closing import close_instances
from simtrust.simulators.factories import SimulatorLike, instance_factory, simulator_name
from simtrust.simulators.foreign_code import contained, signals_kept
from simtrust.simulators.guard import GuardedSimulator
from simtrust.simulators.probing import Check, box_of
from simtrust.simulators.shifts import Shift

REPEATED: dict[str, Callable[[CheckedInstance], Check]] = {
    "start by seed": seeded_start,
    "determinism": same_again,
    "nothing leaks over reset": nothing_leaks,
}
USUAL: dict[str, Callable[[CheckedInstance], Check]] = {
    "observations": observations,
    "episode's end": episode_end,
    "step time": step_time,
    "set_observation": settable,
    # Last, since these may leave something broken.
    "actions at the bounds": action_bounds,
    "NaN action": nan_action,
}


class BuiltInInstance(gymnasium.Env):
    """One guarded instance of a built-in simulator, as a `gymnasium.Env`."""

    def __init__(self, simulator: GuardedSimulator) -> None:
        self._simulator = simulator
        self.observation_space = simulator.single_observation_space
        self.action_space = simulator.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As `gymnasium.Env.reset`."""
        return self._simulator.reset(seed=None if seed is None else [seed])[0][0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As `gymnasium.Env.step`."""
        observation, reward, terminated, truncated, _ = self._simulator.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def set_observation(self, observation: np.ndarray) -> None:
        """Put it into the state that an observation ``[O]`` tells."""
        self._simulator.set_observations(observation[None])

    def close(self) -> None:
        """Give back what it holds."""
        self._simulator.close()


def check_simulator(
    name: SimulatorLike,
    *,
    shifts: Sequence[Shift] = (),
    dataset: Dataset | None = None,
    step_timeout: float | None = None,
) -> Iterator[Check]:
    """Check a simulator by name, and against a log if one is given; findings come as they are made.

    Args:
        name: as of `make_simulator`.
        shifts: of a built-in simulator.
        dataset: a log of the machine that it simulates.
        step_timeout: seconds that a reset or step may take if it is not built in, and to make or close it if
            they are more than a minute. It is checked in a worker process then, which is killed if it takes
            longer; that is the last finding. None: no limit.

    Raises:
        SimulatorError: it cannot be made at all.
        ShiftError: it supports no such shifts.
        ConfigError: the time limit is not positive, or for a built-in simulator.
    """
    name = simulator_name(name)
    make = _maker(name, shifts, step_timeout)
    if step_timeout is None or find_built_in(name) is not None:
        spaces = yield from findings(name, make)
    else:
        spaces = yield from findings_in_process(findings, name, positive_seconds(step_timeout))
    if dataset is not None and spaces is not None:
        yield from against_log(dataset, *spaces, name)


def findings(name: str, make: Callable[[], gymnasium.Env]) -> Findings:
    """Check the simulator ``name``, of which ``make()`` makes an instance, in this process."""
    raw = make()
    with ExitStack() as opened:
        opened.callback(close_instances, name, [raw])
        if find_built_in(name) is None:
            yield gymnasiums_own(raw)
        try:
            env = CheckedInstance(raw, name, 0, 1)
        except SimulatorError as error:
            yield Check("spaces", "failed", str(error), "nothing else was checked")
            return None
        yield _spaces(env)
        for title, check in REPEATED.items():
            yield guarded(title, check, env)
        another = partial(make_checked, make, name, 1, 2, [env])
        yield guarded("a second instance", second_instance, env, another)
        for title, check in USUAL.items():
            yield guarded(title, check, env)
        opened.pop_all()
    yield closes(env)
    return env.observation_space, env.action_space


def guarded(title: str, check: Callable[..., Check], *arguments: Any) -> Check:
    """The check's finding; a failure if the simulator raised or answered something malformed in it."""
    try:
        return check(*arguments)
    except SimulatorError as error:
        return Check(title, "failed", str(error), "it happened at the step and action told")


def gymnasiums_own(env: gymnasium.Env) -> Check:
    """`gymnasium.utils.env_checker.check_env`, its warnings collected."""
    name = "Gymnasium's checker"
    problem = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with signals_kept(), contained():
                check_env(env.unwrapped, skip_render_check=True)
        except Exception as error:
            problem = str(error) if isinstance(error, AssertionError) else describe_error(error)
    told = dict.fromkeys(re.sub(r"\x1b\[\d+m|WARN: ", "", str(warning.message)) for warning in caught)
    # simtrust scales actions and observations itself, so these two recommendations mean nothing here.
    told = [line for line in told if not re.search("symmetric and normalized|infinity", line)]
    remedy = "gymnasium.farama.org/api/env describes what is expected"
    if problem:
        return Check(name, "failed", "; ".join([problem, *told]), remedy)
    if told:
        return Check(name, "warning", "; ".join(told), remedy)
    return Check(name, "passed", "nothing to say")


def closes(env: gymnasium.Env) -> Check:
    """Closing it raises nothing."""
    try:
        env.close()
    except Exception as error:
        return Check("close", "failed", describe_error(error), "make close() harmless, also when repeated")
    return Check("close", "passed", "nothing raised")


def against_log(
    dataset: Dataset, observation_space: gymnasium.Space, action_space: gymnasium.Space, name: str
) -> Iterator[Check]:
    """Whether the simulator can have made the log: widths, action bounds, range of the observations."""
    try:
        check_against_simulator(dataset, observation_space, action_space, name)
    except (DataError, SimulatorError) as error:
        yield Check("the log", "failed", str(error))
        return
    space, seen = box_of(observation_space), dataset.transitions.observation
    yield Check("the log", "passed", f"{len(dataset):,} rows fit: widths and action bounds agree")
    slack = 1e-6 * np.maximum(1.0, np.abs(seen).max(0))
    outside = ((seen < space.low - slack) | (seen > space.high + slack)).mean(0)
    if outside.any():
        worst = int(outside.argmax())
        yield Check(
            "the log's range",
            "warning",
            f"{np.count_nonzero(outside)} of {len(outside)} observations leave the declared space, dimension "
            f"{worst} in {outside[worst]:.2%} of the rows: {seen[:, worst].min():g} to "
            f"{seen[:, worst].max():g}, declared {space.low[worst]:g} to {space.high[worst]:g}",
            "the same order and units in both? Else declare the space as wide as the machine goes",
        )
        return
    yield Check("the log's range", "passed", "all observations lie inside the declared space")


def _maker(name: str, shifts: Sequence[Shift], step_timeout: float | None) -> Callable[[], gymnasium.Env]:
    if find_built_in(name) is not None:
        return lambda: BuiltInInstance(
            make_simulator(name, num_envs=1, shifts=shifts, step_timeout=step_timeout)
        )
    if shifts:
        raise ShiftError(f"{name!r} supports no shifts ({', '.join(map(str, shifts))}); leave out --shift")
    return instance_factory(name)


def _spaces(env: gymnasium.Env) -> Check:
    observation, action = box_of(env.observation_space), box_of(env.action_space)
    sizes = f"{observation.shape[0]} wide ({observation.dtype}), action {action.shape[0]} wide"
    return Check("spaces", "passed", f"observation {sizes}, from {_span(action)}")


def _span(space: Box) -> str:
    spans = dict.fromkeys(f"{low:g} to {high:g}" for low, high in zip(space.low, space.high, strict=True))
    return ", ".join(spans)
