"""What is found before anything trains: memory of runs that differ in seeds, and of several at a time."""

from contextlib import closing
from functools import partial

import pytest

from simtrust.errors import ConfigError
from simtrust.sweeps import checking
from simtrust.sweeps.local_engine import side_by_side
from simtrust.sweeps.plan import make_plan
from simtrust.training import memory, setup


def test_every_number_of_seeds_is_checked(common, written, monkeypatch):
    runs = make_plan(written(f"{common}recipe = 'sac'\n[grid]\nseeds = [1, 2]")).runs
    with closing(setup.prepare(runs[0].config)) as one:
        enough = memory.predicted_memory(one.config, one.algorithm, len(one.dataset), one.capacity).machine
    monkeypatch.setattr(memory, "available_memory", lambda: enough)
    assert list(checking.check_problems(runs[:1])) == ["seeds=1"]
    with pytest.raises(ConfigError, match="run seeds=2: this run needs about"):
        checking.check_problems(runs)


def test_those_at_a_time_must_fit_together(common, written, monkeypatch):
    """The largest of them, wherever they are; other first seeds are the same problem, prepared once."""
    prepared = []
    monkeypatch.setattr(checking, "prepare", lambda config: prepared.append(config) or setup.prepare(config))
    needed = iter([2, 7])
    monkeypatch.setattr(checking, "predicted_memory", lambda *_: memory.Memory(next(needed) * 2**30, 0))
    text = f"{common}recipe = 'sac'\n[grid]\ndiscount = [0.5, 0.9]\nfirst_seed = [1, 2]"
    runs = make_plan(written(text)).runs
    monkeypatch.setattr(checking, "available_memory", lambda: 9 * 2**30)
    checking.check_problems(runs[1:3], 2)
    assert len(prepared) == 2
    needed = iter([2, 7])
    with pytest.raises(
        ConfigError, match=r"3 runs at a time need about 16\.0 GiB .* 9\.0 GiB are free; lower --jobs"
    ):
        checking.check_problems(runs, 3)


def test_jobs_are_what_is_checked():
    check = side_by_side(3).check
    assert isinstance(check, partial) and check.keywords == {"jobs": 3}
