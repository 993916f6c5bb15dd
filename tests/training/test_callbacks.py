"""Who listens to a run is told everything once, in order, and cannot harm it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import simtrust
from simtrust.errors import ConfigError, RunError
from simtrust.training.callbacks import Callback, CallbackError, Callbacks
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.metrics import MetricRecord

COUNTER = {"sim": "misbehaving:truncating", "steps": 200}
SIM = {"sim": "misbehaving:truncating"}


class Recorder(Callback):
    """Keeps every event, and what lay on the disk at that moment."""

    def __init__(self):
        self.events: list[tuple] = []
        self.records: list[MetricRecord] = []

    def on_start(self, run):
        assert json.loads((run.directory / "config.json").read_text())["command"] == run.record["command"]
        self.events.append(("start", run.step, run.seeds))

    def on_metrics(self, records):
        self.events.append(("metrics", *{record.step for record in records}))
        self.records += records

    def on_checkpoint(self, step, directory):
        assert simtrust.Policy(directory).step == step
        self.events.append(("checkpoint", step))

    def on_end(self, result):
        assert json.loads((result.directory / "result.json").read_text()) == result.summary
        self.events.append(("end", result.summary["steps"]))

    def on_stop(self, error):
        self.events.append(("stop", type(error)))


class Raising(Callback):
    """Raises ``error`` in the method ``hook``, if told of metrics only at step ``at``."""

    def __init__(self, hook: str, error: BaseException, at: int = 150):
        def fail(*event):
            if hook != "on_metrics" or event[0][0].step == at:
                raise error

        setattr(self, hook, fail)


def metrics_of(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def as_lines(records: list[MetricRecord]) -> list[dict]:
    return [{"step": record.step, "seed": record.seed, **record.values} for record in records]


def saved_step(directory: Path) -> int:
    manifest = CheckpointStore(directory / "checkpoints").latest()
    assert manifest is not None
    return manifest.step


def test_every_event_is_told_once_in_order_and_as_it_is_on_the_disk(train, misbehaving):
    one, two = Recorder(), Recorder()
    result = train(**COUNTER, seeds=2, first_seed=5, callbacks=[one, two])
    assert one.events == two.events == [
        ("start", 0, (5, 6)),
        ("metrics", 50),
        ("metrics", 100),
        ("checkpoint", 100),
        ("metrics", 150),
        ("metrics", 200),
        ("checkpoint", 200),
        ("end", 200),
    ]  # fmt: skip
    assert as_lines(one.records) == as_lines(two.records) == metrics_of(result.directory)
    assert [(r.step, r.seed) for r in one.records] == [(s, r) for s in (50, 100, 150, 200) for r in (5, 6)]
    with pytest.raises(TypeError):
        one.records[0].values["actor_loss"] = 0.0  # pyright: ignore[reportIndexIssue]


def test_listening_changes_no_bit(train, misbehaving, tmp_path):
    class Noisy(Callback):
        def on_metrics(self, records):
            np.random.seed(0)  # noqa: NPY002

    evaluators = {"seed": lambda policy: float(policy(np.ones((3, 2))).sum() * 0 + policy.seed)}
    listened, plain = tmp_path / "listened", tmp_path / "plain"
    options = {**COUNTER, "evaluate_every": 100}
    train(**options, out=listened, callbacks=[Noisy()], evaluators=evaluators)
    train(**options, out=plain)
    states = [(d / "checkpoints" / "state-000000000200.safetensors").read_bytes() for d in (listened, plain)]
    assert states[0] == states[1]
    without = [
        {name: v for name, v in line.items() if name != "evaluator/seed"} for line in metrics_of(listened)
    ]
    assert without == metrics_of(plain)
    assert "evaluators" in json.loads((listened / "config.json").read_text())
    assert "evaluators" not in json.loads((plain / "config.json").read_text())


def test_an_error_in_a_callback_loses_nothing(train, misbehaving, tmp_path):
    directory, other = tmp_path / "run", Recorder()
    with pytest.raises(
        CallbackError, match=r"^Raising\.on_metrics raised OSError: the disk is full"
    ) as caught:
        train(**COUNTER, callbacks=[Raising("on_metrics", OSError("the disk is full")), other])
    assert isinstance(caught.value.__cause__, OSError)
    (note,) = caught.value.__notes__
    assert note == (
        "The training state at step 150 is saved; when that is mended, "
        f"go on with: simtrust resume {directory} --sim misbehaving:truncating"
    )
    told = "the other callback is told all the same, and that it is over"
    assert other.events[-2:] == [("metrics", 150), ("stop", CallbackError)], told
    assert saved_step(directory) == simtrust.Policy(directory).step == 150

    after = Recorder()
    result = simtrust.resume(directory, quiet=True, **SIM, callbacks=[after])
    assert after.events == [("start", 150, (0,)), ("metrics", 200), ("checkpoint", 200), ("end", 200)]
    assert as_lines(other.records + after.records) == metrics_of(result.directory)


@pytest.mark.parametrize(
    ("hook", "saved", "finished"),
    [("on_start", 0, False), ("on_checkpoint", 100, False), ("on_end", 200, True)],
)
def test_every_hook_may_raise(train, misbehaving, tmp_path, hook, saved, finished):
    with pytest.raises(CallbackError, match=rf"^Raising\.{hook} raised ZeroDivisionError: x"):
        train(**COUNTER, callbacks=[Raising(hook, ZeroDivisionError("x"))])
    assert saved_step(tmp_path / "run") == saved
    assert (tmp_path / "run" / "result.json").exists() == finished
    told = Recorder()
    result = simtrust.resume(tmp_path / "run", quiet=True, **SIM, callbacks=[told])
    assert result.summary["steps"] == 200
    assert [line["step"] for line in metrics_of(result.directory)] == [50, 100, 150, 200]
    assert (told.events == []) == finished, "nothing more is told of a run that has finished"


def test_several_errors_are_all_told():
    errors = ValueError("a"), KeyError("b")
    both = Callbacks([Raising("on_end", error) for error in errors])
    with pytest.raises(CallbackError, match="raised ValueError: a") as caught:
        both.on_end(None)  # pyright: ignore[reportArgumentType]
    assert caught.value.__notes__ == ["Also: Raising.on_end raised KeyError: 'b'"]
    first = RunError("why it stopped")
    Callbacks([Raising("on_stop", error) for error in errors]).on_stop(first)
    assert first.__notes__ == [
        f"Also: Raising.on_stop raised {e}" for e in ("ValueError: a", "KeyError: 'b'")
    ]


def test_after_an_interruption_the_lines_since_the_checkpoint_are_told_again(train, tmp_path):
    before, after = Recorder(), Recorder()
    pendulum = {"sim": "Pendulum-v1", "steps": 200}
    with pytest.raises(KeyboardInterrupt):
        train(**pendulum, callbacks=[before, Raising("on_metrics", KeyboardInterrupt())])
    assert saved_step(tmp_path / "run") == 100
    result = simtrust.resume(tmp_path / "run", quiet=True, callbacks=[after])
    assert before.events[-1] == ("stop", KeyboardInterrupt)
    assert [r.step for r in before.records] == [50, 100, 150]
    assert [r.step for r in after.records] == [150, 200]
    assert as_lines([before.records[-1]]) == as_lines([after.records[0]])
    whole = train(**pendulum, out=tmp_path / "whole").directory
    assert (result.directory / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_class_is_no_callback(train, tmp_path):
    with pytest.raises(ConfigError, match=r"callbacks\[1\] is <class .*Recorder'>; give an instance"):
        train(**COUNTER, callbacks=[Recorder(), Recorder])
    assert not (tmp_path / "run").exists()


def test_evaluators_join_the_metrics_and_the_result(train, misbehaving, tmp_path):
    evaluators = {
        "number": lambda policy: np.float32(10 * policy.step + policy.seed),
        "several": lambda policy: {"all": 1, f"seed-{policy.seed}": float("nan")},
    }
    result = train(**COUNTER, seeds=2, evaluate_every=100, evaluators=evaluators)
    for line in metrics_of(result.directory):
        found = {name: value for name, value in line.items() if name.startswith("evaluator/")}
        expected = {
            "evaluator/number": 10 * line["step"] + line["seed"],
            "evaluator/several/all": 1,
            "evaluator/several/seed-0": None,
            "evaluator/several/seed-1": None,
        }
        assert found == (expected if line["step"] % 100 == 0 else {})
    assert [run["evaluator/number"] for run in result.summary["runs"]] == [2000, 2001]


def test_an_evaluator_sees_the_policy_and_its_critics_in_the_machines_units(train, log):
    """Pendulum's torque spans [-2, 2]; rewards are halved, and observations standardised, inside."""
    seen = {}
    observation, action = np.random.default_rng(0).normal(size=(2, 7, 3)), np.ones((2, 7, 1))

    def look(policy):
        seen[policy.step, policy.seed] = (policy, policy(observation))
        return 0.0

    result = train(
        "h2o", real=log, sim="Pendulum-v1", seeds=2, steps=200, evaluate_every=100, checkpoint_every=200,
        reward_scale=0.5, normalise_observations=True, evaluators={"look": look},
    )  # fmt: skip
    for policy, actions in seen.values():
        np.testing.assert_array_equal(policy(observation), actions, "it stays as it was")
    assert (seen[100, 0][1] != seen[200, 0][1]).any()
    expected = simtrust.Policy(result.directory)(np.stack([observation.reshape(-1, 3)] * 2))
    arrays = load_file(result.directory / "checkpoints" / "state-000000000200.safetensors")
    scaling = seen[200, 0][0].scaling
    inside = np.concatenate([scaling.observe(observation), action / 2], -1)
    for seed in (0, 1):
        policy, actions = seen[200, seed]
        assert actions.shape == (2, 7, 1)
        np.testing.assert_allclose(actions.reshape(-1, 1), expected[seed], atol=1e-5)
        np.testing.assert_allclose(
            policy.value(observation, action), least_critic(arrays, seed, inside) / 0.5, rtol=1e-4, atol=1e-4
        )


def least_critic(arrays: dict[str, np.ndarray], run: int, inputs: np.ndarray) -> np.ndarray:
    """min_e Q_e, from a checkpoint's arrays: one hidden layer of ReLUs."""
    first, last = (
        {part: arrays[f".critic.members.layers[{n}].{part}"][run] for part in ("weight", "bias")}
        for n in (0, 1)
    )
    values = [
        np.maximum(inputs @ first["weight"][e] + first["bias"][e], 0) @ last["weight"][e] + last["bias"][e]
        for e in range(len(first["bias"]))
    ]
    return np.min(values, axis=0)[..., 0]


def fails(policy):
    raise LookupError("no such row")


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        (fails, r"^evaluator 'bad' raised LookupError: no such row"),
        (
            lambda policy: "1.0",
            r"^evaluator 'bad' returned '1\.0'; it must return a number, or a dict of numb",
        ),
        (lambda policy: {"a": [1, 2]}, r"^evaluator 'bad' returned \{'a': \[1, 2\]\}; it must return"),
        (lambda policy: None, r"^evaluator 'bad' returned None; it must return"),
    ],
)
def test_an_error_in_an_evaluator_loses_nothing(train, misbehaving, tmp_path, evaluator, message):
    good = {"good": lambda policy: 7.0}
    with pytest.raises(CallbackError, match=message) as caught:
        train(**COUNTER, evaluate_every=50, evaluators={**good, "bad": evaluator, "late": fails})
    (line,) = metrics_of(tmp_path / "run")
    assert (line["return_mean"], line["evaluator/good"]) == (30, 7.0)
    assert saved_step(tmp_path / "run") == 50
    assert (
        f"simtrust.resume('{tmp_path}/run', sim='misbehaving:truncating', evaluators=...)"
        in caught.value.__notes__[0]
    )
    with pytest.raises(
        RunError, match=r"begun with the evaluators \['bad', 'good', 'late'\], not \['good'\]"
    ):
        simtrust.resume(tmp_path / "run", quiet=True, **SIM, evaluators=good)
    mended = dict.fromkeys(("good", "bad", "late"), good["good"])
    result = simtrust.resume(tmp_path / "run", quiet=True, **SIM, evaluators=mended)
    assert [line.get("evaluator/bad") for line in metrics_of(result.directory)] == [7, 7, 7, 7]


@pytest.mark.parametrize(
    ("evaluators", "message"),
    [({"": fails}, "name is ''; give a text"), ({"a": 3.0}, "evaluator 'a' is 3.0; give a function")],
)
def test_what_is_no_evaluator_is_refused_before_any_work(train, tmp_path, evaluators, message):
    with pytest.raises(ConfigError, match=message):
        train(**COUNTER, evaluators=evaluators)
    assert not (tmp_path / "run").exists()
