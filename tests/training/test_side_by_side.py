"""Runs side by side in one process: each is what it is alone, and one that fails stops alone."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import simtrust
from simtrust.api import configured
from simtrust.errors import ConfigError, RunError
from simtrust.training import side_by_side
from simtrust.training.callbacks import Callback
from simtrust.training.fleet import Fleet
from simtrust.training.loop import beginning, going_on
from simtrust.training.side_by_side import train_side_by_side
from simtrust.training.updating import update_as_one


@pytest.fixture(scope="module")
def options(tiny, log, record_log, tmp_path_factory) -> list[dict]:
    """Two runs of other logs, seeds, β and steps; the second ends first."""
    other = record_log(tmp_path_factory.mktemp("other") / "other.hdf5", rows=1_000, seed=5)
    shared = {**tiny, "sim": "Pendulum-v1", "checkpoint_every": 50}
    return [
        {**shared, "real": str(log), "seeds": 2, "steps": 200, "beta": 0.0},
        {**shared, "real": str(other), "seeds": 1, "steps": 150, "beta": 3.0, "first_seed": 7},
    ]


@pytest.fixture(scope="module")
def alone(options, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("alone")
    return [
        simtrust.train("h2o", quiet=True, out=folder / str(index), **each).directory
        for index, each in enumerate(options)
    ]


def begin(folder: Path, index: int, options: dict, *, recipe: str = "h2o", callbacks=()):
    config, command = configured(recipe, out=folder / str(index), **options)
    return partial(beginning, config, command=command, callbacks=callbacks)


def metrics(directory: Path) -> bytes:
    return (directory / "metrics.jsonl").read_bytes()


def test_each_is_bit_for_bit_what_it_is_alone(options, alone, tmp_path):
    runs = {str(index): begin(tmp_path, index, each) for index, each in enumerate(options)}
    results = train_side_by_side(runs, quiet=True)
    assert list(results) == ["0", "1"]
    for index, directory in enumerate(alone):
        result = results[str(index)]
        assert isinstance(result, simtrust.RunResult)
        assert result.directory == tmp_path / str(index)
        assert metrics(result.directory) == metrics(directory)
    assert metrics(alone[0]).splitlines()[0] != metrics(alone[1]).splitlines()[0]


def test_in_two_lanes_each_is_bit_for_bit_what_it_is_alone(options, alone, tmp_path, monkeypatch):
    """One is updated while the other collects; each begins and ends where it does alone."""
    monkeypatch.setattr(side_by_side, "Fleet", partial(Fleet, lanes=2))
    runs = {str(index): begin(tmp_path, index, each) for index, each in enumerate(options)}
    train_side_by_side(runs, quiet=True)
    for index, directory in enumerate(alone):
        assert metrics(tmp_path / str(index)) == metrics(directory)


@pytest.mark.parametrize("lanes", [1, 2])
def test_in_one_program_as_on_a_gpu_each_is_nearly_what_it_is_alone(
    options, alone, tmp_path, monkeypatch, lanes
):
    """After a first round; later, roundings grow."""
    monkeypatch.setattr(side_by_side, "Fleet", partial(Fleet, update_all=update_as_one, lanes=lanes))
    short = [{**each, "steps": 50} for each in options]
    results = train_side_by_side(
        {str(index): begin(tmp_path, index, each) for index, each in enumerate(short)}, quiet=True
    )
    for index, directory in enumerate(alone):
        ours, theirs = (
            [json.loads(line) for line in metrics(each).splitlines()]
            for each in (results[str(index)].directory, directory)
        )
        for mine, its in zip(ours, theirs, strict=False):
            assert mine["seed"] == its["seed"]
            for name in ("critic_loss", "actor_loss", "weight", "classifier_loss_sas"):
                np.testing.assert_allclose(mine[name], its[name], rtol=1e-3)


class Failing(Callback):
    """Raises at its run's first checkpoint."""

    def __init__(self, error: BaseException):
        self.error = error

    def on_checkpoint(self, step, directory):
        raise self.error


class Told(Callback):
    error: BaseException | None = None

    def on_stop(self, error):
        self.error = error


def test_one_that_fails_stops_alone_and_goes_on_beside_others(options, alone, tmp_path):
    failing = begin(tmp_path, 0, options[0], callbacks=[Failing(ValueError("mine"))])
    ends = train_side_by_side({"0": failing, "1": begin(tmp_path, 1, options[1])}, quiet=True)
    assert "mine" in str(ends["0"])
    assert any("go on with: simtrust resume" in note for note in ends["0"].__notes__)
    assert metrics(tmp_path / "1") == metrics(alone[1])
    again = {"0": partial(going_on, tmp_path / "0"), "2": begin(tmp_path, 2, options[1])}
    train_side_by_side(again, quiet=True)
    assert metrics(tmp_path / "0") == metrics(alone[0])
    assert metrics(tmp_path / "2") == metrics(alone[1])


def test_an_interrupt_stops_all_and_each_is_told(options, tmp_path):
    told = Told()
    runs = {
        "0": begin(tmp_path, 0, options[0], callbacks=[Failing(KeyboardInterrupt())]),
        "1": begin(tmp_path, 1, options[1], callbacks=[told]),
    }
    with pytest.raises(KeyboardInterrupt) as raised:
        train_side_by_side(runs, quiet=True)
    assert told.error is raised.value
    assert {f"simtrust resume {tmp_path / each}" in "".join(raised.value.__notes__) for each in "01"} == {
        True
    }


def test_where_the_update_fails_every_run_says_so(options, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Fleet, "begin_updates", fail)
    runs = {str(index): begin(tmp_path, index, each) for index, each in enumerate(options)}
    for title, end in train_side_by_side(runs, quiet=True).items():
        assert isinstance(end, RunError)
        assert "memory" in str(end)
        (note,) = end.__notes__
        assert note.endswith(f"simtrust resume {tmp_path / title}")


def test_another_recipe_cannot_be_beside(options, alone, tmp_path):
    runs = {"0": begin(tmp_path, 0, options[0], recipe="darc"), "1": begin(tmp_path, 1, options[1])}
    ends = train_side_by_side(runs, quiet=True)
    assert isinstance(ends["0"], simtrust.RunResult)
    assert isinstance(ends["1"], ConfigError)
    assert "one after the other" in str(ends["1"])
    assert not (tmp_path / "1").exists()


def test_one_that_cannot_be_begun_does_not_stop_the_others(options, alone, tmp_path):
    missing = begin(tmp_path, 0, {**options[0], "real": str(tmp_path / "missing.hdf5")})
    ends = train_side_by_side({"0": missing, "1": begin(tmp_path, 1, options[1])}, quiet=True)
    assert "missing.hdf5" in str(ends["0"])
    assert not (tmp_path / "0").exists()
    assert metrics(tmp_path / "1") == metrics(alone[1])
