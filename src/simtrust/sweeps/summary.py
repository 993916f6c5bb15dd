"""How a sweep stands: ``sweep.csv``, written again with every outcome, and a table of it."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from simtrust.sweeps.places import Place
from simtrust.sweeps.plan import Plan, option_of
from simtrust.sweeps.table_file import (
    BYTES_MAX,
    DONE,
    FAILED,
    FINISHED,
    PER_SEED,
    WAITING,
    Line,
    read_table,
    table_text,
)
from simtrust.sweeps.work import Outcome

FILE = "sweep.csv"
ERROR_MAX = 1_000
"""Characters in the table; the whole error is in a file of its own."""


class Summary:
    """The outcomes of a sweep's runs so far."""

    def __init__(self, plan: Plan, place: Place):
        self.plan, self.place = plan, place
        self.outcomes: dict[str, Outcome] = {}
        self._unwritten: set[str] = set()
        self._written = False

    def add(self, *outcomes: Outcome) -> None:
        """Take outcomes in; `write` writes them."""
        self.outcomes |= {outcome.name: outcome for outcome in outcomes}
        self._unwritten |= {outcome.name for outcome in outcomes}

    def write(self) -> None:
        """Write what is known now, unless all of it was. Raises `RunError` if the place cannot be written."""
        if not self._unwritten and self._written:
            return
        for outcome in (self.outcomes[name] for name in sorted(self._unwritten)):
            error = f"errors/{outcome.name}.txt"
            if outcome.error is None:
                self.place.remove(error)
            else:
                self.place.write(error, f"{outcome.error}\n{outcome.details}\n".encode())
        self.place.write(FILE, table_text(self._lines(), self._others()).encode())
        self._unwritten, self._written = set(), True

    def _lines(self) -> list[Line]:
        """A line for each seed of a run that has finished, and one for each other run."""
        lines: list[Line] = []
        # What was asked for is not what was done.
        options = [option for option in self.plan.varied if option not in DONE]
        for run in self.plan.runs:
            outcome = self.outcomes.get(run.name)
            line: Line = {"name": run.name, "state": _state(outcome)}
            line |= {option: _text(option_of(run.config, option)) for option in options}
            error = outcome.error if outcome and outcome.error else ""
            done: Mapping[str, Any] = outcome.summary if outcome and outcome.summary else {"runs": [{}]}
            for seed in done["runs"]:
                found = {name: seed.get(name, "") for name in PER_SEED}
                whole = {name: done.get(name, "") for name in DONE}
                lines.append({**line, **found, **whole, "error": " ".join(error.split())[:ERROR_MAX]})
        return lines

    def _others(self) -> list[Line]:
        """What is written of other sweep files' runs in the same place: what this one knows nothing of."""
        ours = {run.name for run in self.plan.runs}
        before = self.place.read(FILE, BYTES_MAX)
        lines = [] if before is None else read_table(before, f"{self.place}/{FILE}")
        return [line for line in lines if line["name"] not in ours and line["state"] != WAITING]

    def table(self) -> Table:
        """A line for each run: its state, and the mean over its seeds of their mean returns."""
        table = Table("run", "seeds", "return", "worst", "best", "", title=Text(str(self.place)))
        for run in self.plan.runs:
            outcome = self.outcomes.get(run.name)
            cells = [Text(run.name), str(run.config.seeds), *_returns(outcome and outcome.summary)]
            table.add_row(*cells, _state(outcome))
        return table

    @property
    def failed(self) -> list[str]:
        return [name for name, outcome in self.outcomes.items() if outcome.error is not None]


def one_line(outcome: Outcome) -> str:
    """How a run ended, for the screen."""
    if outcome.error is not None:
        return f"{outcome.name}: failed: {outcome.error}"
    return f"{outcome.name}: return {_returns(outcome.summary)[0]}"


def _state(outcome: Outcome | None) -> str:
    if outcome is None:
        return WAITING
    return FAILED if outcome.error is not None else FINISHED


def _returns(summary: Mapping[str, Any] | None) -> Sequence[str]:
    found = [run.get("return_mean") for run in summary["runs"]] if summary else []
    means = [mean for mean in found if isinstance(mean, int | float)]
    return [f"{of(means):,.1f}" for of in (fmean, min, max)] if means else ["", "", ""]


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
