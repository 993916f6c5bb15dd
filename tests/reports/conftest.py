"""Gap reports made of synthetic arrays: no simulator runs, no model is fitted. And pages in a browser."""

import re
import shutil
from contextlib import contextmanager

import numpy as np
import pytest

from simtrust.data import Dataset
from simtrust.gap.actuator_error import ActuatorError
from simtrust.gap.corrections import Correction
from simtrust.gap.drift import Drift
from simtrust.gap.findings import (
    Calibration,
    ClassifierEstimate,
    GapReport,
    ModelEstimate,
    PolicyTrust,
    ReplayEstimate,
    Verdict,
    WorstEpisode,
)
from simtrust.gap.regions import find_regions
from simtrust.gap.step_errors import GapErrors, Intervals, summarise
from simtrust.simulators import Shift
from simtrust.types import Transitions

CHROMIUM = shutil.which("chromium")
DRAWN = """[...document.querySelectorAll('.chart')].every(chart => {
    const svg = chart.querySelector('svg.main-svg');
    return svg && svg.clientWidth > 100 && svg.clientHeight > 100 && chart.data.length; })"""
LENGTH = 100
"""Rows of an episode."""


def transitions(generator, rows, observations, actions):
    state = np.cumsum(generator.normal(size=(rows, observations)), axis=0)
    state = (state - state.mean(0)) / state.std(0)
    action = generator.uniform(-1, 1, (rows, actions))
    following = state + 0.1 * generator.normal(size=state.shape)
    return Transitions(
        *(field.astype(np.float32) for field in (state, action, np.zeros(rows), following, np.zeros(rows)))
    )


def replayed(generator, rows, *, gravity_like):
    """Errors that grow with the first dimension, `gravity_like` times those of float32."""
    size = rows.observation.shape[1]
    strength = gravity_like * (0.05 + np.exp(1.5 * rows.observation[:, 0]) / 10)
    error = 0.015 * strength[:, None] * generator.normal(size=rows.observation.shape) * (1 + np.arange(size))
    scale = np.full(size, 0.1)
    number = np.arange(len(error))
    gap = np.sqrt(np.square(error / scale).mean(1))
    return GapErrors(number, number // LENGTH, error, scale, gap, "change")


def classified(generator, rows):
    predicted = np.linspace(0.05, 0.95, 10)
    calibration = Calibration(predicted, predicted**1.3, np.arange(10, 110, 10), 0.062)
    count = len(rows.observation)
    share = np.full(count, 1 / count)
    gap = generator.lognormal(size=count)
    return ClassifierEstimate(rows, np.log(gap), gap, share, 0.71, 0.94, calibration, True)


def worst(generator, number, size):
    real = np.cumsum(generator.normal(size=(51, size)), axis=0)
    simulated = real + np.cumsum(0.3 * generator.normal(size=real.shape), axis=0)
    simulated[40:] = np.nan
    return WorstEpisode(number, number * LENGTH, 1.5 - 0.1 * number, real, simulated)


def build(
    *,
    names=(
        "torso height (m)",
        "torso angle (rad)",
        "x-velocity (m/s)",
        "z-velocity (m/s)",
        "wheel speed (rad/s)",
    ),
    action_names=("left torque (N m)", "right torque (N m)"),
    rows=1500,
    source="logs/log.hdf5",
    seed=0,
):
    """A report with every part, of a simulator with a gap; change it with `dataclasses.replace`."""
    generator = np.random.default_rng(seed)
    logged = transitions(generator, rows, len(names), len(action_names))
    ends = np.arange(1, rows + 1) % LENGTH == 0
    ends[-1] = True
    dataset = Dataset(logged, ends, source, "0123456789abcdef" * 4)
    errors = replayed(generator, logged, gravity_like=1.0)
    drifted = np.cumsum(generator.uniform(0, 0.04, (64, 51)), axis=1)
    mean = drifted.mean(0)
    drift = Drift(Intervals(mean, 0.9 * mean, 1.1 * mean), drifted, np.arange(64), np.arange(64) < 3, "state")
    corrections = (
        Correction("gravity", 2.0, 1.004, 0.93),
        Correction("friction", 1.0, 0.7, 0.11),
        Correction("delay", 0.0, 0.0, 0.0),
        Correction("dead-zone", 0.0, 0.05, 0.02),
    )
    actuators = ActuatorError(0.41, 0.83, np.linspace(0.05, 0.2, len(action_names)))
    replay = ReplayEstimate(errors, summarise(errors, resamples=200), drift, corrections, actuators)
    simulated = transitions(generator, 400, len(names), len(action_names))
    r_squared = np.linspace(0.99, 0.71, len(names))
    error = generator.normal(size=(400, len(names)))
    model = ModelEstimate(
        r_squared=r_squared,
        r_squared_overall=0.953,
        simulated=simulated,
        error=error,
        gap=np.sqrt(np.square(error).mean(1)),
        known=np.arange(400) % 4 > 0,
        scale=np.ones(len(names)),
        floor=0.21,
        distinction=0.5,
    )
    features = np.concatenate([logged.observation, logged.action], axis=1)
    policy = PolicyTrust("runs/first", 3000, 0.23, 0.04, generator.lognormal(-3, 1.2, 3000))
    return GapReport(
        dataset=dataset,
        simulator="HalfCheetah-v5",
        shifts=(Shift("gravity", 2.0),),
        observation_names=tuple(names),
        action_names=tuple(action_names),
        replay=replay,
        model=model,
        classifier=classified(generator, simulated),
        trust=None,
        worst_episodes=tuple(worst(generator, number, len(names)) for number in range(3)),
        policy=policy,
        missing={},
        regions=find_regions(features, errors.gap, [*names, *action_names]),
        verdict=Verdict(
            gap_found=True,
            trusted_fraction=float((errors.gap <= 0.1).mean()),
            trusted_error=0.1,
            worst_dimension=names[-1],
            best_explanation=str(corrections[0]),
            confidence="high",
            reason=f"replay of {rows:,} rows of {dataset.episode_count} episodes",
        ),
    )


@pytest.fixture(scope="session", name="build")
def build_fixture():
    """``build(names=..., action_names=..., rows=..., source=..., seed=...)``."""
    return build


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH to open the page with")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser):
    """``open_page(path, size=, scheme=)``: a page, which must make no complaint and ask for nothing."""

    @contextmanager
    def opened(path, size=(1280, 800), scheme="light"):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
        )
        page = context.new_page()
        complaints, requests = [], []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.resolve().as_uri())
        for _ in range(200):
            if page.evaluate(DRAWN):
                break
            page.wait_for_timeout(50)
        assert page.evaluate(DRAWN)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not re.search(r"\b(nan|None|null|undefined)\b", page.inner_text("body"))
        yield page
        assert complaints == []
        assert [url for url in requests if not url.startswith("data:")] == [path.resolve().as_uri()]
        context.close()

    return opened
