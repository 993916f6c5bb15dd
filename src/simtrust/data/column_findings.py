"""Findings about columns and rows: constant, equal, clipped, told twice."""

import numpy as np

from simtrust.data.log_findings import (
    MOST_PLACES,
    Check,
    Finding,
    Log,
    NotChecked,
    Outcome,
    Place,
)

CORRELATION, CHANGE_CORRELATION = 0.9999, 0.999
CORRELATED_ROWS, PAIRED_ROWS = 50_000, 1000
SAME = 0.99
CLIPPED, CLIPPED_TIMES = 0.01, 10
REPEATED, COPIED_LENGTH = 0.01, 10
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, of irregular bits


def constant_columns(log: Log) -> Outcome:
    """A column has one value throughout; an error if all of the observation or of the action have."""
    constant = [i for i, column in enumerate(log.columns) if not column.varies]
    if not constant:
        return None
    nothing = [
        kind for kind, varying in (("observation", log.observations), ("action", log.actions)) if not varying
    ]
    places = tuple(Place(f"{log.columns[i].low:.6g} throughout", column=i) for i in constant)
    return Finding(
        "error" if nothing else "warning",
        f"{len(constant)} of {len(log.columns)} columns are constant"
        + (f", every one of the {' and of the '.join(nothing)}" if nothing else ""),
        "The log says nothing about what a constant column does, and a policy that meets another value of it"
        " has never seen the like.",
        "Check that the sensor or actuator was connected and recorded; leave the column out if it is meant to"
        " be constant.",
        places,
    )


def _correlations(values: np.ndarray) -> np.ndarray:
    """[C, C] of the columns of ``values [N, C]``; 0 where one is constant."""
    centred = values - values.mean(0)
    scale = np.sqrt(np.square(centred).mean(0))
    centred /= np.where(scale > 0, scale, np.inf)
    return centred.T @ centred / len(values)


def duplicated_columns(log: Log) -> Outcome:
    """|correlation| of two columns above 0.9999, and of their changes above 0.999 for observations."""
    transitions, rows = log.dataset.transitions, len(log.dataset)
    chosen = slice(None, None, -(-rows // CORRELATED_ROWS))
    places, equal = [], False
    for varying in (log.observations, log.actions):
        if len(varying) < 2 or rows < 3:
            continue
        entries = [log.columns[i].entry for i in varying]
        if varying[0] < log.dataset.observation_size:
            sample = transitions.observation[chosen][:, entries].astype(np.float64)
            change = transitions.next_observation[chosen][:, entries] - sample
            alike = np.abs(_correlations(change)) > CHANGE_CORRELATION
        else:
            sample = transitions.action[chosen][:, entries].astype(np.float64)
            alike = True
        close = np.triu((np.abs(_correlations(sample)) > CORRELATION) & alike, 1)
        for first, second in np.argwhere(close).tolist():
            one, other = varying[first], varying[second]
            is_equal = np.array_equal(log.values(one), log.values(other))
            equal |= is_equal
            relation = "equals" if is_equal else "is a scaled or shifted copy of"
            places.append(Place(f"{relation} {log.columns[one].name}", column=other))
    if not places:
        return None
    return Finding(
        "warning" if equal else "note",
        f"{len(places)} pairs of columns say the same" if len(places) > 1 else "Two columns say the same",
        "One of them may have been recorded in place of another; at best it adds nothing.",
        "Check the recorder's list of columns, and leave one of the two out if they are meant to agree.",
        tuple(places),
    )


def observation_contains_action(log: Log) -> Outcome:
    """A column of the observation equals the action of its row, or of the row before, in 99% of rows."""
    action = log.dataset.transitions.action
    chosen = slice(None, None, -(-len(log.dataset) // PAIRED_ROWS))
    same_row, before = [], []
    for column in log.observations:
        now, then = log.values(column), log.next_values(column)
        for other in log.actions:
            entry = log.columns[other].entry
            for found, values in ((same_row, now), (before, then)):
                few = (values[chosen] == action[chosen, entry]).mean()
                if few >= SAME - 0.05 and (values == action[:, entry]).mean() >= SAME:
                    found.append((column, other))
    # An action that was held is both; what the policy could know is the likelier.
    same_row = [pair for pair in same_row if pair not in before]
    if not same_row and not before:
        return None
    told = "equals {} of the same row", "equals {} of the row before"
    places = [
        Place(text.format(log.columns[other].name), column=column)
        for text, pairs in zip(told, (same_row, before), strict=True)
        for column, other in pairs
    ]
    if same_row:
        meaning = (
            "A policy that sees the very action it is to choose learns to copy it, and fails on the robot."
        )
        remedy = "Leave the column out, or record the action of the row before in it."
        return Finding(
            "warning", "The observation contains the action of its own row", meaning, remedy, tuple(places)
        )
    return Finding(
        "note",
        "The observation contains the action before",
        "That helps where actions are delayed. The simulator must provide the same.",
        "Nothing, if the simulator's observation has it in the same place.",
        tuple(places),
    )


def clipped_observations(log: Log) -> Outcome:
    """More than 1% of a column's values are its least or its largest one, not 0, and came there 10 times."""
    places = []
    for i in log.observations:
        column = log.columns[i]
        if column.is_discrete:
            continue
        values = log.values(i)
        ends = [end for end in (column.low, column.high) if end != 0 and _piles_up(values == end)]
        if ends:
            share = np.isin(values, np.array(ends, np.float32)).mean()
            told = " or ".join(f"{end:.6g}" for end in ends)
            places.append((share, Place(f"{told} in {share:.1%} of rows", column=i)))
    if not places:
        return None
    return Finding(
        "note",
        f"{len(places)} columns of the observation pile up at their ends, as clipped or saturated ones do",
        "Beyond these values different states look the same.",
        "Check the sensors' ranges; clip the simulator's observations alike.",
        tuple(place for _, place in sorted(places, key=lambda pair: -pair[0])),
    )


def _piles_up(at_end: np.ndarray) -> bool:
    """Often, and not because the machine rested there once."""
    times = np.count_nonzero(at_end[1:] & ~at_end[:-1])
    return bool(at_end.mean() > CLIPPED and times >= CLIPPED_TIMES)


def row_hashes(log: Log) -> np.ndarray:
    """``[T]`` uint64 of observation, action and reward; equal rows have equal ones."""
    total = np.zeros(len(log.dataset), np.uint64)
    reward = np.asarray(log.dataset.transitions.reward)
    for values in (*map(log.values, range(len(log.columns))), reward):
        # 0.0 and -0.0 are equal, but not their bits.
        total ^= (values + np.float32(0)).view(np.uint32)
        total *= MULTIPLIER
        total ^= total >> np.uint64(29)
    return total


def duplicated_rows(log: Log) -> Outcome:
    """An episode of 10 rows or more is there twice, or over 1% of the rows in which something moves are."""
    if all(log.columns[i].is_discrete for i in log.observations):
        return NotChecked("the observations take so few values that rows repeat of themselves")
    transitions, hashes = log.dataset.transitions, row_hashes(log)
    starts, lengths = log.starts, log.dataset.episode_lengths
    step = np.arange(len(hashes)) - np.repeat(starts, lengths)
    episodes = np.add.reduceat(hashes * (2 * step.astype(np.uint64) + np.uint64(1)), starts)
    _, first, which = np.unique(episodes, return_index=True, return_inverse=True)
    original = first[which]
    copies = np.flatnonzero((original != np.arange(len(starts))) & (lengths >= COPIED_LENGTH))
    places = [
        Place(f"this episode of {lengths[e]:,} rows equals episode {original[e]}", int(starts[e]))
        for e in copies[:MOST_PLACES].tolist()
    ]
    repeated = np.ones(len(hashes), bool)
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    repeated[first] = False
    repeated &= (transitions.observation != transitions.next_observation).any(1)
    share = float(repeated.mean())
    if not places and share <= REPEATED:
        return None
    if not places:
        rows = np.flatnonzero(repeated)[:MOST_PLACES].tolist()
        places = [Place(f"equals row {log.dataset.row_in_file(int(first[which[row]]))}", row) for row in rows]
    copied = f"{len(copies):,} episodes are copies of others; " if len(copies) else ""
    return Finding(
        "warning",
        f"{copied}{int(repeated.sum()):,} rows ({share:.1%}) are there more than once",
        "What is told twice counts twice, and rows held out for checks are no longer unseen.",
        "Leave the copies out; look whether a file was appended twice.",
        tuple(places),
    )


COLUMN_CHECKS = (
    Check("Constant columns", "least = largest", constant_columns),
    Check("Duplicated columns", "|correlation| > 0.9999, and of changes > 0.999", duplicated_columns),
    Check("Duplicated rows", "an episode of ≥ 10 rows, or > 1% of moving rows", duplicated_rows),
    Check(
        "Clipped observations", "> 1% at the least or largest value, reached ≥ 10 times", clipped_observations
    ),
    Check("Observation contains the action", "equal in ≥ 99% of rows", observation_contains_action),
)
