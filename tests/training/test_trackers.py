"""Trackers get what metrics.jsonl has, and go on where they were after a resume."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

import simtrust
from simtrust.errors import ConfigError, RunError
from simtrust.training.callbacks import Callback, CallbackError
from simtrust.training.config import TrainConfig, config_from_json, config_to_json
from simtrust.training.trackers import make_trackers
from simtrust.training.trackers.common import tracking_id
from simtrust.training.trackers.mlflow import MlflowTracker
from simtrust.training.trackers.wandb import WandbTracker

COUNTER = {"sim": "misbehaving:truncating", "steps": 200, "seeds": 2, "evaluate_every": 100}
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


class InterruptAt(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_metrics(self, records):
        if records[0].step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def interrupted(train, misbehaving, tmp_path):
    """``interrupted(tracker)`` stops a run at step 150, after its checkpoint of 100, and resumes it.

    The Counter counts the episodes of its process, so that the values at step 150 are others the second time.
    """

    def interrupted(make, sim: str = COUNTER["sim"]) -> simtrust.RunResult:
        with pytest.raises(KeyboardInterrupt):
            train(**{**COUNTER, "sim": sim}, callbacks=[make(), InterruptAt(150)])
        own = sim if ":" in sim else None
        return simtrust.resume(tmp_path / "run", sim=own, quiet=True, callbacks=[make()])

    return interrupted


def expected_points(result: simtrust.RunResult, seed: int) -> dict[int, dict[str, float]]:
    """Of one seed, by step, every number of metrics.jsonl."""
    lines = [json.loads(line) for line in (result.directory / "metrics.jsonl").read_text().splitlines()]
    return {
        line.pop("step"): {name: value for name, value in line.items() if isinstance(value, float)}
        for line in lines
        if line.pop("seed") == seed
    }


class FakeWandb(ModuleType):
    """What the tracker uses of W&B; a run keeps the first value of a step, as W&B does."""

    class Error(Exception):
        pass

    class Settings(SimpleNamespace):
        pass

    def __init__(self, error: str | None = None):
        super().__init__("wandb")
        self.error, self.begun, self.runs = error, [], {}

    def init(self, *, id: str, **arguments):
        if self.error:
            raise self.Error(self.error)
        self.begun.append({"id": id, **arguments})
        return self.runs.setdefault(id, FakeWandbRun())


class FakeWandbRun:
    def __init__(self):
        self.history, self.summary, self.finished = {}, {}, []

    def log(self, values, *, step, commit):
        assert commit, "what is not committed would be lost with the process"
        self.history.setdefault(step, values)

    def finish(self, exit_code=0):
        self.finished.append(exit_code)


def test_wandb(interrupted, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    result = interrupted(lambda: WandbTracker(mode="offline"), sim="Pendulum-v1")
    identity = tracking_id(result.directory)
    assert [begun["id"] for begun in fake.begun] == [f"{identity}-{seed}" for seed in (0, 1)] * 2
    for begun in fake.begun:
        assert (begun["project"], begun["mode"], begun["group"]) == ("simtrust", "offline", "run")
        assert (begun["resume"], begun["reinit"]) == ("allow", "create_new")
        assert (begun["config"]["recipe"], begun["config"]["batch_size"]) == ("sac", 16)
        assert begun["dir"] == str(result.directory)
    for seed, run in enumerate(fake.runs.values()):
        assert run.history == expected_points(result, seed)
        assert run.finished == [1, 0]
        assert run.summary["final/return_mean"] == result.summary["runs"][seed]["return_mean"]


def test_wandb_without_a_login_says_what_to_do_before_any_step(train, misbehaving, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("no key"))
    with pytest.raises(CallbackError, match=r"WandbTracker\.on_start.*Error: no key.*WANDB_MODE=offline"):
        train(**COUNTER, track=["wandb"])
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


class FakeMlflow(ModuleType):
    """What the tracker uses of MLflow; every value of a metric is kept."""

    def __init__(self):
        super().__init__("mlflow")
        self.entities = SimpleNamespace(Metric=lambda key, value, timestamp, step: (key, value, step))
        self.uris, self.experiments, self.runs = [], {}, []

    def MlflowClient(self, *, tracking_uri):
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name):
        return self.experiments.setdefault(name, "17")

    def search_runs(self, experiments, *, filter_string, max_results):
        assert (experiments, max_results) == (["17"], 1)
        return [run for run in self.runs if filter_string == f"tags.simtrust_run = '{run.tag}'"]

    def create_run(self, experiment, *, tags, run_name):
        info = SimpleNamespace(run_id=f"id-{len(self.runs)}")
        run = SimpleNamespace(
            info=info, tag=tags["simtrust_run"], name=run_name, params={}, points=[], status=["RUNNING"]
        )
        self.runs.append(run)
        return run

    def find(self, run_id):
        return self.runs[int(run_id.removeprefix("id-"))]

    def log_param(self, run_id, key, value):
        assert isinstance(value, str)
        assert len(value) <= 500
        self.find(run_id).params[key] = value

    def log_batch(self, run_id, *, metrics):
        self.find(run_id).points += metrics

    def update_run(self, run_id, *, status):
        self.find(run_id).status.append(status)

    def set_terminated(self, run_id, *, status):
        self.find(run_id).status.append(status)


def test_mlflow(interrupted, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    result = interrupted(MlflowTracker)
    assert fake.uris == [f"sqlite:///{result.directory}/mlflow.db"] * 2
    assert fake.experiments == {"simtrust": "17"}
    assert [run.name for run in fake.runs] == ["run seed 0", "run seed 1"], "the resumed run finds them again"
    for seed, run in enumerate(fake.runs):
        assert (run.params["recipe"], run.params["batch_size"], run.params["seed"]) == (
            "sac",
            "16",
            str(seed),
        )
        expected = expected_points(result, seed)
        assert {(name, step): value for name, value, step in run.points} == {
            (name, step): value for step, values in expected.items() for name, value in values.items()
        }
        again = [step for name, _, step in run.points if name == "actor_loss"]
        assert again == [50, 100, 150, 150, 200], "what came after the checkpoint is told again"
        assert run.status == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]


def test_settings_of_the_packages_are_respected(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb())
    monkeypatch.setitem(sys.modules, "mlflow", FakeMlflow())
    monkeypatch.setenv("WANDB_PROJECT", "robot")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "arm")
    assert WandbTracker().project == "robot"
    assert (MlflowTracker().tracking_uri, MlflowTracker().experiment) == ("http://server", "arm")
    assert WandbTracker(project="mine").project == "mine"
    assert MlflowTracker("sqlite:///x.db", "mine").tracking_uri == "sqlite:///x.db"


def test_tensorboard_has_every_value(interrupted, monkeypatch):
    written = {}

    class Writer:
        def __init__(self, folder, purge_step):
            self.points = written.setdefault(folder, {})
            for key in [key for key in self.points if key[1] >= purge_step]:
                del self.points[key]

        def add_scalar(self, name, value, step):
            assert (name, step) not in self.points
            self.points[name, step] = value

        def flush(self): ...
        def close(self): ...

    import tensorboardX

    monkeypatch.setattr(tensorboardX, "SummaryWriter", Writer)
    result = interrupted(lambda: make_trackers(["tensorboard"])[0])
    for seed in (0, 1):
        expected = expected_points(result, seed)
        assert written[f"{result.directory}/tensorboard/seed-{seed}"] == {
            (name, step): value for step, values in expected.items() for name, value in values.items()
        }


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named_before_any_work(train, monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    message = rf"tracking by {name} needs {PACKAGES[name]} .*: pip install 'simtrust\[{name}\]'"
    with pytest.raises(ConfigError, match=message):
        train(**COUNTER, track=[name])
    assert not (tmp_path / "run").exists()


def test_each_tracker_is_made_once():
    assert len(make_trackers(("tensorboard", "tensorboard"))) == 1


@pytest.mark.parametrize("track", ["wandb", ["aim"]])
def test_unknown_trackers_are_refused(train, track):
    with pytest.raises(ConfigError, match="choose among tensorboard, wandb, mlflow"):
        train(**COUNTER, track=track)


@pytest.mark.parametrize(("before", "now"), [(True, ("tensorboard",)), (False, ())])
def test_runs_from_before_there_were_other_trackers_still_load(tmp_path, before, now):
    stored = json.loads(config_to_json(TrainConfig(), command="x"))
    del stored["track"]
    (tmp_path / "config.json").write_text(json.dumps({**stored, "tensorboard": before}))
    config, extra = config_from_json(tmp_path / "config.json")
    assert config == TrainConfig(track=now)
    assert extra == {"command": "x"}


def test_tracking_id_is_kept_and_checked(tmp_path):
    first = tracking_id(tmp_path)
    assert tracking_id(tmp_path) == first
    (tmp_path / "tracking_id").write_text("' OR 1 = 1")
    with pytest.raises(RunError, match=r"tracking_id holds .* delete it to be tracked as a new run"):
        tracking_id(tmp_path)


# Of the packages' own warnings, which depend on their versions.
REAL = pytest.mark.filterwarnings("ignore")


@REAL
def test_the_real_wandb_offline(interrupted, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    result = interrupted(lambda: WandbTracker(mode="offline"))
    identity = tracking_id(result.directory)
    for seed in (0, 1):
        files = list((result.directory / "wandb").glob(f"offline-run-*-{identity}-{seed}/*.wandb"))
        assert len(files) == 2
        assert any(b"actor_loss" in file.read_bytes() for file in files)


@REAL
def test_the_real_mlflow_in_a_file(interrupted, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = interrupted(MlflowTracker)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{result.directory}/mlflow.db")
    experiment = client.get_experiment_by_name("simtrust")
    runs = client.search_runs([experiment.experiment_id], order_by=["params.seed"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    for seed, run in enumerate(runs):
        expected = expected_points(result, seed)
        assert run.data.params["recipe"] == "sac"
        assert run.data.metrics == {name: v for point in expected.values() for name, v in point.items()}
        history = client.get_metric_history(run.info.run_id, "actor_loss")
        assert sorted(m.step for m in history) == [50, 100, 150, 150, 200]
        assert {m.step: m.value for m in history} == {s: v["actor_loss"] for s, v in expected.items()}
