"""``sweep.csv`` and what becomes of it: outcomes of runs that nobody trains here."""

import csv
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from simtrust.errors import RunError
from simtrust.sweeps.local_engine import Engine
from simtrust.sweeps.places import SharedFolder
from simtrust.sweeps.plan import PlannedRun
from simtrust.sweeps.sweep import sweep
from simtrust.sweeps.work import Order, Outcome

GRID = '[common]\nrecipe = "sac"\nsim = "Pendulum-v1"\nrollout_steps = 100\ncheckpoint_every = 100\n[grid]\n'
EXAMPLE = Path(__file__).parents[2] / "examples" / "slurm_sweep.py"


def unchecked(runs: Sequence[PlannedRun]) -> dict[str, str | None]:
    return {run.name: None for run in runs}


def done(name: str, seeds: int = 1) -> Outcome:
    found = [{"seed": seed, "return_mean": 1.5 + seed, "return_std": 0.5} for seed in range(seeds)]
    return Outcome(name, {"runs": found, "steps": 100, "wall_seconds": 2.0})


def engine(train: Callable[[Order], Outcome] = lambda order: done(order.run.name)) -> Engine:
    return Engine(unchecked, lambda orders: map(train, orders))


def table(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "sweep.csv").read_text().splitlines()))


def test_every_seed_has_a_line(written, tmp_path):
    sweep(written(GRID + "beta = [1]"), str(tmp_path), engine(lambda order: done(order.run.name, 2)))
    found = [(row["name"], row["seed"], row["return_mean"], row["steps"]) for row in table(tmp_path)]
    assert found == [("beta=1", "0", "1.5", "100"), ("beta=1", "1", "2.5", "100")]


def test_steps_are_those_that_were_done_under_one_name(written, tmp_path):
    """Also where the sweep varies them."""
    file = written(GRID + "steps = [100, 200]\nbeta = [0.5]")

    def train(orders: Sequence[Order]) -> Iterator[Outcome]:
        yield done(orders[0].run.name)
        found = table(tmp_path / "out")
        assert [(row["state"], row["steps"]) for row in found] == [("finished", "100"), ("waiting", "")]
        yield Outcome(orders[1].run.name, None, "no\n good " + "x" * 10_000)

    sweep(file, str(tmp_path / "out"), Engine(unchecked, train))
    header = (tmp_path / "out" / "sweep.csv").read_text().splitlines()[0]
    assert header == "name,state,beta,seed,return_mean,return_std,steps,wall_seconds,error"
    first, second = table(tmp_path / "out")
    numbers = ["0", "1.5", "0.5", "100", "2.0"]
    assert list(first.values()) == ["steps=100-beta=0.5", "finished", "0.5", *numbers, ""]
    assert (second["state"], second["steps"], len(second["error"])) == ("failed", "", 1_000)
    assert second["error"].startswith("no good xx")


def test_another_file_in_the_same_folder_keeps_what_is_there(written, tmp_path):
    out = tmp_path / "out"
    sweep(written(GRID + "beta = [1, 2]"), str(out), engine())
    before = table(out)

    def train(orders: Sequence[Order]) -> Iterator[Outcome]:
        assert [row["state"] for row in table(out)] == ["waiting", "waiting", "finished", "finished"]
        yield Outcome("first_seed=7", None, 'no, "never"')
        yield done("first_seed=8")

    sweep(written(GRID + "first_seed = [7, 8]"), str(out), Engine(unchecked, train))
    ours, theirs = table(out)[:2], table(out)[2:]
    assert [(row["name"], row["first_seed"], row["beta"]) for row in ours] == [
        ("first_seed=7", "7", ""),
        ("first_seed=8", "8", ""),
    ]
    assert [{**row, "first_seed": ""} for row in before] == theirs
    # Its own lines are written anew, those of others kept; nobody waits for runs that no file names.
    sweep(written(GRID + "first_seed = [9]"), str(out), Engine(unchecked, lambda orders: iter(())))
    sweep(written(GRID + "beta = [2, 3]"), str(out), engine())
    names = ["beta=2", "beta=3", "first_seed=7", "first_seed=8", "beta=1"]
    assert [row["name"] for row in table(out)] == names
    assert table(out)[2]["error"] == 'no, "never"'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name;state\n", "it lacks"),
        (b"\xff\xfe", "decode"),
        (b"name,state,seed,return_mean,return_std,steps,wall_seconds,error\na,finished\n", "line 2"),
        (b"name,state,seed,return_mean,return_std,steps,wall_seconds,error\na,waits,,,,,,\n", "line 2"),
    ],
)
def test_a_table_that_is_another_is_left_alone(written, tmp_path, content, problem):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.csv").write_bytes(content)
    with pytest.raises(RunError, match=f"no table of a sweep: .*{problem}"):
        sweep(written(GRID + "beta = [1]"), str(tmp_path / "out"), engine(lambda order: pytest.fail()))
    assert (tmp_path / "out" / "sweep.csv").read_bytes() == content


@pytest.mark.parametrize("failures", [1, 9])
def test_an_outcome_that_cannot_be_written_ends_no_sweep(written, tmp_path, monkeypatch, failures):
    """Tried again with the next outcome, and in the end, where it is raised."""
    out, said, failed = tmp_path / "out", [], []
    write = SharedFolder.write

    def failing(place: SharedFolder, name: str, content: bytes) -> None:
        if said and len(failed) < failures:
            failed.append(name)
            raise RunError(f"{name}: no route to host")
        write(place, name, content)

    monkeypatch.setattr(SharedFolder, "write", failing)
    file = written(GRID + "beta = [1, 2]")

    def run() -> None:
        outcomes = engine(lambda order: Outcome(order.run.name, None, "no"))
        sweep(file, str(out), outcomes, tell=said.append)

    if failures == 1:
        run()
        assert len(said) == 3 and said[1].startswith("errors/beta=1.txt: no route to host. The sweep goes on")
        assert [row["state"] for row in table(out)] == ["failed", "failed"]
        assert sorted(path.name for path in (out / "errors").iterdir()) == ["beta=1.txt", "beta=2.txt"]
        return
    with pytest.raises(RunError, match="no route to host"):
        run()
    assert [line for line in said if "failed" in line] == ["beta=1: failed: no", "beta=2: failed: no"]


def test_a_job_that_slurm_ends_ends_no_other(written, tmp_path, monkeypatch):
    """The example, with a stand-in for submitit of the names that it uses."""

    class Job:
        def __init__(self, order: Order):
            self.order, self.job_id = order, f"1_{order.run.name}"

        def result(self) -> Outcome:
            if self.order.run.name == "beta=1":
                raise TimeoutError("the time limit\nits log")
            return done(self.order.run.name)

    executor = SimpleNamespace(
        update_parameters=lambda **_: None, map_array=lambda function, orders: [*map(Job, orders)]
    )
    helpers = SimpleNamespace(as_completed=reversed)
    submitit = SimpleNamespace(AutoExecutor=lambda folder: executor, helpers=helpers)
    monkeypatch.setitem(sys.modules, "submitit", submitit)
    as_jobs = runpy.run_path(str(EXAMPLE))["as_jobs"]
    summary = sweep(written(GRID + "beta = [1, 2]"), str(tmp_path / "out"), Engine(unchecked, as_jobs))
    assert summary.failed == ["beta=1"]
    assert [row["state"] for row in table(tmp_path / "out")] == ["failed", "finished"]
    assert (summary.outcomes["beta=1"].error, summary.outcomes["beta=1"].details) == (
        "TimeoutError: the time limit",
        "the time limit\nits log",
    )
