"""What the paper says of its figures: put as it says it, and judged by made-up runs whose answer is known."""

import csv

import numpy as np
import pytest

from simtrust.paper import cheetah_claims
from simtrust.paper.cheetah import Point
from simtrust.paper.claims import Claim, Quantity, claims_csv, claims_table, judge
from simtrust.paper.comparison import Verdict, exactly, sample_of
from simtrust.paper.robot import Cell
from simtrust.paper.robot_claims import (
    CLAIMS_OF_FIGURE_2,
    CLAIMS_OF_FIGURE_4,
    CLAIMS_OF_FIGURE_5,
    gathered,
    quantities_of_figure_2,
    quantities_of_figure_4,
    quantities_of_figure_5,
)
from simtrust.paper.truth import partial_rank_correlation

FASTER = Claim("a is faster than b", "Figure 0", "twice", "a", "b")
SHORT = Claim("a is short", "Figure 0", "", 2.0, "a")


def quantity(*runs, steps=100):
    return Quantity(sample_of(np.array(runs, float)), steps)


@pytest.mark.parametrize(
    ("a", "verdict"),
    [((5.0, 5.1), "holds"), ((1.0, 1.1), "does not hold"), ((1.0, 9.0), "cannot be told apart")],
)
def test_a_claim_holds_or_not_or_cannot_be_told(a, verdict):
    assert judge(FASTER, {"a": quantity(*a), "b": quantity(3.0, 3.01)}).verdict == verdict


def test_limits_are_compared_too_and_one_seed_tells_nothing():
    assert judge(SHORT, {"a": quantity(1.0, 1.01)}).verdict == Verdict.HOLDS
    assert judge(SHORT, {"a": quantity(3.0, 3.01)}).verdict == Verdict.FAILS
    single = judge(SHORT, {"a": quantity(1.0)})
    assert (single.verdict, single.note) == (Verdict.UNTOLD, "a single seed")
    assert judge(SHORT, {"a": Quantity(exactly(1.0))}).verdict == Verdict.HOLDS
    assert judge(SHORT, {"a": Quantity(exactly(2.0))}).verdict == Verdict.FAILS
    assert (str(Quantity(exactly(2.0))), str(quantity(2.0, 2.0))) == ("2", "2 ± 0")
    assert SHORT.asked == "a < 2"


def test_what_is_not_there_is_not_judged_nor_runs_that_were_trained_further():
    assert judge(FASTER, {"a": quantity(5.0, 5.1)}).verdict == Verdict.MISSING
    found = judge(FASTER, {"a": quantity(5.0, 5.1), "b": quantity(1.0, 1.1, steps=50)})
    assert (found.verdict, found.note) == (Verdict.NOT_COMPARED, "after 100 and 50 updates")


def test_claims_are_written_with_the_papers_number_and_ours():
    found = [judge(FASTER, {"a": quantity(5.0, 7.0), "b": quantity(1_000, 3_000)})]
    line = "| a is faster than b | Figure 0 | twice | a > b | 6 ± 1.41 against 2,000 ± 1,414 |"
    assert line in claims_table(found)
    assert claims_table(found).startswith("Of 1 claims: cannot be told apart 1.")
    (row,) = csv.DictReader(claims_csv({"some task": found}).splitlines())
    assert (row["of"], row["published"], row["verdict"]) == ("some task", "twice", "cannot be told apart")


AS_IN_THE_PAPER = {
    "standing-still": {
        # seconds upright, real return, simulator return
        "h2o": (30, 180_000, 100_000),
        "cql": (12, 60_000, 90_000),
        "sac": (1, 6_000, 180_000),
        "darc": (2, 7_000, 180_000),
        "darc_plus": (3, 8_000, 180_000),
    },
    "moving-straight": {
        "h2o": (20, 60_000, 50_000),
        "cql": (20, 58_000, 50_000),
        "sac": (1, 3_000, 60_000),
        "darc": (2, 4_000, 60_000),
        "darc_plus": (3, 5_000, 60_000),
    },
}
SPEEDS = {"h2o": 0.2, "cql": 0.39, "sac": 0.1, "darc": 0.1, "darc_plus": 0.1}


def verdicts(study, numbers, speeds=None, seeds=3):
    """By what was asked, of made-up runs of a study: every run within a thousandth of the numbers."""
    near = 1 + 1e-3 * np.arange(seeds)
    cells, states = {}, {}
    for recipe, (seconds, real, simulated) in numbers.items():
        speed = (speeds or SPEEDS)[recipe]
        values = {"real seconds": seconds, "real return": real, "simulator return": simulated}
        values["real error"] = abs(speed - 0.2)
        measures = {name: [[value * one] for one in near] for name, value in values.items()}
        cells[recipe] = Cell(study, recipe, tuple(range(seeds)), 100, measures)
        state = np.zeros((seeds, 10, 4), np.float32)
        state[:, :, 3] = speed * near[:, None]
        # The faster, the rougher; and what follows the end of an episode does not count.
        state[:, :, 1] = speed * near[:, None]
        state[:, 5:] = np.nan
        states[recipe] = state
    found = quantities_of_figure_2(cells, states)
    return {claim.asked: judge(claim, found).verdict for claim in CLAIMS_OF_FIGURE_2[study]}


@pytest.mark.parametrize("study", list(AS_IN_THE_PAPER))
def test_runs_like_the_papers_meet_all_it_says_of_the_robot(study):
    assert set(verdicts(study, AS_IN_THE_PAPER[study]).values()) == {Verdict.HOLDS}


@pytest.mark.parametrize("study", list(AS_IN_THE_PAPER))
def test_of_one_seed_nothing_can_be_told(study):
    assert set(verdicts(study, AS_IN_THE_PAPER[study], seeds=1).values()) == {Verdict.UNTOLD}


def test_of_runs_that_do_otherwise_it_does_not_hold():
    standing = AS_IN_THE_PAPER["standing-still"]
    found = verdicts("standing-still", {**standing, "h2o": standing["sac"], "sac": standing["h2o"]})
    for asked in (
        "h2o, seconds upright > 21",
        "h2o, seconds upright > cql, seconds upright",
        "sac, seconds upright < 6",
        "cql, seconds upright > sac, seconds upright",
        "h2o, real return > sac, real return",
        "sac, simulator return > h2o, simulator return",
    ):
        assert found[asked] == Verdict.FAILS
    assert found["cql, seconds upright < 21"] == Verdict.HOLDS
    stands = verdicts("standing-still", {**standing, "cql": (30, 170_000, 90_000)})
    assert stands["cql, seconds upright < 21"] == Verdict.FAILS


def test_speeds_are_judged_by_halfway_limits():
    moving = AS_IN_THE_PAPER["moving-straight"]
    swapped = verdicts("moving-straight", moving, {**SPEEDS, "h2o": 0.39, "cql": 0.2})
    assert swapped["h2o, RMS of ẋ − 0.2 (m/s) < 0.1"] == Verdict.FAILS
    assert swapped["cql, mean ẋ (m/s) > 0.3"] == Verdict.FAILS
    assert swapped["cql, RMS of ẋ − 0.2 (m/s) > h2o, RMS of ẋ − 0.2 (m/s)"] == Verdict.FAILS
    assert swapped["cql, RMS of tilt velocity (rad/s) > h2o, RMS of tilt velocity (rad/s)"] == Verdict.FAILS


def test_figure_5_is_judged_by_what_is_gathered_at_the_end_of_each_episode():
    curve = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, np.nan]])
    np.testing.assert_array_equal(gathered(curve), [3.0, 5.0])
    cells = {recipe: Cell("standing-still", recipe, (0, 1), 100, {}) for recipe in ("h2o", "cql", "sac")}
    curves = {"h2o": curve, "cql": curve - 90, "sac": curve + 90}
    found = quantities_of_figure_5(cells, curves)
    told = {claim.asked: judge(claim, found).verdict for claim in CLAIMS_OF_FIGURE_5}
    assert told["h2o, cumulative reward > cql, cumulative reward"] == Verdict.HOLDS
    assert told["h2o, cumulative reward > sac, cumulative reward"] == Verdict.FAILS
    assert told["h2o, cumulative reward > darc, cumulative reward"] == Verdict.MISSING


@pytest.mark.parametrize(("least", "speed", "verdict"), [(0.5, 0.2, "holds"), (-0.5, -0.2, "does not hold")])
def test_figure_4_is_judged_by_the_logs_as_they_are(least, speed, verdict):
    observation = np.array([[0.1, 0.0, speed], [-0.1, 0.0, speed]], np.float32)
    observed = ("tilt", "tilt_velocity", "velocity")
    found = quantities_of_figure_4(observed, observation, np.array([least, 14.0], np.float32))
    assert found["RMS of tilt (rad)"].sample.mean == pytest.approx(0.1)
    told = [judge(claim, found).verdict for claim in CLAIMS_OF_FIGURE_4["moving-straight"]]
    assert told == [verdict, verdict]


def point(step, u, *, q_of_u=-1.0, seeds=3):
    """Rows whose velocity and gap rise together, and whose Q rises with the velocity and changes with u."""
    rows, generator = 200, np.random.default_rng(step)
    velocity = np.tile(np.linspace(0, 5, rows), (seeds, 1))
    noise = 0.5 * generator.standard_normal((seeds, rows))
    u = u(velocity) + noise
    q = 10 * velocity + 2 * q_of_u * noise
    return Point(step, tuple(range(seeds)), np.arange(rows), velocity, u, u / u.sum(), q, velocity**2)


def told_of(*points):
    found = cheetah_claims.quantities(points)
    return {claim.statement: judge(claim, found).verdict for claim in cheetah_claims.CLAIMS}


EARLY = point(10, lambda velocity: 0 * velocity)


def test_figure_3_with_a_u_that_learns_the_gap_meets_all_the_paper_says():
    found = told_of(EARLY, point(100, lambda velocity: velocity))
    assert set(found.values()) == {Verdict.HOLDS}


def test_figure_3_with_a_u_that_says_the_opposite_does_not():
    found = told_of(EARLY, point(100, lambda velocity: -velocity, q_of_u=1.0))
    assert found["u is larger the faster it runs"] == Verdict.FAILS
    assert found["Late in training u is large where the gap is"] == Verdict.FAILS
    assert found["u tells the gap better late than early"] == Verdict.FAILS
    assert found["Q is pushed down where u is large"] == Verdict.FAILS
    assert found["Faster rows have a higher Q"] == Verdict.HOLDS


def test_of_one_point_or_one_seed_what_cannot_be_told_is_not():
    alone = told_of(point(100, lambda velocity: velocity))
    assert alone["u tells the gap better late than early"] == Verdict.MISSING
    assert alone["u is larger the faster it runs"] == Verdict.HOLDS
    single = told_of(*(point(step, lambda velocity: velocity, seeds=1) for step in (10, 100)))
    assert set(single.values()) == {Verdict.UNTOLD}


def test_partial_correlation_takes_away_what_the_third_tells():
    generator = np.random.default_rng(0)
    z, one, other = generator.standard_normal((3, 4_000))
    x, y = 3 * z + one, 3 * z + other
    assert abs(partial_rank_correlation(x, y, z)) < 0.05
    assert partial_rank_correlation(x, 6 * z - x, z) < -0.95
    assert np.isnan(partial_rank_correlation(z, y, z))
    assert np.isnan(partial_rank_correlation(x, np.ones_like(x), z))
