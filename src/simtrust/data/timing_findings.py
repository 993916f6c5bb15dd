"""Findings about how columns move in time: jumps, wrapped angles, frozen sensors, sampling."""

import numpy as np

from simtrust.data.dataset import unknown_next_state
from simtrust.data.log_findings import MOST_PLACES, Check, Finding, Log, NotChecked, Outcome, Place, runs_of

JUMP, APART, RAREST = 8.0, 2.0, 0.01
LEAST_CHANGES = 100
PERIODS = {2 * np.pi: "2π", 360.0: "360"}
FROZEN_ROWS, REPEATS, DISTINCT, MOVING = 20, 0.02, 0.1, 0.5
GAP, JITTER = 1.5, 0.1
MAD_TO_STD = 1.4826
"""The standard deviation of a normal distribution, in its median absolute deviation."""


def _changes(log: Log, column: int) -> np.ndarray:
    """``[T]`` float32: next value less this one; NaN where nobody saw the next."""
    change = log.next_values(column) - log.values(column)
    change[unknown_next_state(log.dataset.transitions)] = np.nan
    return change


def _wrapped(log: Log, column: int, change: np.ndarray) -> tuple[np.ndarray, str]:
    """Rows at which an angle goes over its end, and its period in words.

    The values span nearly one period and no more, ordinary changes are below a quarter of it, and such a
    change is within a quarter of it.
    """
    summary = log.columns[column]
    reach = summary.high - summary.low
    for period, told in PERIODS.items():
        if 0.9 * period < reach < 1.02 * period and np.nanmedian(np.abs(change)) < 0.25 * period:
            rows = np.flatnonzero(np.abs(np.abs(change) - period) < 0.25 * period)
            if len(rows):
                return rows, told
    return np.empty(0, int), ""


def wrapped_angles(log: Log) -> Outcome:
    """A column that spans 2π or 360 changes by nearly as much from one row to the next."""
    places = []
    for i in log.observations:
        rows, period = _wrapped(log, i, change := _changes(log, i))
        if len(rows):
            detail = f"{len(rows):,} times, first by {change[rows[0]]:+.4g}, about {period}"
            places.append(Place(detail, int(rows[0]), i))
    if not places:
        return None
    return Finding(
        "warning",
        f"{len(places)} columns look like angles that wrap around",
        "Two values that look far apart are the same angle, which networks cannot know, and the gap between"
        " simulator and log counts a whole turn as an error.",
        "Store sine and cosine of the angle in its place, or unwrap it within each episode.",
        tuple(places),
    )


def jumps(log: Log) -> Outcome:
    """A change above 8 robust standard deviations that is also apart from all others.

    Contacts give changes of any size, but without holes between them: jumps are at least twice as large as
    the largest ordinary change, and at most 1% of rows.
    """
    found, columns = [], 0
    for i in log.observations:
        change = _changes(log, i)
        change[_wrapped(log, i, change)[0]] = np.nan
        size = _sizes(change)
        if size is None:
            continue
        most = max(1, int(RAREST * np.isfinite(size).sum()))
        top = _largest(size, most + 1)
        large = size[top]
        apart = (large[:-1] > JUMP) & (large[:-1] > APART * large[1:])
        if not apart.any():
            continue
        columns += 1
        count = int(np.flatnonzero(apart)[-1]) + 1
        rows = top[:count]
        # A spike jumps there and back; its way back is told with it.
        rows = rows[~np.isin(rows - 1, rows)]
        found += [
            (
                float(size[row]),
                Place(f"{change[row]:+.4g}, {size[row]:,.0f} robust standard deviations", row, i),
            )
            for row in rows.tolist()
        ]
    if not found:
        return None
    found.sort(key=lambda pair: -pair[0])
    return Finding(
        "warning",
        f"{len(found):,} sudden jumps in {columns} columns",
        "A dropped or corrupted sample, a reset within an episode, or a change of units looks so. A model of"
        " the machine would try to explain it.",
        "Look at these rows; mark an episode's end there, drop the episode, or repair the samples.",
        tuple(place for _, place in found[:MOST_PLACES]),
    )


def _sizes(change: np.ndarray) -> np.ndarray | None:
    """``[T]``: |change| in robust standard deviations; None where there are too few to tell."""
    known = change[np.isfinite(change)]
    moved = known[known != 0]
    # Of a column that mostly rests, only what moves tells what a usual change is.
    usual = moved if 2 * len(moved) < len(known) else known
    if len(usual) < LEAST_CHANGES:
        return None
    centre = np.median(usual)
    scale = MAD_TO_STD * np.median(np.abs(usual - centre))
    return np.abs(change - centre) / scale if scale > 0 else None


def _largest(size: np.ndarray, count: int) -> np.ndarray:
    """Indices of the largest, in their order; NaN counts as 0."""
    filled = np.nan_to_num(size)
    top = np.argpartition(-filled, count)[:count]
    return top[np.argsort(-filled[top])]


def frozen_sensors(log: Log) -> Outcome:
    """A continuous column repeats exactly for 20 rows or more while half of the others change.

    Elsewhere it hardly ever repeats (2%), and the value is not one of its ends, where it may be clipped.
    """
    continuous = [i for i in log.observations if not log.columns[i].is_discrete]
    if len(continuous) < 2:
        return NotChecked("it takes two continuous columns of the observation")
    end = log.dataset.episode_end
    moving = np.zeros(len(end), np.int32)
    stuck: dict[int, np.ndarray] = {}
    for i in continuous:
        values = log.values(i)
        same = np.append(values[1:] == values[:-1], False) & ~end
        moving += ~same & ~end
        start, length = runs_of(same, end)
        if len(start) and length.max() >= FROZEN_ROWS - 1:
            stuck[i] = same
    places: list[tuple[int, Place]] = []
    columns = set()
    for i, same in stuck.items():
        column, values = log.columns[i], log.values(i)
        start, length = runs_of(same, end)
        long = length >= FROZEN_ROWS - 1
        inside = int(length[long].sum())
        rest = len(end) - inside
        if (same.sum() - inside) > REPEATS * rest or column.distinct < DISTINCT * rest:
            continue
        for first, rows in zip(start[long].tolist(), length[long].tolist(), strict=True):
            others = moving[first : first + rows].mean() / (len(continuous) - 1)
            if others >= MOVING and values[first] not in (column.low, column.high):
                columns.add(i)
                places.append((rows, Place(f"{values[first]:.6g} for {rows + 1:,} rows", first, i)))
    if not places:
        return None
    places.sort(key=lambda pair: -pair[0])
    total = sum(rows + 1 for rows, _ in places)
    return Finding(
        "warning",
        f"{len(columns)} sensors froze, {len(places):,} times for {total:,} rows in all",
        "The value was repeated while the machine moved: the sensor or its connection stood still.",
        "Drop these stretches, ending the episode before each.",
        tuple(place for _, place in places[:MOST_PLACES]),
    )


def sampling_steps(log: Log) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows followed by another one of their episode, and the seconds between the two; None without time."""
    if log.dataset.time is None:
        return None
    rows = np.flatnonzero(~log.dataset.episode_end[:-1])
    return rows, np.diff(log.dataset.time)[rows]


def sampling_gaps(log: Log) -> Outcome:
    """Two rows of an episode are more than 1.5 times the median step apart, or not in order."""
    steps = sampling_steps(log)
    if steps is None or len(steps[0]) < 2:
        return NotChecked("the log holds no time")
    rows, step = steps
    median = float(np.median(step))
    backwards = np.flatnonzero(step <= 0)
    if len(backwards):
        return Finding(
            "error",
            f"Time does not increase in {len(backwards):,} rows",
            "The rows are not in order, or an episode's end is not marked, so that changes mean nothing.",
            "Sort the rows by episode and time, and mark the ends.",
            tuple(Place(f"{step[k]:+.4g} s to the next row", int(rows[k])) for k in backwards[:MOST_PLACES]),
        )
    gaps = np.flatnonzero(step > GAP * median)
    if not len(gaps):
        return None
    missing = int(np.maximum(np.round(step[gaps] / median) - 1, 1).sum())
    worst = gaps[np.argsort(-step[gaps], kind="stable")][:MOST_PLACES]
    return Finding(
        "warning",
        f"{len(gaps):,} gaps in time; about {missing:,} samples are missing",
        "Over a gap the state changes for longer than in one control step, which no model of one step"
        " explains.",
        "Mark the row before each gap as the end of an episode (a timeout).",
        tuple(Place(f"{step[k]:.4g} s, usually {median:.4g} s", int(rows[k])) for k in worst),
    )


def sampling_jitter(log: Log) -> Outcome:
    """The standard deviation of the time between rows, gaps left out, is above 10% of its median."""
    steps = sampling_steps(log)
    if steps is None or len(steps[0]) < 2:
        return NotChecked("the log holds no time")
    rows, step = steps
    median = float(np.median(step))
    regular = (step > 0) & (step <= GAP * median)
    jitter = float(step[regular].std() / median) if median > 0 and regular.any() else 0.0
    if jitter <= JITTER:
        return None
    worst = int(np.abs(np.where(regular, step, median) - median).argmax())
    return Finding(
        "warning",
        f"The time between rows varies by {jitter:.0%} of its median, {median:.4g} s",
        "Changes are learned as those of one control step. If its length varies, that looks like noise.",
        "Record with a fixed period, or interpolate onto one.",
        (Place(f"{step[worst]:.4g} s to the next row", int(rows[worst])),),
    )


TIMING_CHECKS = (
    Check("Jumps", "change > 8 robust std, and > 2 times any ordinary one", jumps),
    Check("Wrapped angles", "spans 2π or 360 and changes by as much", wrapped_angles),
    Check("Frozen sensors", "≥ 20 equal rows while half of the others change", frozen_sensors),
    Check("Gaps in time", "> 1.5 times the median time between rows", sampling_gaps),
    Check("Jitter in time", "std > 10% of the median time between rows", sampling_jitter),
)
