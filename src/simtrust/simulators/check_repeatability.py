"""Whether a simulator repeats itself: by its seed, after other episodes, beside others, from a state set.

Every check begins with a reset, and leaves the environment in any state.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from simtrust.simulators.checked_instance import CheckedInstance
from simtrust.simulators.probing import (
    STEPS,
    Check,
    Row,
    box_of,
    first_difference,
    random_actions,
    trajectory,
)

REPLAYED_STEPS = (0, 5, 20)
REPLAY_TOLERANCE = 1e-3
"""Of a step from a state that was set, in units of the observation's largest change at a step."""


def seeded_start(env: CheckedInstance) -> Check:
    """The same seed gives the same first observation, another seed another."""
    name = "start by seed"
    first, again, *others = (env.reset(seed=seed)[0].copy() for seed in (0, 0, 1, 2, 3))
    if first.tobytes() != again.tobytes():
        dimension = int((first != again).argmax())
        return Check(
            name,
            "failed",
            f"reset(seed=0) gave {first[dimension]} in dimension {dimension}, then {again[dimension]}",
            "draw the start from self.np_random, after super().reset(seed=seed)",
        )
    if all(first.tobytes() == other.tobytes() for other in others):
        return Check(
            name,
            "note",
            "every seed gives the same start",
            "if the machine's start varies, draw it from self.np_random",
        )
    return Check(name, "passed", "repeats with the seed, differs between seeds")


def same_again(env: CheckedInstance) -> Check:
    """The same seed and actions give the same trajectory, bit for bit."""
    actions = random_actions(box_of(env.action_space), STEPS, 0)
    # Twice before: what the last episode left behind is the same, and is the next check's.
    trajectory(env, 0, actions)
    one = trajectory(env, 0, actions)
    return _compared(
        "determinism",
        one,
        trajectory(env, 0, actions),
        "draw every random number from self.np_random, and nothing from the clock or from threads' order",
    )


def nothing_leaks(env: CheckedInstance) -> Check:
    """An episode in between, of another seed and with other actions, changes nothing after a reset."""
    space = box_of(env.action_space)
    actions = random_actions(space, STEPS, 0)
    trajectory(env, 0, actions)
    one = trajectory(env, 0, actions)
    trajectory(env, 1, random_actions(space, STEPS // 3, 1))
    return _compared(
        "nothing leaks over reset",
        one,
        trajectory(env, 0, actions),
        "put back in reset() whatever step() changes: filters, integrators, delays, warm starts, counters",
    )


def second_instance(env: CheckedInstance, make: Callable[[], CheckedInstance]) -> Check:
    """A second instance, beside the first, gives the same trajectory."""
    actions = random_actions(box_of(env.action_space), STEPS, 0)
    other = make()
    try:
        # The first is in the middle of an episode while the second runs.
        one = trajectory(env, 0, actions)
        return _compared(
            "a second instance",
            one,
            trajectory(other, 0, actions),
            "keep state in the instance, not in the class or the module",
        )
    finally:
        # What closing raises is told by the first instance's own check.
        with suppress(Exception):
            other.close()


def _compared(name: str, one: Sequence[Row], other: Sequence[Row], remedy: str) -> Check:
    step = first_difference(one, other)
    if step is None:
        return Check(name, "passed", f"{len(one) - 1} steps agree bit for bit")
    where = "at reset" if step == 0 else f"from step {step} on"
    return Check(name, "failed", f"the same seed and actions gave other numbers {where}", remedy)


def settable(env: CheckedInstance) -> Check:
    """Whether a step from an observation that was set repeats the step that was made from it.

    An environment need not tell its observation between steps, and the observation alone would not show
    that the state behind it is another; so the step after it is compared.
    """
    name = "set_observation"
    if not env.offers_set_observation:
        return Check(
            name,
            "note",
            "not offered: `simtrust gap` compares rollouts by a model of both, but cannot replay the log",
            "a method set_observation(observation) that puts it into the state which an observation tells",
        )
    actions = random_actions(box_of(env.action_space), max(REPLAYED_STEPS) + 1, 0)
    rows = trajectory(env, 0, actions)
    changes = np.abs(np.diff([row.observation for row in rows], axis=0)).max(0)
    worst, where = 0.0, ""
    for step in (step for step in REPLAYED_STEPS if step + 1 < len(rows)):
        env.reset(seed=1)
        env.set_observation(rows[step].observation.copy())
        following = env.step(actions[step])[0]
        error = np.abs(following - rows[step + 1].observation) / np.where(changes > 0, changes, 1.0)
        if not error.max() <= worst:
            worst, where = float(error.max()), f"dimension {int(error.argmax())} at step {step}"
    if not worst <= REPLAY_TOLERANCE:
        return Check(
            name,
            "warning",
            f"a step from the state set is off by {worst:.2g} of the largest change of a step, in {where}",
            "set every part of the state; what the observation does not tell will be seen as a gap",
        )
    return Check(name, "passed", "a step from a state that was set repeats the step made there: replay works")
