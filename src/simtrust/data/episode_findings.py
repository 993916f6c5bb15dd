"""Findings about episodes: how many, how they end, what they are rewarded with."""

from collections.abc import Callable

import numpy as np

from simtrust.data.log_findings import (
    MOST_PLACES,
    NO_REWARDS,
    Check,
    Finding,
    Log,
    NotChecked,
    Outcome,
    Place,
)

FEW_ROWS, SHORT = 1000, 10
LIMIT_EPISODES, LIMIT_LENGTH, LIMIT_SHARE = 3, 20, 0.05
VARYING_EPISODES, VARYING = 5, 0.2
SPARSE = 0.999
TERMINALS, UNLIKE = 5, 10.0
SMALL_REWARD, LARGE_REWARD = 1e-2, 1e2
CHAIN_SHUFFLED = 0.5
MAD_TO_STD = 1.4826


def few_rows(log: Log) -> Outcome:
    """Fewer than 1,000 rows."""
    rows = len(log.dataset)
    if rows >= FEW_ROWS:
        return None
    return Finding(
        "warning",
        f"The log has {rows:,} rows",
        "So few rows say little about the machine: whatever is learned from them rests on the simulator.",
        "Record more, some minutes at the least.",
    )


def one_episode(log: Log) -> Outcome:
    """A single episode."""
    if log.dataset.episode_count > 1:
        return None
    return Finding(
        "warning",
        "The log is a single episode",
        "Nothing can be held out to check with, and intervals, which resample episodes, cannot be told.",
        "Mark the ends of episodes, or record several.",
    )


def broken_chain(log: Log) -> Outcome:
    """Within an episode, a row's next observation is not the next row's observation."""
    transitions, inside = log.dataset.transitions, ~log.dataset.episode_end[:-1]
    broken = (transitions.next_observation[:-1] != transitions.observation[1:]).any(1) & inside
    if not broken.any():
        return None
    share = float(broken.sum() / inside.sum())
    rows = np.flatnonzero(broken)[:MOST_PLACES].tolist()
    shuffled = share > CHAIN_SHUFFLED
    return Finding(
        "note" if shuffled else "warning",
        f"In {share:.1%} of rows the next observation is not the observation of the next row",
        "The rows are in no order of time, or every observation was recorded twice with different noise."
        if shuffled
        else "Rows are missing there, or an episode ends without a mark.",
        "Store the rows in their order, if you can: findings about time need it."
        if shuffled
        else "Mark the episode's end (a timeout) at these rows.",
        tuple(Place("the next row does not go on from here", row) for row in rows),
    )


def time_limit_as_terminal(log: Log) -> Outcome:
    """Terminal episodes pile up at the largest length: at least 3 and all, or 5% where that is ≥ 20 rows."""
    ends = np.flatnonzero(log.dataset.episode_end)
    terminal = log.dataset.transitions.terminated[ends] > 0
    lengths = log.dataset.episode_lengths
    if not terminal.any():
        return NotChecked("no row is terminal")
    longest = int(lengths.max())
    at_limit = terminal & (lengths == longest)
    count, everyone = int(at_limit.sum()), bool((lengths[terminal] == longest).all())
    least = SHORT if everyone else LIMIT_LENGTH
    if count < LIMIT_EPISODES or longest < least or count < LIMIT_SHARE * terminal.sum():
        return None
    rows = ends[at_limit][:MOST_PLACES].tolist()
    return Finding(
        "warning",
        f"{'All ' if everyone else ''}{count:,} of {int(terminal.sum()):,} terminal episodes are exactly"
        f" {longest:,} rows long, the most there are",
        "That looks like a time limit that was stored as a terminal, as some older data sets have it. The"
        " critic would learn that the future is worth nothing there.",
        "Store these ends as timeouts, not as terminals (--map truncated=NAME; --dones-mean timeout where the"
        " file has bare dones).",
        tuple(Place("terminal", row) for row in rows),
    )


def no_terminals(log: Log) -> Outcome:
    """No terminal in 5 episodes or more, over 20% of which do not have the usual length."""
    lengths = log.dataset.episode_lengths
    if (log.dataset.transitions.terminated > 0).any() or len(lengths) < VARYING_EPISODES:
        return None
    unusual = float((lengths != np.bincount(lengths).argmax()).mean())
    if unusual <= VARYING:
        return None
    return Finding(
        "note",
        f"No row is terminal, but episodes last from {lengths.min():,} to {lengths.max():,} rows",
        "If some of them ended because the machine fell or reached its goal, the critic is not told so.",
        "Mark such ends as terminals. If all were stopped by the operator or a clock, nothing is wrong.",
    )


def terminal_at_the_last_row(log: Log) -> Outcome:
    """The one terminal of several episodes is the last row of the file."""
    terminal = np.flatnonzero(log.dataset.transitions.terminated > 0)
    last = len(log.dataset) - 1
    if log.dataset.episode_count < 2 or terminal.tolist() != [last]:
        return None
    return Finding(
        "warning",
        "The only terminal is the last row of the file",
        "The recording's end was probably stored as the task's.",
        "Store it as a timeout.",
        (Place("terminal", last),),
    )


def no_rewards(log: Log) -> Outcome:
    """The log has no rewards."""
    if log.dataset.has_rewards:
        return None
    return Finding(
        "error",
        "The log has no rewards",
        "There is nothing to learn from it. simtrust gap needs none.",
        "Compute them by the simulator's formula and store them, or name their column: --map reward=NAME.",
    )


def with_rewards(find: Callable[[Log], Outcome]) -> Callable[[Log], Outcome]:
    """The check for logs that have rewards; it cannot be made on others."""
    return lambda log: find(log) if log.dataset.has_rewards else NO_REWARDS


def constant_reward(log: Log) -> Outcome:
    """Every row has the same reward (an error without terminals), or all but 0.1% have."""
    reward, terminated = log.dataset.transitions.reward, log.dataset.transitions.terminated
    values, counts = np.unique(reward, return_counts=True)
    share = counts.max() / len(reward)
    if len(values) == 1:
        nothing = not terminated.any()
        return Finding(
            "error" if nothing else "note",
            f"The reward is {values[0]:.6g} in every row" + (", and no row is terminal" if nothing else ""),
            "Every policy is worth the same, so there is nothing to learn."
            if nothing
            else "Only how long an episode lasts tells a good action from a bad one.",
            "Check the column of rewards." if nothing else "Nothing, if the task is to last, or to end soon.",
        )
    if share <= SPARSE:
        return None
    return Finding(
        "note",
        f"The reward is {values[counts.argmax()]:.6g} in {share:.3%} of rows",
        f"A critic sees {len(reward) - int(counts.max()):,} rows that differ.",
        "A reward that tells progress as well makes learning easier.",
    )


def reward_at_terminals(log: Log) -> Outcome:
    """The median reward of 5 terminals or more is 10 robust standard deviations from that of other rows."""
    reward, ended = log.dataset.transitions.reward, log.dataset.transitions.terminated > 0
    if ended.sum() < TERMINALS or ended.all():
        return NotChecked(f"fewer than {TERMINALS} rows are terminal")
    others, final = float(np.median(reward[~ended])), float(np.median(reward[ended]))
    spread = MAD_TO_STD * float(np.median(np.abs(reward[~ended] - others)))
    if abs(final - others) <= max(UNLIKE * spread, 1e-6 * abs(others)):
        return None
    return Finding(
        "note",
        f"Terminal rows are rewarded unlike others: {final:.4g} in place of {others:.4g}, in the median",
        "So large a step in the reward dominates the critic's error.",
        "Nothing, if it is meant so. Check that the simulator rewards its terminals alike.",
    )


def reward_scale(log: Log) -> Outcome:
    """The root mean square of the reward is below 0.01 or above 100."""
    reward = log.dataset.transitions.reward
    size = float(np.sqrt(np.square(reward, dtype=np.float64).mean()))
    if size == 0 or SMALL_REWARD <= size <= LARGE_REWARD:
        return None
    return Finding(
        "note",
        f"Rewards are of the size {size:.3g}",
        "Learning rate, entropy target and bounds are made for rewards of about 1.",
        "Train with --reward-scale auto.",
    )


EPISODE_CHECKS = (
    Check("Few rows", "fewer than 1,000", few_rows),
    Check("One episode", "a single one", one_episode),
    Check("Broken chain of rows", "next observation ≠ observation of the next row", broken_chain),
    Check("Time limits stored as terminals", "≥ 3 terminals at the largest length, all or 5%",
          time_limit_as_terminal),
    Check("No terminals", "none, ≥ 5 episodes, > 20% of unusual length", no_terminals),
    Check("Terminal at the last row", "the only one of several episodes", terminal_at_the_last_row),
    Check("No rewards", "none in the log", no_rewards),
    Check("Constant reward", "one value, or the same in > 99.9% of rows", with_rewards(constant_reward)),
    Check("Reward at terminals", "median 10 robust std from that of other rows",
          with_rewards(reward_at_terminals)),
    Check("Reward scale", "root mean square < 0.01 or > 100", with_rewards(reward_scale)),
)  # fmt: skip
