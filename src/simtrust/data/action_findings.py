"""Findings about actions: at their bounds, beyond them, held, delayed."""

import numpy as np

from simtrust.data.checks import ACTION_TOLERANCE
from simtrust.data.log_findings import (
    MOST_PLACES,
    Bounds,
    Check,
    Finding,
    Log,
    NotChecked,
    Outcome,
    Place,
)

SATURATED, BANG_BANG = 0.1, 0.9
HELD_RUNS, HELD_SHARE = 20, 0.8
LAGS, DELAY_ROWS, DELAY_RATIO, DELAY_SHARE = 8, 20_000, 3.0, 0.02
ROWS_PER_FEATURE, MOST_FEATURES = 20, 600


def saturated_actions(log: Log) -> Outcome:
    """An action is at its bounds in more than 10% of rows; a warning above 90%.

    Bounds are the simulator's, or else the column's own least and largest value.
    """
    places, worst = [], 0.0
    for i in log.actions:
        column, values = log.columns[i], log.values(i)
        if column.is_discrete:
            continue
        low, high, slack = column.low, column.high, 0.0
        if log.bounds is not None:
            low, high = float(log.bounds.low[column.entry]), float(log.bounds.high[column.entry])
            slack = ACTION_TOLERANCE * (high - low)
        share = float(((values <= low + slack) | (values >= high - slack)).mean())
        if share > SATURATED:
            worst = max(worst, share)
            places.append((share, Place(f"at {low:.4g} or {high:.4g} in {share:.0%} of rows", column=i)))
    if not places:
        return None
    return Finding(
        "warning" if worst > BANG_BANG else "note",
        f"{len(places)} of {log.dataset.action_size} actions are often at their bounds, up to {worst:.0%} of"
        " rows",
        "Either the machine was driven that hard, or only the recorded commands were clipped, and the machine"
        " did something else.",
        "Record what the actuator received. If that is what the log holds, nothing is wrong.",
        tuple(place for _, place in sorted(places, key=lambda pair: -pair[0])),
    )


def beyond(log: Log, bounds: Bounds) -> np.ndarray:
    """[T, A] float: by how much actions lie outside the bounds, 0 inside, float32 rounding forgiven."""
    slack = ACTION_TOLERANCE * (bounds.high.astype(np.float64) - bounds.low)
    action = log.dataset.transitions.action
    return np.maximum(np.maximum(bounds.low - slack - action, action - bounds.high - slack), 0)


def actions_outside(log: Log) -> Outcome:
    """An action lies outside the simulator's bounds by more than float32 rounding."""
    if log.bounds is None:
        return NotChecked("no simulator was named (--sim)")
    excess = beyond(log, log.bounds)
    outside = np.flatnonzero(excess.any(1))
    if not len(outside):
        return None
    places = []
    for entry in np.flatnonzero(excess.any(0)).tolist():
        row = int(excess[:, entry].argmax())
        value = log.dataset.transitions.action[row, entry]
        limits = f"[{log.bounds.low[entry]:.4g}, {log.bounds.high[entry]:.4g}]"
        share = (excess[:, entry] > 0).mean()
        detail = f"{value:.6g} is the furthest outside {limits}, as {share:.2%} of rows are"
        places.append(Place(detail, row, log.dataset.observation_size + entry))
    return Finding(
        "error",
        f"{len(outside):,} rows have actions outside the simulator's bounds",
        "The simulator cannot do what the log shows, and training refuses such a log.",
        "Record the actions as the simulator receives them, clipped or rescaled to its bounds.",
        tuple(places),
    )


def held_actions(log: Log) -> Outcome:
    """Actions change at every n-th row only: 80% of at least 20 stretches of equal actions have n rows."""
    if not log.actions:
        return NotChecked("no action varies")
    action, end = log.dataset.transitions.action, log.dataset.episode_end
    same = np.append((action[1:] == action[:-1]).all(1), False) & ~end
    # Where rows differ from both neighbours the stretch is one row long.
    change = np.flatnonzero(~same)
    lengths = np.diff(change, prepend=-1)
    # What an episode's end cut short, or a start at any moment, tells no rate.
    whole = ~end[change] & ~np.append(True, end[change[:-1]])
    lengths = lengths[whole]
    if len(lengths) < HELD_RUNS:
        return NotChecked("the action changes too rarely") if len(change) < HELD_RUNS else None
    usual = int(np.bincount(lengths).argmax())
    share = float((lengths == usual).mean())
    if usual < 2 or share < HELD_SHARE:
        return None
    return Finding(
        "note",
        f"Actions are held for {usual} rows each ({share:.0%} of the time)",
        f"The controller runs {usual} times as slowly as the recorder. A policy trained on every row decides"
        f" {usual} times as often as what made the log.",
        f"Keep every {usual}th row, and step the simulator as slowly, if the policy is to run at that rate.",
    )


def delayed_actions(log: Log) -> Outcome:
    """Given this state and the last, an earlier action explains changes 3 times better than its own.

    One linear regression of the change on both states and the actions of this and the last 8 rows; the
    share of variance that is lost without the actions of one lag (partial R²) says what they matter.
    """
    transitions, rows = log.dataset.transitions, len(log.dataset)
    states, actions = log.observations, [log.columns[i].entry for i in log.actions]
    features = 2 * len(states) + (LAGS + 1) * len(actions)
    if not states or not actions:
        return NotChecked("no action varies" if states else "no observation varies")
    if features > MOST_FEATURES:
        return NotChecked(f"{features:,} columns and lags are too many for a regression")
    step = np.arange(rows) - np.repeat(log.starts, log.dataset.episode_lengths)
    usable = np.flatnonzero((step >= LAGS) & ~(log.dataset.episode_end & (transitions.terminated > 0)))
    if len(usable) < ROWS_PER_FEATURE * features:
        return NotChecked(f"it takes {ROWS_PER_FEATURE * features:,} rows with {LAGS} rows before them")
    usable = usable[:: -(-len(usable) // max(DELAY_ROWS, ROWS_PER_FEATURE * features))]
    entries = [log.columns[i].entry for i in states]
    now = transitions.observation[usable][:, entries].astype(np.float64)
    before = transitions.observation[usable - 1][:, entries]
    change = transitions.next_observation[usable][:, entries] - now
    lagged = [transitions.action[usable - lag][:, actions] for lag in range(LAGS + 1)]
    lost = _partial_r_squared(np.concatenate([now, before], 1), lagged, change)
    by_lag = lost.sum(1)
    best = int(by_lag.argmax())
    if best == 0 or by_lag[best] < DELAY_RATIO * by_lag[0] or lost[best].max() < DELAY_SHARE:
        return None
    order = np.argsort(-lost[best])[:MOST_PLACES]
    places = [
        Place(
            f"{lost[best, k]:.0%} of the variance of its change, {lost[0, k]:.0%} for the row's own",
            column=states[k],
        )
        for k in order.tolist()
        if lost[best, k] > DELAY_SHARE / 4
    ]
    return Finding(
        "warning",
        f"Changes follow the action of {best} {'row' if best == 1 else 'rows'} before, not the row's own",
        "Either the machine is late, so that the observation alone does not tell what happens next, or the"
        " column of actions is shifted against the others.",
        f"Look whether each row holds the action chosen at its observation. If so, give the simulator --shift"
        f" delay={best}, and add the last {best} actions to the observation.",
        tuple(places),
    )  # fmt: skip


def _partial_r_squared(always: np.ndarray, blocks: list[np.ndarray], target: np.ndarray) -> np.ndarray:
    """[blocks, targets]: the share of each target's variance that is lost without one of the blocks.

    ``always [N, F]`` and all blocks ``[N, A]`` are in one regression. For coefficients b of a block and the
    inverse C of the Gram matrix, leaving the block out adds b' C_block⁻¹ b to the squared error.
    """
    design = np.concatenate([always, *blocks], axis=1).astype(np.float64)
    design -= design.mean(0)
    scale = design.std(0)
    design /= np.where(scale > 0, scale, 1.0)
    target = target - target.mean(0)
    spread = target.std(0)
    target /= np.where(spread > 0, spread, 1.0)
    gram = design.T @ design / len(design) + 1e-6 * np.eye(design.shape[1])
    inverse = np.linalg.inv(gram)
    coefficients = inverse @ (design.T @ target / len(design))
    lost, first = [], always.shape[1]
    for block in blocks:
        part = slice(first, first + block.shape[1])
        first = part.stop
        b = coefficients[part]
        lost.append((b * np.linalg.solve(inverse[part, part], b)).sum(0))
    return np.array(lost)


ACTION_CHECKS = (
    Check("Actions outside the simulator's bounds", "by more than float32 rounding", actions_outside),
    Check("Saturated actions", "> 10% of rows at the bounds; warning > 90%", saturated_actions),
    Check("Held actions", "80% of stretches of equal actions are as long, ≥ 2 rows", held_actions),
    Check("Delayed actions", "an earlier action explains ≥ 3 times what the row's own does", delayed_actions),
)
