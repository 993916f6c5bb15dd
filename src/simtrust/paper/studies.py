"""The paper's tables, and the figures made of the same training: which cells each of them shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from simtrust.paper.cells import Cell, cell

RECIPES = {
    "sac": "SAC(sim)",
    "cql": "CQL(real)",
    "darc": "DARC",
    "darc_plus": "DARC+",
    "h2o": "H2O",
    "h2o_v": "H2O(v)",
    "h2o_a": "H2O-a",
    "h2o_dr": "H2O-dr",
    "h2o_a_dr": "H2O-a-dr",
    "h2o_reg": "H2O-reg",
    "h2o_reg_dr": "H2O-reg-dr",
    "h2o_reverse_kl": "H2O-Reverse-KL",
}
"""What the paper calls them."""
OURS = "h2o"
"""The recipe that the others are compared with."""


class Setting(NamedTuple):
    """A line of a table."""

    task: str
    level: str
    shift: str
    thousands: int | None = None

    def __str__(self) -> str:
        rows = "" if self.thousands is None else f" {self.thousands}k"
        return f"{self.task} {self.level}{rows}, {self.shift}"

    def cell(self, recipe: str) -> Cell:
        task, level, shift, thousands = self
        return cell(task, level, shift, recipe, thousands=thousands)


@dataclass(frozen=True)
class Study:
    """A table or figure: a cell for each setting and recipe."""

    name: str
    title: str
    settings: tuple[Setting, ...]
    recipes: tuple[str, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Each cell once, setting by setting."""
        shown = (setting.cell(recipe) for setting in self.settings for recipe in self.recipes)
        return tuple(dict.fromkeys(shown))


def _settings(task: str, levels: str, shifts: str) -> tuple[Setting, ...]:
    return tuple(Setting(task, level, shift) for level in levels.split() for shift in shifts.split())


_CHEETAH = _settings("halfcheetah", "medium medium-replay medium-expert", "gravity friction joint-noise")
_BASELINES = ("sac", "cql", "darc", "darc_plus", "h2o")
_ABLATIONS = ("h2o", "h2o_a", "h2o_dr", "h2o_a_dr", "h2o_reg", "h2o_reg_dr", "cql", "sac")
_FEWER_ROWS = tuple(
    Setting("halfcheetah", "medium-replay", "gravity", thousands) for thousands in range(10, 101, 10)
)

STUDIES: Mapping[str, Study] = {
    study.name: study
    for study in (
        Study("table1", "Average returns on HalfCheetah", _CHEETAH, _BASELINES),
        Study(
            "table2",
            "Ablations of H2O",
            _settings("halfcheetah", "medium-replay", "gravity"),
            _ABLATIONS,
        ),
        Study("table4", "H2O(v) beside H2O", _CHEETAH, ("h2o_v", "h2o")),
        Study(
            "table5",
            "H2O by the reverse KL divergence",
            _settings("halfcheetah", "medium medium-replay medium-expert", "gravity"),
            ("h2o", "h2o_reverse_kl"),
        ),
        Study(
            "table6",
            "Average returns on Walker2d",
            _settings("walker2d", "medium-replay", "gravity friction joint-noise"),
            _BASELINES,
        ),
        Study(
            "table7",
            "Average returns on HalfCheetah with random datasets",
            _settings("halfcheetah", "random", "gravity friction"),
            _BASELINES,
        ),
        Study("figure6", "H2O and CQL with less of the log", _FEWER_ROWS, ("cql", "h2o")),
        Study("figure7", "Learning curves of Tables 1 and 4", _CHEETAH, (*_BASELINES, "h2o_v")),
    )
}
