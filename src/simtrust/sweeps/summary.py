"""How a sweep stands: ``sweep.csv``, written again with every outcome, and a table of it."""

import csv
from collections.abc import Mapping, Sequence
from io import StringIO
from statistics import fmean
from typing import Any

from rich.table import Table
from rich.text import Text

from simtrust.sweeps.places import Place
from simtrust.sweeps.plan import Plan, option_of
from simtrust.sweeps.work import Outcome

FILE = "sweep.csv"
RESULTS = ("return_mean", "return_std")


class Summary:
    """The outcomes of a sweep's runs so far."""

    def __init__(self, plan: Plan, place: Place):
        self.plan, self.place = plan, place
        self.outcomes: dict[str, Outcome] = {}

    def add(self, *outcomes: Outcome) -> None:
        """Take outcomes in, and write what is known now. Raises `RunError` if the place cannot be written."""
        self.outcomes |= {outcome.name: outcome for outcome in outcomes}
        for outcome in outcomes:
            error = f"errors/{outcome.name}.txt"
            if outcome.error is None:
                self.place.remove(error)
            else:
                self.place.write(error, f"{outcome.error}\n{outcome.details}\n".encode())
        self.place.write(FILE, self.csv().encode())

    def csv(self) -> str:
        """A line for each seed of a run that has finished, and one for each other run."""
        text = StringIO()
        names = ("name", "state", *self.plan.varied, "seed", *RESULTS, "steps", "wall_seconds", "error")
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        for run in self.plan.runs:
            outcome = self.outcomes.get(run.name)
            varied = {option: _text(option_of(run.config, option)) for option in self.plan.varied}
            line = {"name": run.name, "state": _state(outcome), **varied}
            if outcome is None or outcome.summary is None:
                error = outcome.error if outcome and outcome.error else ""
                writer.writerow({**line, "error": " ".join(error.split())})
                continue
            whole = {name: outcome.summary.get(name, "") for name in ("steps", "wall_seconds")}
            for seed in outcome.summary["runs"]:
                writer.writerow({**line, **whole, **{name: seed.get(name) for name in ("seed", *RESULTS)}})
        return text.getvalue()

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
        return "waiting"
    return "failed" if outcome.error is not None else "finished"


def _returns(summary: Mapping[str, Any] | None) -> Sequence[str]:
    found = [run.get("return_mean") for run in summary["runs"]] if summary else []
    means = [mean for mean in found if isinstance(mean, int | float)]
    return [f"{of(means):,.1f}" for of in (fmean, min, max)] if means else ["", "", ""]


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
