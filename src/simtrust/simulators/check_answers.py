"""What a simulator answers: to actions within, at and beyond their bounds, at an episode's end, and how soon.

Every check begins with a reset, and leaves the environment in any state.
"""

import time

import numpy as np

from simtrust.errors import SimulatorError
from simtrust.simulators.checked_instance import CheckedInstance
from simtrust.simulators.probing import STEPS, Check, box_of, first_difference, random_actions, trajectory

LONGEST_EPISODE, LONGEST_SECONDS = 2_000, 5.0
"""Where the search for an episode's end stops, in steps and in seconds."""
TIMED_STEPS, SLOW_STEP = 500, 1e-3
"""Steps that are timed, and seconds above which worker processes are worth their price."""


def observations(env: CheckedInstance) -> Check:
    """Finite, of the declared type and inside the declared space; rewards finite."""
    name, space = "observations", box_of(env.observation_space)
    rows = trajectory(env, 0, random_actions(box_of(env.action_space), STEPS, 0))
    seen = np.array([row.observation for row in rows], np.float64)
    for what, values in (("observation", seen), ("reward", np.array([[row.reward] for row in rows]))):
        if not np.isfinite(values).all():
            step, dimension = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
            place = f" dimension {dimension}" if what == "observation" else ""
            value = values[step, dimension]
            remedy = "end the episode (terminated) before numbers overflow"
            return Check(name, "failed", f"{what}{place} is {value} at step {step}", remedy)
    problems = []
    types = {str(row.observation.dtype) for row in rows} - {str(space.dtype)}
    if types:
        problems.append(f"of type {', '.join(sorted(types))}, declared {space.dtype}")
    # What is declared is rounded, and the observation may be wider.
    slack = 1e-6 * np.maximum(1.0, np.abs(seen).max(0))
    outside = (seen < space.low - slack) | (seen > space.high + slack)
    if outside.any():
        step, dimension = (int(index) for index in np.argwhere(outside)[0])
        problems.append(
            f"dimension {dimension} is {seen[step, dimension]:g} at step {step}, declared "
            f"{space.low[dimension]:g} to {space.high[dimension]:g}"
        )
    if problems:
        return Check(name, "warning", "; ".join(problems), "declare the space as it is, or cast and clip")
    return Check(name, "passed", f"{len(rows)} rows finite, {space.dtype}, inside the declared space")


def action_bounds(env: CheckedInstance) -> Check:
    """Actions at the bounds are taken; whether those beyond are clipped, taken as they are, or refused."""
    name, space = "actions at the bounds", box_of(env.action_space)
    width = space.high - space.low
    kinds = set()
    for bound, beyond in ((space.low, space.low - width), (space.high, space.high + width)):
        at_bound = trajectory(env, 0, np.repeat(bound[None], 10, axis=0))
        if not all(np.isfinite(row.observation).all() for row in at_bound):
            return Check(name, "failed", f"action {bound} led to an observation that is not finite")
        if first_difference(at_bound, trajectory(env, 0, np.repeat(bound[None], 10, axis=0))) is not None:
            return Check(name, "passed", "taken; what is done to those beyond is hidden by other differences")
        try:
            further = trajectory(env, 0, np.repeat(beyond[None].astype(space.dtype), 10, axis=0))
        except SimulatorError:
            kinds.add("refused")
            continue
        same = first_difference(at_bound, further) is None
        kinds.add("clipped" if same else "taken as they are")
    seen = f"those beyond are {' or '.join(sorted(kinds))}"
    if "taken as they are" in kinds:
        remedy = "training stays within; clip in step() if the real actuator saturates"
        return Check(name, "note", seen, remedy)
    return Check(name, "passed", seen)


def nan_action(env: CheckedInstance) -> Check:
    """An action that is not a number is refused, or at least forgotten at the next reset."""
    name, space = "NaN action", box_of(env.action_space)
    actions = random_actions(space, 10, 0)
    before = trajectory(env, 0, actions)
    repeats = first_difference(before, trajectory(env, 0, actions)) is None
    try:
        seen = trajectory(env, 0, np.full((1, *space.shape), np.nan, space.dtype))[-1]
    except SimulatorError:
        verdict, what, remedy = "passed", "refused", ""
    else:
        finite = "finite" if np.isfinite(seen.observation).all() else "not finite"
        verdict, what = "warning", f"silently accepted; the observation was {finite}"
        remedy = "training refuses it before it gets here; others need: raise in step() if not np.isfinite"
    if repeats and first_difference(before, trajectory(env, 0, actions)) is not None:
        return Check(name, "failed", f"{what}; the next episode differed", "let reset() put back everything")
    return Check(name, verdict, what, remedy)


def episode_end(env: CheckedInstance) -> Check:
    """Episodes end: by the task (terminated) or by the clock (truncated). What a step after the end does."""
    name, space = "episode's end", box_of(env.action_space)
    env.reset(seed=0)
    actions = random_actions(space, LONGEST_EPISODE, 0)
    began, step, terminated, truncated = time.perf_counter(), 0, False, False
    while step < LONGEST_EPISODE and time.perf_counter() - began < LONGEST_SECONDS:
        _, _, terminated, truncated, _ = env.step(actions[step])
        step += 1
        if terminated or truncated:
            break
    else:
        return Check(
            name,
            "note",
            f"neither terminated nor truncated in {step:,} random steps",
            "evaluation needs an end: wrap it in gymnasium.wrappers.TimeLimit(env, STEPS)",
        )
    how = " and ".join(["terminated"] * terminated + ["truncated"] * truncated)
    try:
        env.step(actions[0])
    except SimulatorError:
        after = "a step after the end is refused"
    else:
        after = "a step after the end is answered (training makes none)"
    return Check(name, "passed", f"{how} at step {step:,} of random actions; {after}")


def step_time(env: CheckedInstance) -> Check:
    """How long a step takes, and what that means for training."""
    env.reset(seed=0)
    taken = []
    limit = time.perf_counter() + LONGEST_SECONDS
    for action in random_actions(box_of(env.action_space), TIMED_STEPS, 0):
        began = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        taken.append(time.perf_counter() - began)
        if taken[-1] + began > limit:
            break
        if terminated or truncated:
            env.reset()
    median, late, mean = float(np.median(taken)), float(np.percentile(taken, 99)), float(np.mean(taken))
    seen = (
        f"median {1e3 * median:.3g} ms, p99 {1e3 * late:.3g} ms, {1 / mean:,.0f} steps/s in one process: "
        f"100,000 steps take {_duration(1e5 * mean)}"
    )
    if median > SLOW_STEP:
        remedy = "several instances in as many processes, with a core each: --sim-instances N --sim-workers N"
        return Check("step time", "note", seen, remedy)
    return Check("step time", "passed", seen)


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
