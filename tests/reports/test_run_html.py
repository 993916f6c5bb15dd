"""A training run's page: what it shows of any run, in a browser, and that nobody's text can do anything."""

import base64
import hashlib
import io
import json
import os
import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

import simtrust
from simtrust.data import Dataset, save_dataset
from simtrust.errors import ConfigError, RunError, SimulatorError
from simtrust.evaluation.statistics import Interval
from simtrust.reports import run_report
from simtrust.reports.animation import HEIGHT, WIDTH
from simtrust.reports.run_comparison import (
    compare,
    difference_interval,
    sentence,
    siblings,
    train_command,
    unknowns,
)
from simtrust.reports.run_record import read_run
from simtrust.reports.run_report import report_run, value_bound
from simtrust.training.config import TrainConfig, config_to_json
from simtrust.training.metrics import MetricsFile
from simtrust.types import Transitions

DESK, PHONE = (1280, 800), (390, 844)
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>window.pwned=1</script>",
    "%{x} &lt;i&gt; {{plotly}} @ink",
)


H2O = TrainConfig(
    recipe="h2o", real="log.hdf5", sim="HalfCheetah-v5", shifts=("gravity=2",), steps=40_000, seeds=2
)


def metrics(config, step, generator):
    """What a round of this recipe records, indexed by run."""
    runs, share = config.seeds, step / config.steps
    noise = lambda scale=1.0: scale * generator.normal(size=runs)  # noqa: E731
    found = {
        "actor_loss": -100 * share + noise(),
        "entropy": -6 + noise(0.1),
        "temperature": np.full(runs, 0.2),
    }
    if config.recipe != "cql":
        found |= {"q_sim": 300 * share + noise(), "critic_bellman_sim": np.exp(noise())}
        found["simulator_return"] = 3000 * share + noise(50) if step > 2000 else [None] * runs
    if config.recipe != "sac":
        found |= {"q_real": 320 * share + noise(), "critic_bellman_real": np.exp(noise())}
    if config.recipe == "h2o":
        found |= {"gap": 1 + noise(0.01), "omega_max": np.full(runs, 0.02), "weight": np.full(runs, 0.3)}
        found |= {"log_ratio": 2 + noise(0.1), "critic_value_gap": noise()}
        for name in ("sa_real", "sa_sim", "sas_real", "sas_sim"):
            found[f"classifier_accuracy_{name}"] = np.full(runs, 0.9)
        found |= {"classifier_loss_sa": np.full(runs, 0.2), "classifier_loss_sas": np.full(runs, 0.1)}
    return found


def write_run(directory, config=H2O, *, returns=3000.0, until=None, every=10_000, sha="ab" * 32, **extra):
    """A run directory as training writes it, without checkpoints; ``returns`` at the end, [R] or a number."""
    directory.mkdir(parents=True)
    stored = {
        "command": "simtrust train h2o",
        "versions": {"simtrust": "0.1.0"},
        "dataset_sha256": sha,
        "scaling": {"reward_scale": 1.0, "action_low": [-1.0] * 6},
        "evaluation_environment": "HalfCheetah-v5",
        **extra,
    }
    (directory / "config.json").write_text(config_to_json(replace(config, out=str(directory)), **stored))
    generator = np.random.default_rng(0)
    final = np.broadcast_to(np.asarray(returns, float), config.seeds)
    file = MetricsFile(directory / "metrics.jsonl", 0)
    last = config.steps if until is None else until
    for step in range(1000, last + 1, 1000):
        found = metrics(config, step, generator)
        if every and step % every == 0:
            found["return_mean"] = final * step / config.steps
            found["return_std"] = np.full(config.seeds, 10.0)
        file.write(step, config.run_seeds, found)
    if until is None:
        runs = [
            {"seed": seed, "return_mean": mean, "return_std": 10.0, "episode_returns": [mean] * 5}
            for seed, mean in zip(config.run_seeds, final.tolist(), strict=True)
        ]
        (directory / "result.json").write_text(json.dumps({"steps": config.steps, "runs": runs}))
    return directory


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_section_is_there_at_any_size_and_in_any_light(tmp_path, open_page, size, scheme):
    run = write_run(tmp_path / "h2o", returns=[3000.0, 3100.0])
    write_run(tmp_path / "cql", replace(H2O, recipe="cql"), returns=[1000.0, 1100.0])
    path = report_run(run, video=False)
    assert path == run / "report.html"
    with open_page(path, size, scheme) as page:
        assert page.locator("main h2").all_inner_texts() == [
            "Learning curve",
            "Did the simulator help?",
            "Film",
            "Q",
            "u, ω and w",
            "Classifiers",
            "Losses, entropy, temperature",
            "What was checked",
            "How it was made",
        ]
        assert page.locator(".chart").count() == 16
        assert page.inner_text("h1").endswith("Return 3,050 after 40,000 steps")
        text = page.inner_text("#helped")
        assert "The simulator helped: the return is 2,000 higher than from the log alone, by cql" in text
        assert "What the log contributed is not known" in text
        assert "simtrust train sac --real log.hdf5 --sim HalfCheetah-v5 --shift gravity=2" in text
        assert page.inner_text("#made code") == "simtrust train h2o"
        assert "ab" * 32 in page.inner_text("#made")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]) < 60) == (scheme == "dark")
        assert all(page.locator(".chart").evaluate_all("all => all.map(chart => chart.ariaLabel)"))


def test_a_seed_can_be_chosen(tmp_path, open_page):
    path = report_run(write_run(tmp_path / "h2o", returns=[3000.0, 1000.0]), video=False)
    with open_page(path) as page:
        real = (
            "document.getElementById('chart-returns').data.find(line => line.name === 'real environment').y"
        )
        assert page.evaluate(real) == [500, 1000, 1500, 2000]
        page.locator("[data-figure=returns]").select_option("seed 1")
        assert page.evaluate(real) == [250, 500, 750, 1000]


def test_nobodys_text_does_anything(tmp_path, open_page):
    config = replace(H2O, real=HOSTILE[1], sim=HOSTILE[0], shifts=(HOSTILE[2],), real_env=HOSTILE[0])
    made = {"command": HOSTILE[1], "versions": {HOSTILE[0]: HOSTILE[1]}, "evaluation_environment": HOSTILE[0]}
    run = write_run(tmp_path / "<b>h2o%{x}", config, **made)
    write_run(tmp_path / "<b>s%{y}&lt;", replace(config, recipe="sac"), **made)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": HOSTILE[0], "seed": 0}) + "\n")
    with open_page(report_run(run, video=False)) as page:
        text = page.inner_text("body")
        assert all(part in text for part in HOSTILE)
        assert page.inner_text("#made code") == HOSTILE[1]
        assert page.evaluate("window.pwned") is None
        assert page.locator("img, svg a, svg b, body b").count() == 0
        legend = page.locator("#chart-comparison svg").evaluate_all("all => all.map(svg => svg.textContent)")
        assert "<b>s%{y}&lt;" in " ".join(legend)
        policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
        assert "unsafe-inline" not in policy.split("style-src")[0]


CASES = {
    "unfinished": lambda path: write_run(path, until=17_000),
    "one evaluation": lambda path: write_run(path, every=40_000),
    "evaluated at the end alone": lambda path: write_run(path, every=0),
    "no evaluation": lambda path: write_run(path, every=0, until=12_000),
    "not begun": lambda path: write_run(path, until=0),
    "one round": lambda path: write_run(path, until=1000),
    "one seed": lambda path: write_run(path, replace(H2O, seeds=1)),
    "five seeds": lambda path: write_run(path, replace(H2O, seeds=5), returns=[1.0, 2.0, 3.0, 4.0, 5.0]),
    "sac": lambda path: write_run(path, replace(H2O, recipe="sac", real=None), sha=None),
    "cql": lambda path: write_run(
        path, replace(H2O, recipe="cql", sim=None, shifts=(), real_env="Hopper-v5")
    ),
    "returns unknown": lambda path: write_run(path, returns=np.nan),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_there_is_is_shown(tmp_path, open_page, case):
    run = CASES[case](tmp_path / "run")
    with open_page(report_run(run, video=False), PHONE, "dark") as page:
        headline = page.inner_text("h1")
        assert ("Unfinished" in headline) == (not (run / "result.json").exists())
        assert ("simtrust resume" in page.inner_text("header")) == ("Unfinished" in headline)
        assert page.locator("#checks tbody tr").count() == 11


def test_damaged_lines_are_named_and_left_out(tmp_path):
    run = write_run(tmp_path / "run", replace(H2O, seeds=1))
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    bad = [b'{"step": 4', b"[1]", b'{"step": 5000, "seed": 7}', b'{"step": -1, "seed": 0}', b"[" * 100_000]
    bad += [b'{"step": 1e3, "seed": 0}', b"\xff\xfe", b'{"step": 90000, "seed": 0}']
    good = json.loads(lines[30]) | {"q_real": 10**400, "q_sim": "<b>", "weight": True, "gap": float("inf")}
    lines[30] = json.dumps(good).encode()
    (run / "metrics.jsonl").write_bytes(b"\n".join(lines[:20] + bad + lines[20:]) + b"\n")
    record = read_run(run)
    assert [line.split(": ")[0] for line in record.damaged] == [
        f"{run}/metrics.jsonl, line {number}" for number in range(21, 29)
    ]
    assert len(record.curves.steps) == 40
    for name in ("q_real", "q_sim", "weight", "gap"):
        assert np.isnan(record.curves.values[name][30, 0])
        assert np.isfinite(np.delete(record.curves.values[name], 30)).all()
    page = report_run(run, video=False).read_text("utf-8")
    assert "metrics.jsonl, line 21: left out" in page


DAMAGE = {
    "no run": ("config.json", None, "is not a run directory"),
    "config": ("config.json", lambda _: b"{", "config.json is damaged"),
    "recipe": ("config.json", lambda c: c.replace(b'"h2o"', b'"<b>"', 1), "config.json is damaged .recipe"),
    "shifts": ("config.json", lambda c: c.replace(b'"gravity=2"', b"7"), "shifts"),
    "command": ("config.json", lambda c: c.replace(b'"simtrust train h2o"', b"[1]"), "command"),
    "result": ("result.json", lambda _: b'{"runs": []}', "result.json is damaged"),
    "result's seeds": (
        "result.json",
        lambda c: c.replace(b'"seed": 0', b'"seed": "0"'),
        "result.json is damaged",
    ),
    "metrics too large": ("metrics.jsonl", lambda c: c * 9000, "larger than"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_damaged_is_named(tmp_path, case):
    name, change, said = DAMAGE[case]
    run = write_run(tmp_path / "run")
    if change is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(change((run / name).read_bytes()))
    with pytest.raises(RunError, match=said):
        report_run(run, video=False)
    assert not (run / "report.html").exists()


def test_steps_and_seeds_cannot_ask_for_much_memory(tmp_path):
    run = write_run(tmp_path / "run", replace(H2O, seeds=10_000), until=0)
    lines = [json.dumps({"step": n, "seed": n, "q_real": 1.0}) for n in range(10_000)]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(RunError, match="do not belong to one run"):
        report_run(run, video=False)


@pytest.mark.parametrize("out", ["run/config.json", "no/such/folder.html", "folder.html"])
def test_a_page_is_written_nowhere_else(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "run")
    (tmp_path / "folder.html").mkdir()
    before = (run / "config.json").read_bytes()
    with pytest.raises(ConfigError, match="--out"):
        report_run(run, out, video=False)
    assert (run / "config.json").read_bytes() == before


def test_the_difference_of_two_samples():
    ours, theirs = np.array([10.0, 12.0]), np.array([1.0, 1.0, np.nan])
    assert difference_interval(ours, theirs) == Interval(10.0, 9.0, 11.0)
    mean, low, high = difference_interval(ours[:1], theirs)
    assert mean == 9.0
    assert np.isnan([low, high]).all()
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(5, 3, 400), generator.normal(3, 4, 400)
    mean, low, high = difference_interval(ours, theirs)
    # Two independent means: the standard error is √(9/400 + 16/400) = 0.25.
    np.testing.assert_allclose([mean - low, high - mean], 1.96 * 0.25, rtol=0.1)


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ([100.0, 110.0], "The simulator helped: the return is 900 higher than from the log alone, by cql"),
        ([2000.0, 2010.0], "The simulator did harm: the return is 1,000 lower"),
        ([900.0, 1090.0], "Whether the simulator helped is not clear: the return is 10 higher"),
    ],
)
def test_a_sentence_says_whether_the_simulator_helped(tmp_path, theirs, said):
    run = read_run(write_run(tmp_path / "h2o", returns=[1000.0, 1010.0]))
    other = read_run(write_run(tmp_path / "cql", replace(H2O, recipe="cql"), returns=theirs))
    (comparison,) = compare(run, [other])
    assert sentence(comparison).startswith(said)
    elsewhere = other._replace(extra={**other.extra, "dataset_sha256": "cd" * 32})
    (unfair,) = compare(run, [elsewhere])
    assert "simulator helped" not in sentence(unfair)
    assert "trained on another log" in unfair.notes


def test_runs_of_other_lengths_are_compared_where_both_were_evaluated(tmp_path):
    run = read_run(write_run(tmp_path / "h2o", returns=[4000.0, 4000.0], until=25_000))
    other = read_run(write_run(tmp_path / "cql", replace(H2O, recipe="cql"), returns=[1000.0, 1200.0]))
    (comparison,) = compare(run, [other])
    assert comparison.difference == Interval(2000 - 550.0, 2000 - 600.0, 2000 - 500.0)
    assert any("both after 20,000 updates" in note for note in comparison.notes)


def test_siblings_have_the_same_log_or_simulator(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    cql, sac = replace(H2O, recipe="cql"), replace(H2O, recipe="sac")
    write_run(tmp_path / "another log", cql, sha="cd" * 32)
    write_run(tmp_path / "another gravity", replace(sac, shifts=("gravity=3",)))
    write_run(tmp_path / "elsewhere", sac, evaluation_environment="Hopper-v5")
    write_run(tmp_path / "not evaluated", sac, every=0, until=3000)
    (write_run(tmp_path / "damaged", sac) / "result.json").write_text("{")
    (tmp_path / "a file").write_text("")
    assert siblings(run) == []
    assert [unknown.baseline for unknown in unknowns(run, [])] == ["cql", "sac"]
    write_run(tmp_path / "one seed", replace(sac, seeds=1))
    write_run(tmp_path / "two seeds", sac)
    write_run(tmp_path / "short", replace(sac, seeds=3, steps=20_000))
    write_run(tmp_path / "cql", replace(cql, sim=None, shifts=(), real_env="HalfCheetah-v5"))
    found = {other.config.recipe: other.directory.name for other in siblings(run)}
    assert found == {"cql": "cql", "sac": "two seeds"}


@pytest.mark.parametrize("locked", ["sibling", ""])
def test_a_folder_that_may_not_be_entered_costs_no_page(tmp_path, monkeypatch, locked):
    """As if the user had no permission, which root always has."""
    run = read_run(write_run(tmp_path / "run"))
    write_run(tmp_path / "sac", replace(H2O, recipe="sac"))
    (tmp_path / "sibling").mkdir()
    stat, scandir, listdir = os.stat, os.scandir, os.listdir

    def refusing(function, refused):
        def call(path=".", *rest, **more):
            if refused(Path(os.fspath(path))):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *rest, **more)

        return call

    if locked:
        monkeypatch.setattr(os, "stat", refusing(stat, lambda path: path.parent == tmp_path / locked))
    else:
        monkeypatch.setattr(os, "scandir", refusing(scandir, lambda path: path == tmp_path))
        monkeypatch.setattr(os, "listdir", refusing(listdir, lambda path: path == tmp_path))
    assert [other.directory.name for other in siblings(run)] == (["sac"] if locked else [])


def test_the_page_tells_how_to_go_on_with_the_evaluators_of_the_run(tmp_path):
    config = replace(H2O, sim="own:make", shifts=())
    told = []
    for name, extra in (("plain", {}), ("judged", {"evaluators": ["mine"]})):
        run = write_run(tmp_path / name, config, until=3000, **extra)
        page = unescape(report_run(run, video=False).read_text("utf-8"))
        told.append((page, run))
    (plain, first), (judged, second) = told
    assert f"simtrust resume {first} --sim own:make" in plain
    assert f"simtrust.resume('{second}', sim='own:make', evaluators=...)" in judged
    assert "simtrust resume" not in judged


OWN = replace(H2O, sim="own:make", shifts=())
JUDGED = {
    "by default": (OWN, "own:make", True),
    "by a real environment of its own": (replace(OWN, real_env="machine:make"), "machine:make", False),
    "as the real environment": (replace(OWN, real_env="own:make"), "own:make", True),
    "a shifted built-in one": (H2O, "HalfCheetah-v5", False),
    "a built-in one": (replace(H2O, shifts=()), "HalfCheetah-v5", False),
    "the twin": (replace(H2O, sim="StandingStill-v0", shifts=()), "StandingStillReal-v0", False),
    "not the twin": (replace(H2O, sim="standingstill", shifts=()), "StandingStill-v0", True),
    "without a simulator": (replace(OWN, recipe="cql", sim=None), "own:make", False),
}


@pytest.mark.parametrize("case", JUDGED)
def test_a_page_tells_reality_from_the_simulator_itself(tmp_path, case):
    config, environment, itself = JUDGED[case]
    run = write_run(tmp_path / "run", config, evaluation_environment=environment, returns=[100.0, 120.0])
    write_run(
        tmp_path / "cql",
        replace(config, recipe="cql"),
        evaluation_environment=environment,
        returns=[1.0, 2.0],
    )
    page = report_run(run, video=False).read_text("utf-8")
    told = "not checked: judged in the simulator itself: nothing is known about the machine"
    assert (told in page) == itself
    # The simulated return is 3,000, far above.
    behind = "does not carry over" in page
    assert behind == (not itself and config.recipe != "cql")
    if itself:
        assert "real environment" not in page
        assert "reality gives" not in page
        assert "The simulator helped" not in page


def test_the_page_says_what_options_that_were_not_given_mean(tmp_path):
    run = write_run(tmp_path / "run")
    page = unescape(report_run(run, video=False).read_text("utf-8"))
    rows = dict(re.findall(r"<tr><t[hd][^>]*>([^<]*)</t[hd]><td[^>]*>([^<]*)</td></tr>", page))
    for name in ("dones mean", "step timeout", "real env"):
        assert rows[name] == "none"
    assert rows["buffer capacity"] == "ten times the log"
    assert rows["critic layer norm"] == "the recipe's own, or False"


def test_what_was_judged_elsewhere_is_refused(tmp_path):
    run = write_run(tmp_path / "run")
    other = write_run(tmp_path / "other", evaluation_environment="Hopper-v5")
    with pytest.raises(ConfigError, match="evaluated in Hopper-v5"):
        report_run(run, compare=[other], video=False)


def test_the_command_trains_the_same_with_another_recipe(tmp_path):
    config = replace(
        H2O,
        shifts=("gravity=2", "delay=1"),
        real="a log's.hdf5",
        reward_scale=0.5,
        track=("tensorboard",),
        algorithm=replace(H2O.algorithm, hidden_sizes=(64, 32), target_entropy=-3.0, critic_layer_norm=True),
    )
    words = shlex.split(train_command(config, "sac", tmp_path / "a b"))
    assert words[:3] == ["simtrust", "train", "sac"]
    parsed = tyro.cli(TrainConfig, args=words[2:], config=(tyro.conf.OmitArgPrefixes,))
    assert parsed == replace(config, recipe="sac", out=str(tmp_path / "a b"))


def test_the_bound_is_that_of_the_log(tmp_path):
    rows = Transitions(
        np.zeros((5, 2)), np.zeros((5, 1)), np.array([1.0, -4, 2, 0, 3]), np.ones((5, 2)), np.zeros(5)
    )
    rows = Transitions(*(np.asarray(part, np.float32) for part in rows))
    log = Dataset(rows, np.array([False] * 4 + [True]), "log", "")
    save_dataset(tmp_path / "log.hdf5", log)
    config = replace(H2O, real=str(tmp_path / "log.hdf5"))
    run = read_run(write_run(tmp_path / "run", config, scaling={"reward_scale": 0.5}))
    assert value_bound(run) == (None, f"{config.real} is another log by now")
    sha = hashlib.sha256((tmp_path / "log.hdf5").read_bytes()).hexdigest()
    bound, _ = value_bound(run._replace(extra={**run.extra, "dataset_sha256": sha}))
    assert bound == pytest.approx(4.0 * 0.5 * 100)


def test_a_film_is_in_the_page_or_beside_it(tmp_path, monkeypatch, open_page):
    run = write_run(tmp_path / "run")
    monkeypatch.setattr(run_report, "draw_film", lambda _: (GIF, "a wheel <i>turns</i>"))
    with open_page(report_run(run)) as page:
        assert page.evaluate("document.querySelector('.film').naturalWidth") == 1
        assert page.get_attribute(".film", "alt") == "a wheel <i>turns</i>"
    monkeypatch.setattr(run_report, "EMBEDDED", len(GIF))
    path = report_run(run, tmp_path / "a page #1.html")
    assert (tmp_path / "a page #1.gif").read_bytes() == GIF
    with open_page(path) as page:
        assert page.locator(".film").count() == 0
        assert page.get_attribute("#film a", "href") == "a%20page%20%231.gif"


def test_no_film_costs_no_page(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", evaluation_environment="my_module:make")
    assert "is not built in" in report_run(run).read_text("utf-8")

    def fail(_):
        raise SimulatorError("there is no <b>OpenGL</b>")

    monkeypatch.setattr(run_report, "draw_film", fail)
    assert "there is no &lt;b&gt;OpenGL&lt;/b&gt;" in report_run(run).read_text("utf-8")


GIF = bytes.fromhex("47494638396101000100800000ffffff00000021f90400000000002c00000000010001000002024401003b")
"""One pixel."""


def test_a_trained_run_is_filmed(tmp_path):
    small = {"hidden_sizes": (8,), "batch_size": 8, "evaluation_episodes": 1, "evaluate_every": 0}
    rounds = {"steps": 20, "rollout_steps": 20, "checkpoint_every": 20}
    run = simtrust.train(
        "sac", sim="StandingStill-v0", out=tmp_path / "run", quiet=True, **small, **rounds
    ).directory
    page = report_run(run).read_text("utf-8")
    if "cannot draw pictures here" in page:
        pytest.skip("no OpenGL without a display")
    assert "An episode of seed 0 after 20 steps in StandingStillReal-v0" in page
    (film,) = re.findall(r'src="data:image/gif;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(film))) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        assert getattr(picture, "n_frames", 1) > 3
        assert picture.info["duration"] == 50
        assert np.ptp(np.asarray(picture.convert("L"))) > 50
