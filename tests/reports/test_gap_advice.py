"""What a report comes to in plain words."""

from dataclasses import replace

import numpy as np
import pytest

from simtrust.gap.regions import Region
from simtrust.reports.gap_advice import cards, headline, next_steps
from simtrust.simulators import Shift

OLDER = "If the log is one of D4RL's older ones, give the simulator their inertias"


@pytest.fixture(scope="module")
def whole(build):
    return build()


def steps_of(report):
    return [step.title for step in next_steps(report)]


def test_advice_follows_from_the_verdict(whole):
    rare = Region({"torso height (m)": (1.5, np.inf)}, 0.07, 1.0, 12.0)
    whole = replace(whole, regions=(rare, Region({}, 0.93, 0.1, 1.0)))
    assert steps_of(whole) == [
        "Correct the gravity, then measure again",
        OLDER,
        "Record more where it matters",
        "Train with the log and this simulator",
        "Do not rely on this policy's simulated returns",
    ]
    assert "12.0 times the median where torso height (m) > 1.5, yet only 7%" in next_steps(whole)[2].text
    command = next_steps(whole)[3].command
    assert command == "simtrust train trust --real logs/log.hdf5 --sim HalfCheetah-v5 --shift gravity=2.0"
    noise = replace(whole.verdict, best_explanation="noise in the actions explains 80%")
    assert steps_of(replace(whole, verdict=noise))[0] == "Look for noise between the command and the motors"
    motors = replace(whole.verdict, best_explanation="a systematic error of the actuators explains 80%")
    assert steps_of(replace(whole, verdict=motors))[0] == "Identify the actuators, then measure again"
    nothing = replace(whole.verdict, best_explanation=None)
    assert steps_of(replace(whole, verdict=nothing))[0] == "Find the cause where it is largest"


def without_a_gap(report, **changes):
    verdict = replace(report.verdict, gap_found=False, worst_dimension=None, best_explanation=None, **changes)
    return replace(report, verdict=verdict, policy=None, regions=())


def test_advice_without_a_gap(whole):
    assert headline(without_a_gap(whole)) == "No dynamics gap found."
    assert steps_of(without_a_gap(whole)) == ["Train with it"]


def test_advice_without_certainty(whole):
    few = replace(whole.replay, summary=whole.replay.summary._replace(episodes=3))
    assert steps_of(without_a_gap(replace(whole, replay=few))) == ["Train with it", "Record more episodes"]
    unknown = without_a_gap(replace(whole, replay=None), trusted_fraction=np.nan)
    assert headline(unknown) == "Nothing can be said of the dynamics."
    assert steps_of(unknown) == ["Record a log that meets the simulator", "Make the verdict surer"]


def test_a_region_that_is_hardly_worse_asks_for_no_rows(whole):
    alike = (Region({"torso height (m)": (1.5, np.inf)}, 0.07, 0.11, 1.1), Region({}, 0.93, 0.1, 1.0))
    assert "Record more where it matters" not in steps_of(replace(whole, regions=alike))


def test_nothing_is_said_of_explanations_that_nobody_tried(whole):
    verdict = replace(whole.verdict, best_explanation=None, worst_dimension=None)
    by_model = replace(whole, replay=None, verdict=verdict)
    assert "Best explanation" not in [name for name, _, _ in cards(by_model)]
    assert next_steps(by_model)[0].text.startswith("Begin with the worst region")
    tried = {name: value for name, value, _ in cards(replace(whole, verdict=verdict))}
    assert tried["Best explanation"] == "none found"


def test_a_gap_of_a_locomotion_task_may_be_that_of_an_older_mujoco(whole):
    (step,) = [step for step in next_steps(replace(whole, simulator="walker2d")) if step.title == OLDER]
    assert "MuJoCo 2.1.0 or earlier" in step.text
    assert step.text.endswith("measure again with --shift legacy-inertia=1.0.")
    assert step.command == (
        "simtrust gap --real logs/log.hdf5 --sim walker2d --shift gravity=2.0 --shift legacy-inertia=1.0"
    )


def test_older_inertias_are_not_advised_where_they_do_not_fit(whole):
    assert OLDER in steps_of(whole)
    assert OLDER not in steps_of(without_a_gap(whole))
    for simulator in ("StandingStill-v0", "InvertedPendulum-v5", "own:make"):
        assert OLDER not in steps_of(replace(whole, simulator=simulator))
    assert OLDER not in steps_of(replace(whole, shifts=(Shift("legacy-inertia", 1.0),)))
