"""What the paper says of the robot (Section 6.3, Appendix B.2, Figures 2, 4 and 5), to be judged by our runs.

It shows one recorded episode of each recipe and gives few numbers. Where it gives one, ours has to be nearer
to it than to what it is set against, so that the limit lies halfway: CQL falls after 12 of 30 s, so ours has
to fall before 21 s. A fall soon after the start is set against the fall of CQL, where there is one, else
against the whole episode.
"""

from collections.abc import Mapping

import numpy as np

from simtrust.paper.claims import Claim, Quantity
from simtrust.paper.comparison import exactly, sample_of
from simtrust.paper.published import CQL_FALLS, CQL_SPEED, H2O_STEADY, TARGET_SPEED
from simtrust.paper.robot import STUDIES, Cell
from simtrust.paper.studies import RECIPES as NAMES
from simtrust.simulators.wheel_legged import FALLEN_TILT, STATE_NAMES

BASELINES = ("sac", "cql", "darc", "darc_plus")
FALL_AT_ONCE = ("sac", "darc", "darc_plus")
UPRIGHT, RETURN, SIMULATED = "seconds upright", "real return", "simulator return"
ERROR = "RMS of ẋ − 0.2 (m/s)"
SPEED, ROUGHNESS = "mean ẋ (m/s)", "RMS of tilt velocity (rad/s)"
GATHERED = "cumulative reward"

LIMITS_HALFWAY = """Limits are ours, not the paper's: halfway between what it says and what that is set
against, such as 21 s for a fall at 12 of 30 s."""


def _halfway(one: float, other: float) -> float:
    return (one + other) / 2


def of(recipe: str, measure: str) -> str:
    """The name of a recipe's quantity."""
    return f"{recipe}, {measure}"


_STANDING, _MOVING = (study.task.seconds for study in STUDIES.values())
_STILL, _STRAIGHT = "Section 6.3, Figure 2(c)", "Section 6.3, Figure 2(d)"


def _ahead(measure: str, source: str) -> list[Claim]:
    """H2O transfers better to the robot than every baseline."""
    return [
        Claim(f"H2O does better than {NAMES[other]}", source, "", of("h2o", measure), of(other, measure))
        for other in BASELINES
    ]


def _in_both() -> list[Claim]:
    """Of either task."""
    return [
        *_ahead(RETURN, "Section 6.3"),
        Claim(
            "In the simulator SAC does better than H2O",
            "Section 6.3, implied",
            "",
            of("sac", SIMULATED),
            of("h2o", SIMULATED),
        ),
    ]


def _at_once(limit: float, source: str) -> list[Claim]:
    return [
        Claim(f"{NAMES[other]} falls soon after the start", source, "", limit, of(other, UPRIGHT))
        for other in FALL_AT_ONCE
    ]


def _outlasts(recipe: str, others: tuple[str, ...], source: str) -> list[Claim]:
    return [
        Claim(
            f"{NAMES[recipe]} stays up longer than {NAMES[other]}",
            source,
            "",
            of(recipe, UPRIGHT),
            of(other, UPRIGHT),
        )
        for other in others
    ]


CLAIMS_OF_FIGURE_2: Mapping[str, tuple[Claim, ...]] = {
    "standing-still": (
        Claim(
            "H2O stands on when CQL has fallen",
            _STILL,
            f"steady after {H2O_STEADY:g} s",
            of("h2o", UPRIGHT),
            _halfway(CQL_FALLS, _STANDING),
        ),
        Claim(
            "CQL falls midway",
            _STILL,
            f"at {CQL_FALLS:g} s",
            _halfway(CQL_FALLS, _STANDING),
            of("cql", UPRIGHT),
        ),
        *_at_once(CQL_FALLS / 2, _STILL),
        *_outlasts("h2o", ("cql",), _STILL),
        *_outlasts("cql", FALL_AT_ONCE, _STILL),
        *_in_both(),
    ),
    "moving-straight": (
        Claim("H2O keeps its balance", _STRAIGHT, "", of("h2o", UPRIGHT), _MOVING / 2),
        *_at_once(_MOVING / 2, _STRAIGHT),
        *_outlasts("h2o", FALL_AT_ONCE, _STRAIGHT),
        Claim(
            "H2O keeps close to the speed asked for",
            _STRAIGHT,
            f"{TARGET_SPEED:g} m/s",
            _halfway(0, CQL_SPEED - TARGET_SPEED),
            of("h2o", ERROR),
        ),
        Claim(
            "CQL is nearly twice as fast as asked",
            _STRAIGHT,
            f"nearly {CQL_SPEED:g} m/s",
            of("cql", SPEED),
            _halfway(TARGET_SPEED, CQL_SPEED),
        ),
        Claim("H2O is closer to that speed than CQL", _STRAIGHT, "", of("cql", ERROR), of("h2o", ERROR)),
        Claim(
            "H2O runs more smoothly than CQL",
            _STRAIGHT,
            "",
            of("cql", ROUGHNESS),
            of("h2o", ROUGHNESS),
        ),
        *_in_both(),
    ),
}
"""By study."""


def quantities_of_figure_2(
    cells: Mapping[str, Cell], states: Mapping[str, np.ndarray]
) -> dict[str, Quantity]:
    """A study's quantities that `CLAIMS_OF_FIGURE_2` ask for.

    Args:
        cells: by recipe.
        states: by recipe, true states ``[R, T, 4]`` of one episode of each run on the real robot; NaN after
            its end.
    """
    found = {}
    for recipe, cell in cells.items():
        measures = {UPRIGHT: "real seconds", RETURN: "real return", SIMULATED: "simulator return"}
        if STUDIES[cell.study].error == "velocity":
            measures[ERROR] = "real error"
        for name, measure in measures.items():
            found[of(recipe, name)] = Quantity(sample_of(cell.per_run(measure)), cell.steps)
        if recipe in states:
            tilt_velocity, speed = (
                states[recipe][..., STATE_NAMES.index(name)].astype(float)
                for name in ("tilt_velocity", "velocity")
            )
            found[of(recipe, SPEED)] = Quantity(sample_of(np.nanmean(speed, axis=1)), cell.steps)
            root = np.sqrt(np.nanmean(np.square(tilt_velocity), axis=1))
            found[of(recipe, ROUGHNESS)] = Quantity(sample_of(root), cell.steps)
    return found


CLAIMS_OF_FIGURE_5 = tuple(_ahead(GATHERED, "Section 6.3, Figure 5"))
"""Of either study."""


def quantities_of_figure_5(
    cells: Mapping[str, Cell], curves: Mapping[str, np.ndarray]
) -> dict[str, Quantity]:
    """By recipe's name: what each run has gathered when its episode ends, of curves ``[R, T]`` by recipe."""
    return {
        of(recipe, GATHERED): Quantity(sample_of(gathered(curve)), cells[recipe].steps)
        for recipe, curve in curves.items()
    }


def gathered(curve: np.ndarray) -> np.ndarray:
    """[R]: the last number of each row of a curve ``[R, T]`` that is NaN after an episode's end."""
    last = np.isfinite(curve).sum(1) - 1
    return curve[np.arange(len(curve)), last]


REWARD, TILT, LOGGED_SPEED = "least reward", "RMS of tilt (rad)", "mean ẋ of the log (m/s)"
_LOGS = "Appendix B.2, Figure 4"
CLAIMS_OF_FIGURE_4: Mapping[str, tuple[Claim, ...]] = {
    "standing-still": (
        Claim("Every reward is positive", _LOGS, "", REWARD, 0.0),
        Claim("The operator keeps near balance", _LOGS, "", FALLEN_TILT / 2, TILT),
    ),
    "moving-straight": (
        Claim("Every reward is positive", _LOGS, "", REWARD, 0.0),
        Claim("The robot moves forward", _LOGS, f"{TARGET_SPEED:g} m/s asked", LOGGED_SPEED, 0.0),
    ),
}
"""By study. Of the logs themselves, whose numbers are known exactly."""


def quantities_of_figure_4(
    observed: tuple[str, ...], observation: np.ndarray, reward: np.ndarray
) -> dict[str, Quantity]:
    """Of a log: observations ``[T, O]`` of the states ``observed``, in rad and m/s, and rewards ``[T]``."""
    column = {name: observation[:, index].astype(float) for index, name in enumerate(observed)}
    return {
        REWARD: Quantity(exactly(float(reward.min()))),
        TILT: Quantity(exactly(float(np.sqrt(np.mean(np.square(column["tilt"])))))),
        LOGGED_SPEED: Quantity(exactly(float(column["velocity"].mean()))),
    }
