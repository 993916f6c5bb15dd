"""The report as a whole: what it finds, what it does not, and what it says."""

import json
import runpy
from dataclasses import replace
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from PIL import Image

import simtrust
from simtrust import measuring
from simtrust.data import save_dataset
from simtrust.data.dataset import columns_from_rows
from simtrust.errors import ConfigError, DataError, RunError, ShiftError, SimulatorError
from simtrust.gap import measure
from simtrust.gap.corrections import Correction
from simtrust.gap.dimensions import dimension_names
from simtrust.gap.findings import ClassifierEstimate, ModelEstimate
from simtrust.gap.replay_probe import replay
from simtrust.gap.simulator_gap import FittedSimulatorGap, RowGaps
from simtrust.gap.step_errors import step_errors
from simtrust.gap.trust_model import FittedTrust, TrustAssessment
from simtrust.gap.verdict import NOTICED, PERHAPS, TRUSTED, judge
from simtrust.reports.gap_summary import to_json, to_text
from simtrust.types import Transitions

SIZE = {"members": 2, "elites": 2, "hidden_sizes": (32,), "epochs": 3}


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Small models and few rows: what is tested here is what becomes of them."""
    patch = pytest.MonkeyPatch()
    for options in ("SIMULATOR_GAP_OPTIONS", "TRUST_MODEL_OPTIONS"):
        patch.setattr(measure, options, replace(getattr(measure, options), **SIZE))
    classifier = replace(measure.CLASSIFIER_OPTIONS, hidden_sizes=(16,), updates=250, batch_size=64)
    patch.setattr(measure, "CLASSIFIER_OPTIONS", classifier)
    patch.setattr(measure, "PROBE_ROWS", 600)
    patch.setattr(measure, "POLICY_ROWS", 200)
    patch.setattr(measure, "EXPLAINED_ROWS", 120)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def shifted(cheetah, tmp_path_factory):
    out = tmp_path_factory.mktemp("gap") / "report"
    return simtrust.measure_gap(cheetah, "HalfCheetah-v5", shifts=["gravity=2"], out=out, quiet=True), out


def test_a_shift_is_found_and_named(shifted):
    verdict = shifted[0].verdict
    assert verdict.gap_found
    assert verdict.worst_dimension in ("z-velocity (m/s)", "torso height (m)")
    assert verdict.best_explanation.startswith("gravity 1 in place of 2 explains ")
    assert verdict.confidence == "high"
    assert verdict.trusted_fraction < 0.5


@pytest.mark.parametrize("simulator", ["HalfCheetah-v5", "Hopper-v5", "StandingStill-v0"])
def test_a_right_simulator_raises_no_alarm(record, tmp_path, simulator):
    log = record(tmp_path / "log.hdf5", simulator)
    report = simtrust.measure_gap(log, simulator, quiet=True)
    assert not report.verdict.gap_found
    assert report.verdict.trusted_fraction > 0.99
    assert (report.verdict.worst_dimension, report.verdict.best_explanation) == (None, None)
    assert "no dynamics gap found" in to_text(report)


def test_a_small_gap_counts_if_something_explains_it(cheetah):
    """At gravity 1.03 the mean error is below what is noticed by itself, but it is no floor of the log's."""
    report = simtrust.measure_gap(cheetah, "HalfCheetah-v5", shifts=["gravity=1.03"], quiet=True)
    assert PERHAPS < float(report.replay.summary.gap.mean) < NOTICED
    assert report.verdict.gap_found
    assert report.verdict.best_explanation.startswith("gravity 1 in place of 1.03 explains ")


@pytest.mark.parametrize(
    ("mean", "explained", "found"),
    [
        (1.1 * NOTICED, 0.0, True),
        (0.9 * NOTICED, 0.0, False),
        (0.9 * NOTICED, 0.57, False),
        (0.9 * NOTICED, 0.9, True),
    ],
)
def test_a_gap_is_announced_by_its_size_or_its_cause(shifted, mean, explained, found):
    """What observations do not tell of a state looks a little like a wrong friction: 57 % on the robot."""
    replayed = shifted[0].replay
    summary = replayed.summary._replace(gap=replayed.summary.gap._replace(mean=mean))
    correction = Correction("friction", 1.0, 0.1, explained)
    replayed = replace(replayed, summary=summary, corrections=(correction,), actuators=None)
    assert judge(replayed, None, shifted[0].observation_names).gap_found == found


def test_noise_in_the_actions_is_named(cheetah):
    report = simtrust.measure_gap(cheetah, "HalfCheetah-v5", shifts=["joint-noise=0.1"], quiet=True)
    assert report.verdict.best_explanation.startswith("noise in the actions explains ")


def test_a_simulator_that_cannot_be_set_is_measured_by_a_model(tmp_path):
    env = gymnasium.make("Pendulum-v1")
    generator, rows = np.random.default_rng(0), 600
    columns = {key: [] for key in ("observations", "actions", "rewards", "next_observations")}
    observation, _ = env.reset(seed=0)
    for row in range(rows):
        action = generator.uniform(-2, 2, 1).astype(np.float32)
        following, reward, _, _, _ = env.step(action)
        for column, value in zip(columns.values(), (observation, action, reward, following), strict=True):
            column.append(np.array(value, np.float32))
        observation = env.reset()[0] if (row + 1) % 200 == 0 else following
    env.close()
    ends = np.arange(1, rows + 1) % 200 == 0
    log = {key: np.stack(value) for key, value in columns.items()}
    path = simtrust.save_dataset(
        tmp_path / "log.hdf5", log | {"terminals": np.zeros(rows, bool), "timeouts": ends}
    )
    report = simtrust.measure_gap(path, PendulumEnv, out=tmp_path / "out", quiet=True)
    assert report.replay is None
    assert f"{PendulumEnv.__module__}:PendulumEnv" in report.missing["replay"]
    assert report.classifier is not None
    assert report.trust is not None
    assert (tmp_path / "out" / "trust.onnx").exists()
    assert report.observation_names == ("observation 0", "observation 1", "observation 2")
    assert report.verdict.confidence in ("medium", "low")
    assert "held-out R²" in report.verdict.reason
    assert report.missing["replay"] in to_text(report)
    assert json.loads((tmp_path / "out" / "gap.json").read_text())["replay"] is None


def test_the_file_says_what_the_report_says(shifted):
    report, out = shifted
    stored = json.loads((out / "gap.json").read_text())
    assert stored["verdict"] == vars(report.verdict)
    assert stored["log"]["sha256"] == report.dataset.sha256
    assert stored["classifier"]["omega_of_worst_tenth"] == report.classifier.share_of_worst_tenth
    assert stored["simulator"] == {"name": "HalfCheetah-v5", "shifts": ["gravity=2.0"]}
    z_velocity = stored["replay"]["dimensions"]["z-velocity (m/s)"]["bias"]["mean"]
    index = report.observation_names.index("z-velocity (m/s)")
    np.testing.assert_allclose(z_velocity, np.nanmean(report.replay.errors.error[:, index]), rtol=1e-6)
    assert z_velocity < 0
    assert stored["replay"]["corrections"][0]["kind"] == "gravity"
    np.testing.assert_allclose(sum(region["share"] for region in stored["regions"]), 1.0)
    assert stored["missing"] == {}
    assert "simtrust.measure_gap(" in stored["command"]


def test_json_holds_no_number_that_json_does_not_have(shifted):
    content = to_json(shifted[0], "a command")
    json.dumps(content, allow_nan=False)


@pytest.mark.parametrize("name", ["gap-dimensions.png", "gap-drift.png"])
def test_pictures_are_drawn(shifted, name):
    with Image.open(shifted[1] / name) as picture:
        assert len(picture.convert("RGB").getcolors(10**6)) > 5


def test_equal_seeds_give_equal_reports(cheetah, shifted):
    again = simtrust.measure_gap(cheetah, "HalfCheetah-v5", shifts=["gravity=2"], quiet=True)
    assert to_json(again, "") == to_json(shifted[0], "")


def test_rewards_change_nothing(cheetah, shifted, tmp_path):
    """A person with only observations and actions gets the report that one with rewards gets."""
    arrays = {key: values for key, values in columns_from_rows(cheetah).items() if key != "rewards"}
    file = save_dataset(tmp_path / "log.hdf5", arrays)
    report = simtrust.measure_gap(
        file, "HalfCheetah-v5", shifts=["gravity=2"], out=tmp_path / "gap", quiet=True
    )
    assert not report.dataset.has_rewards

    def found(report):
        return {key: value for key, value in to_json(report, "").items() if key != "log"}

    assert found(report) == found(shifted[0])
    assert to_text(report).replace(str(file), "") == to_text(shifted[0]).replace(cheetah.source, "")
    assert (tmp_path / "gap" / "report.html").exists() and (tmp_path / "gap" / "trust.npz").exists()


def test_nothing_is_overwritten(cheetah, shifted):
    with pytest.raises(RunError, match="already holds a gap report"):
        simtrust.measure_gap(cheetah, "HalfCheetah-v5", out=shifted[1], quiet=True)


def test_a_log_of_another_machine_is_refused_at_once(cheetah):
    with pytest.raises(DataError, match="Hopper-v5"):
        simtrust.measure_gap(cheetah, "Hopper-v5", quiet=True)


def test_a_shift_that_changes_nothing_is_refused_at_once(cheetah):
    with pytest.raises(ShiftError, match="changes nothing"):
        simtrust.measure_gap(cheetah, "HalfCheetah-v5", shifts=["gravity=1"], quiet=True)


def test_a_failing_part_costs_nothing_but_itself(record, tmp_path):
    log = record(tmp_path / "log.hdf5", "HalfCheetah-v5")
    few = log.transitions._replace(**{k: np.asarray(v)[:6] for k, v in log.transitions._asdict().items()})
    short = replace(log, transitions=few, episode_end=np.arange(6) == 5)
    report = simtrust.measure_gap(short, "HalfCheetah-v5", shifts=["gravity=2"], quiet=True)
    assert report.verdict.gap_found
    assert report.model is None
    assert "too few to fit the dynamics" in report.missing["model"]
    assert report.missing["model"] in to_text(report)
    assert "interval unknown: one episode" in to_text(report)
    assert to_json(report, "")["model"] is None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"simulator": "HalfCheeta-v5"}, SimulatorError, "did you mean HalfCheetah-v5"),
        ({"shifts": ["gravty=2"]}, ShiftError, "did you mean 'gravity'"),
        ({"policy": "gone"}, RunError, "gone is not a run directory"),
        ({"step_timeout": -1.0}, ConfigError, "--step-timeout"),
    ],
    ids=["simulator", "shift", "policy", "time limit"],
)
def test_names_are_refused_before_the_log_is_read(monkeypatch, change, error, message):
    def read(*_, **__):
        raise AssertionError("read")

    monkeypatch.setattr(measuring, "load_dataset", read)
    with pytest.raises(error, match=message):
        simtrust.measure_gap("log.csv", **{"simulator": "HalfCheetah-v5", "quiet": True, **change})


def test_a_negative_seed_is_refused_at_once(cheetah):
    with pytest.raises(ConfigError, match="--seed is -1"):
        simtrust.measure_gap(cheetah, "HalfCheetah-v5", seed=-1, quiet=True)


def test_every_part_is_there(shifted):
    report, folder = shifted
    assert report.missing == {}
    assert 0 <= report.classifier.area_transition <= 1
    np.testing.assert_allclose(report.classifier.share.sum(), 1.0, rtol=1e-6)
    assert 0.1 < report.classifier.share_of_worst_tenth <= 1
    assert report.model.distinction > 0
    assert len(report.worst_episodes) > 0
    assert report.trust.rank_correlation > 0
    written = {"gap.json", "report.html", "gap-map.png", "trust.onnx", "trust.npz", "trust_runner.py"}
    assert written <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("share", "worst"), [([0.05] * 20, 0.1), ([0.3, 0.01, 0.2, *[0.49 / 17] * 17], 0.5), ([0.9, 0.1], 0.9)]
)
def test_omega_of_the_worst_tenth(share, worst):
    found = ClassifierEstimate.share_of_worst_tenth.fget(SimpleNamespace(share=np.array(share)))
    assert found == pytest.approx(worst)


def test_the_trust_model_knows_the_gap(shifted):
    report, folder = shifted
    runner = runpy.run_path(str(folder / "trust_runner.py"))["TrustRunner"](folder / "trust.npz")
    rows = report.dataset.transitions
    found = runner(rows.observation[:200], rows.action[:200])
    truth = report.replay.errors.gap[:200]
    assert np.median(np.abs(found["gap"] - truth)) < 0.5 * np.median(truth)


def test_a_policy_is_followed(cheetah, tmp_path):
    size = {"hidden_sizes": (8,), "batch_size": 8, "classifier_batch_size": 8, "evaluation_episodes": 1}
    for task in ("HalfCheetah-v5", "Hopper-v5"):
        simtrust.train("sac", sim=task, steps=10, out=tmp_path / task, rollout_steps=10, **size)
    report = simtrust.measure_gap(
        cheetah, "HalfCheetah-v5", shifts=["gravity=2"], policy=tmp_path / "HalfCheetah-v5", quiet=True
    )
    assert len(report.policy.gap) == report.policy.rows == 200
    assert report.policy.low_trust == (report.policy.gap > report.verdict.trusted_error).mean()
    assert f"{report.policy.low_trust:.0%} of its time" in to_text(report)
    with pytest.raises(
        ConfigError, match="reads 11 observations and gives 3 actions; simulator HalfCheetah-v5 has 17"
    ):
        simtrust.measure_gap(cheetah, "HalfCheetah-v5", policy=tmp_path / "Hopper-v5", quiet=True)


def test_a_policys_time_is_counted_where_the_gap_is_large_and_where_it_is_unknown(known_gaps):
    class Told:
        """Of every ten rows, three err by more than what is trusted, and one is unknown."""

        def assess(self, observation, action):
            row = np.arange(len(observation)) % 10
            return TrustAssessment(
                np.where(row < 3, 1.1, 1.0) * TRUSTED, row, np.where(row < 1, 1.1, 1.0), row
            )

    still = measure.NamedPolicy("a run", lambda observation: np.zeros((len(observation), 1), np.float32))
    trust = FittedTrust(Told(), np.nan, np.zeros(0, bool))
    found = measure._follow(still, trust, "known_gaps:Line1", (), seed=0)
    assert (found.rows, found.low_trust, found.unknown) == (measure.POLICY_ROWS, 0.3, 0.1)


def test_the_model_knows_the_rows_up_to_its_limit_of_disagreement(cheetah, monkeypatch):
    found = RowGaps(np.zeros((3, 2)), np.array([1.0, 3.0, 50.0]), np.array([0.25, 0.5, 0.75]))
    fitted = FittedSimulatorGap(
        SimpleNamespace(assess=lambda rows: found, scale=np.ones(2)), np.ones(2), 1.0, 0.0, 1.0, 0.5
    )
    monkeypatch.setattr(measure, "fit_simulator_gap", lambda *_, **__: fitted)
    estimate = measure._model(cheetah, cheetah.transitions, 0, lambda *_: None)
    assert estimate.known.tolist() == [True, True, False]
    assert estimate.median == 2.0


def test_without_replay_regions_are_those_of_the_rows_that_the_model_knows(cheetah):
    """Where the first state is positive the gap is five times as large; of the unknown it is anything."""
    generator = np.random.default_rng(0)
    state, action = (generator.normal(size=(600, n)).astype(np.float32) for n in (2, 1))
    known = np.arange(600) % 3 != 0
    gap = np.where(known, np.where(state[:, 0] > 0, 5.0, 1.0), 1e3)
    zero = np.zeros(600, np.float32)
    model = ModelEstimate(
        r_squared=np.ones(2),
        r_squared_overall=1.0,
        simulated=Transitions(state, action, zero, state, zero),
        error=np.zeros((600, 2)),
        gap=gap,
        known=known,
        scale=np.ones(2),
        floor=0.0,
        distinction=1.0,
    )
    worst, rest = measure._regions(cheetah, None, model, (("first", "second"), ("action",)))
    assert (worst.gap, rest.gap) == (5.0, 1.0)
    assert worst.bounds["first"] == pytest.approx((0.0, np.inf), abs=0.05)
    assert worst.share == pytest.approx((state[known, 0] > 0).mean())


def test_a_log_that_cannot_be_replayed_is_measured_by_the_model(cheetah):
    rows = cheetah.transitions
    clipped = rows._replace(observation=np.clip(rows.observation, -10, 10).astype(np.float32))
    clipped.observation[:, 8] = 10.0
    report = simtrust.measure_gap(replace(cheetah, transitions=clipped), "Walker2d-v5", quiet=True)
    assert "can be replayed" in report.missing["replay"]
    assert report.model is not None


def test_how_far_the_replay_is_is_told(cheetah):
    told = []
    measure._replay(cheetah, "HalfCheetah-v5", [], 0, lambda *stage: told.append(stage), {})
    shares = [
        int(detail.removesuffix("%")) for stage, *details in told for detail in details if "%" in detail
    ]
    assert shares == sorted(shares)
    assert 0 < shares[0] <= shares[-1] == 100


def test_whole_episodes_are_held_out_of_the_trust_model(cheetah, monkeypatch):
    found = {}

    def spy(observation, action, error, group_end, scale, **options):
        found.update(observation=observation, group_end=group_end)

    monkeypatch.setattr(measure, "fit_trust_model", spy)
    errors = step_errors(cheetah, replay(cheetah, "HalfCheetah-v5"))
    measure._trust(cheetah, SimpleNamespace(errors=errors), None, 0)
    np.testing.assert_array_equal(found["observation"], cheetah.transitions.observation[errors.rows])
    np.testing.assert_array_equal(found["group_end"], cheetah.episode_end[errors.rows])


def test_an_action_called_like_an_observation_is_told_apart(cheetah):
    named = replace(cheetah, observation_names=tuple("abcdefghijklmnopq"), action_names=tuple("xyzaxb"))
    observation, action = dimension_names(named, "HalfCheetah-v5")
    assert observation == named.observation_names
    assert action == ("x", "y", "z", "action a", "x 2", "action b")
