"""The correction that was left out is the one that is found."""

from dataclasses import replace

import numpy as np
import pytest

from simtrust.gap import actuator_error as actuator_error_module
from simtrust.gap import corrections as corrections_module
from simtrust.gap.actuator_error import actuator_error
from simtrust.gap.corrections import fit_corrections
from simtrust.gap.replay_probe import replay
from simtrust.simulators import parse_shifts


@pytest.mark.parametrize(
    ("shift", "kind", "amount"),
    [("gravity=2", "gravity", 1.0), ("friction=0.3", "friction", 1.0), ("delay=1", "delay", 0.0)],
)
def test_undoing_the_shift_explains_the_gap(cheetah, shift, kind, amount):
    best, *others = fit_corrections(cheetah, "HalfCheetah-v5", shifts=parse_shifts([shift]), rows=200)
    assert best.kind == kind
    np.testing.assert_allclose(best.fitted, amount, atol=0.03)
    assert best.explained > 0.9
    assert all(other.explained < 0.5 for other in others)


def test_what_else_the_simulator_has_stays_while_one_thing_is_corrected(record, tmp_path):
    heavy = record(tmp_path / "log.hdf5", "HalfCheetah-v5", ["delay=1", "mass=1.5"])
    both = parse_shifts(["delay=1", "gravity=2", "mass=1.5"])
    best, *_ = fit_corrections(heavy, "HalfCheetah-v5", shifts=both, rows=100)
    assert best.kind == "gravity"
    assert best.explained > 0.99


@pytest.mark.parametrize("best", [0.25, 0.27, 1.0, 1.1, 3.8, 4.0])
def test_the_best_factor_is_found_wherever_it_lies(best):
    found = corrections_module._best_factor(lambda factor: abs(np.log(factor / best)), 0.25, 4.0)
    assert found == pytest.approx(best, rel=0.03)


@pytest.mark.parametrize("best", [0.0, 0.02, 0.5, 0.57, 0.97, 1.0])
def test_the_best_amount_is_found_wherever_it_lies(best):
    found = corrections_module._best_amount(lambda amount: abs(amount - best), 1.0)
    assert found == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(("count", "rows"), [(2, [0, 599]), (3, [0, 299, 599]), (9_999, list(range(600)))])
def test_rows_are_spread_from_the_first_to_the_last(cheetah, count, rows):
    assert corrections_module.spread_rows(cheetah, count).tolist() == rows


def test_what_the_machine_has_and_the_simulator_has_not_is_found(record, tmp_path):
    real = record(tmp_path / "log.hdf5", "HalfCheetah-v5", ["dead-zone=0.2"])
    best, *_ = fit_corrections(real, "HalfCheetah-v5", rows=200)
    assert best.kind == "dead-zone"
    np.testing.assert_allclose(best.fitted, 0.2, atol=0.02)
    assert str(best).startswith("dead-zone 0.2 in place of 0 explains ")


def test_a_dead_zone_is_looked_for_in_the_actions_own_units(record, tmp_path):
    """The robot's actions reach 4, the cheetah's 1."""
    real = record(tmp_path / "log.hdf5", "StandingStill-v0", ["dead-zone=0.3"])
    best, *_ = fit_corrections(real, "StandingStill-v0", rows=100)
    assert best.kind == "dead-zone"
    np.testing.assert_allclose(best.fitted, 0.3, atol=0.02)


def test_a_right_simulator_needs_no_correction(cheetah):
    for correction in fit_corrections(cheetah, "HalfCheetah-v5", rows=100):
        np.testing.assert_allclose(correction.fitted, correction.present, atol=0.02)


def test_actuator_noise_is_told_from_a_systematic_error_and_from_gravity(cheetah, record, tmp_path):
    noisy, heavy = (
        actuator_error(cheetah, "HalfCheetah-v5", shifts=parse_shifts([shift]), rows=300)
        for shift in ("joint-noise=0.05", "gravity=2")
    )
    weak = actuator_error(
        record(tmp_path / "log.hdf5", "StandingStill-v0", ["dead-zone=0.3"]), "StandingStill-v0", rows=300
    )
    assert noisy.explained > 0.8
    assert noisy.systematic < 0.3
    np.testing.assert_allclose(noisy.spread, 0.05, rtol=0.5)
    assert weak.explained > 0.8
    assert weak.systematic > 0.6
    assert heavy.explained < 0.5


def test_a_constant_actuator_error_is_systematic(cheetah):
    action = np.clip(cheetah.transitions.action, -0.8, 0.8)
    told = replace(cheetah, transitions=cheetah.transitions._replace(action=action))
    following = np.array(cheetah.transitions.next_observation)
    rows = replay(told, "HalfCheetah-v5")
    biased = replace(told, transitions=told.transitions._replace(action=action - np.float32(0.1)))
    following[rows.usable] = rows.predicted[rows.usable]
    log = replace(biased, transitions=biased.transitions._replace(next_observation=following))
    found = actuator_error(log, "HalfCheetah-v5", rows=300)
    assert found.systematic > 0.9
    np.testing.assert_allclose(found.spread, 0.0, atol=0.05)


def test_a_twins_own_shifts_are_what_it_has_now(record, tmp_path):
    log = record(tmp_path / "log.hdf5", "StandingStillReal-v0")
    present = {c.kind: c.present for c in fit_corrections(log, "StandingStillReal-v0", rows=30)}
    assert present == {"gravity": 1.0, "friction": 0.6, "delay": 1.0, "dead-zone": 0.3}


def test_actions_at_their_bounds_are_moved_inwards(cheetah):
    action = np.where(np.asarray(cheetah.transitions.action) > -0.4, 1.0, -1.0).astype(np.float32)
    assert np.median(action) == 1.0
    saturated = replace(cheetah, transitions=cheetah.transitions._replace(action=action))
    assert np.isfinite(actuator_error(saturated, "HalfCheetah-v5", rows=50).explained)


@pytest.mark.parametrize("rows", [60, 600])
def test_with_a_delay_no_row_receives_anothers_moved_action(record, tmp_path, rows):
    log = record(tmp_path / "log.hdf5", "StandingStill-v0")
    assert (
        actuator_error(log, "StandingStill-v0", shifts=parse_shifts(["delay=1"]), rows=rows).explained < 1e-6
    )


def test_a_simulator_that_is_exactly_right_leaves_nothing_to_explain(known_gaps):
    log = known_gaps.record_line(size=2)
    following = replay(log, "known_gaps:Line2").predicted.astype(np.float32)
    right = replace(log, transitions=log.transitions._replace(next_observation=following))
    found = actuator_error(right, "known_gaps:Line2")
    assert (found.explained, found.systematic, found.spread.tolist()) == (0.0, 0.0, [0.0])


def test_an_error_that_an_action_could_have_made_is_all_explained(known_gaps):
    """The simulator adds 0.1 to every step, as an action larger by 1 would."""
    found = actuator_error(known_gaps.record_line(size=2, rows=400, lengths=[400]), "known_gaps:Line2")
    assert found.explained == pytest.approx(1.0, abs=1e-4)
    assert found.systematic == pytest.approx(1.0, abs=1e-4)
    assert found.spread[0] == pytest.approx(0.0, abs=1e-3)


def test_without_a_delay_every_row_is_looked_at(known_gaps):
    """The simulator errs at every second row alone."""
    log = known_gaps.record_line(size=2, rows=40, lengths=[40])
    following = replay(log, "known_gaps:Line2").predicted.astype(np.float32)
    following[1::2] -= 0.1
    log = replace(log, transitions=log.transitions._replace(next_observation=following))
    assert actuator_error(log, "known_gaps:Line2").explained == pytest.approx(1.0, abs=1e-3)


def test_actions_are_moved_by_a_small_share_of_their_range(known_gaps, monkeypatch):
    """Actions of a thousandth of the bounds: a step in another unit would leave the machine's."""
    log = known_gaps.record_line(size=2)
    action = 1e-3 * np.asarray(log.transitions.action)
    log = replace(log, transitions=log.transitions._replace(action=action))
    moved = []

    def spy(dataset, *given, **options):
        now = np.asarray(dataset.transitions.action)
        moved.append(np.abs(now - action).max())
        assert action.min() <= now.min() <= now.max() <= action.max()
        return replay(dataset, *given, **options)

    monkeypatch.setattr(actuator_error_module, "replay", spy)
    assert actuator_error(log, "known_gaps:Line2").explained > 0.9
    assert moved[0] == 0.0
    assert moved[1] == pytest.approx(0.02 * np.ptp(action), rel=1e-3)


def test_the_linear_share_is_adjusted_for_the_number_of_rows():
    """Of 12 rows, 8 inputs and a constant explain three quarters of mere noise."""
    share = actuator_error_module._linear_share
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(12, 8))
    signal = inputs @ generator.normal(size=(8, 5_000))
    noise = np.sqrt(np.square(signal).mean()) * generator.normal(size=signal.shape)
    assert share(inputs, signal + 0.5 * noise) == pytest.approx(0.8, abs=0.01)
    assert share(inputs, noise) == pytest.approx(0.0, abs=0.02)
    few = [share(inputs, column[:, None]) for column in noise.T[:20]]
    # The adjusted share of noise is below 0 as often as not.
    assert min(few) == 0.0 < max(few)
    # As many unknowns as rows explain anything.
    assert share(inputs[:9], noise[:9]) == 0.0
    assert share(inputs, np.zeros((12, 1))) == 0.0
