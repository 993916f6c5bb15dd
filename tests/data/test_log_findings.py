"""What is found in a log: each defect where it was put, and nothing where there is none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.data import Dataset
from simtrust.data.action_findings import (
    ACTION_CHECKS,
    actions_outside,
    delayed_actions,
    held_actions,
    saturated_actions,
)
from simtrust.data.column_findings import (
    COLUMN_CHECKS,
    clipped_observations,
    constant_columns,
    duplicated_columns,
    duplicated_rows,
    observation_contains_action,
)
from simtrust.data.episode_findings import (
    EPISODE_CHECKS,
    broken_chain,
    constant_reward,
    few_rows,
    no_terminals,
    one_episode,
    reward_at_terminals,
    reward_scale,
    terminal_at_the_last_row,
    time_limit_as_terminal,
)
from simtrust.data.log_findings import Bounds, Finding, NotChecked, runs_of, summarised, where
from simtrust.data.timing_findings import (
    TIMING_CHECKS,
    frozen_sensors,
    jumps,
    sampling_gaps,
    sampling_jitter,
    wrapped_angles,
)
from simtrust.types import Transitions

STEP = 0.05
ALL_CHECKS = (*COLUMN_CHECKS, *ACTION_CHECKS, *TIMING_CHECKS, *EPISODE_CHECKS)


def build(lengths=(400, 400, 400), seed=0, delay=0):
    """Arrays of a damped point on a line under noisy feedback: position, velocity, cosine."""
    generator = np.random.default_rng(seed)
    fields = [[] for _ in range(4)]
    for length in lengths:
        position, velocity = generator.normal(size=2)
        queue = [0.0] * delay
        for _ in range(length):
            action = np.clip(-0.5 * position - 0.3 * velocity + generator.normal(scale=0.3), -3, 3)
            queue.append(action)
            state = (position, velocity, np.cos(3 * position))
            velocity += STEP * (queue.pop(0) - 0.1 * velocity)
            position += STEP * velocity
            following = (position, velocity, np.cos(3 * position))
            for field, value in zip(fields, (state, [action], -abs(position), following), strict=True):
                field.append(value)
    observation, action, reward, following = (np.array(field, np.float32) for field in fields)
    end = np.zeros(len(reward), bool)
    end[np.cumsum(lengths) - 1] = True
    return {
        "observation": observation,
        "action": action,
        "reward": reward,
        "next_observation": following,
        "terminated": np.zeros(len(reward), np.float32),
        "end": end,
    }


def look(arrays, *, bounds=None, **more):
    arrays = dict(arrays)
    end = arrays.pop("end")
    dataset = Dataset(Transitions(**arrays), end, "log.hdf5", "0" * 64, **more)
    return of_dataset(dataset, bounds)


def of_dataset(dataset, bounds=None):
    names = (
        [f"s{i}" for i in range(dataset.observation_size)],
        [f"a{i}" for i in range(dataset.action_size)],
    )
    return summarised(dataset, names, bounds)


def spoil(arrays, rows, column, value):
    """Set a column of the observation, in both places that hold it."""
    arrays["observation"][rows, column] = value
    before = np.asarray(rows) - 1
    inside = before[(before >= 0) & ~arrays["end"][before]]
    arrays["next_observation"][inside, column] = arrays["observation"][inside + 1, column]
    return arrays


def found(outcome):
    assert isinstance(outcome, Finding), outcome
    return outcome


@pytest.fixture
def arrays():
    return build()


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_a_sound_log_has_no_findings(seed):
    log = look(build(seed=seed), time=np.arange(1200) * STEP)
    found = {check.title: outcome for check in ALL_CHECKS if (outcome := check.find(log)) is not None}
    assert {title for title, outcome in found.items() if isinstance(outcome, Finding)} == set()
    assert set(found) == {
        "Actions outside the simulator's bounds",
        "Time limits stored as terminals",
        "Reward at terminals",
    }


def test_columns_are_summarised(arrays):
    log = look(arrays, observation_names=("x", "v", "y"), observation_units=("m", "", ""))
    position = log.columns[0]
    assert (position.kind, position.entry, position.unit) == ("observation", 0, "m")
    values = arrays["observation"][:, 0]
    expected = [values.min(), values.mean(dtype=float), values.max(), values.std(dtype=float)]
    np.testing.assert_allclose(
        [position.low, position.mean, position.high, position.std], expected, rtol=1e-6
    )
    assert position.distinct == len(np.unique(values))


def test_units_are_read_from_names_where_the_log_has_none(arrays):
    dataset = look(arrays).dataset
    log = summarised(dataset, (["angle (rad)", "v", "y"], ["torque (N m)"]))
    assert [(c.name, c.unit) for c in log.columns[::3]] == [("angle", "rad"), ("torque", "N m")]


def test_a_place_names_the_row_of_the_file(arrays):
    log = look(spoil(arrays, [500], 1, 99.0), file_row=np.arange(1200) * 2)
    finding = found(jumps(log))
    assert where(log, finding.places[0]).startswith("episode 1, row 998, observation 1 's1': ")


def test_constant_columns(arrays):
    arrays["observation"][:, 2] = arrays["next_observation"][:, 2] = 7
    finding = found(constant_columns(look(arrays)))
    assert finding.severity == "warning"
    assert [place.column for place in finding.places] == [2]
    arrays["action"][:] = 1
    assert found(constant_columns(look(arrays))).severity == "error"


@pytest.mark.parametrize(("factor", "severity"), [(1.0, "warning"), (-57.3, "note")])
def test_duplicated_columns(arrays, factor, severity):
    for field in ("observation", "next_observation"):
        arrays[field][:, 2] = factor * arrays[field][:, 0] + (factor != 1)
    finding = found(duplicated_columns(look(arrays)))
    assert finding.severity == severity
    assert [place.column for place in finding.places] == [2]


def test_columns_that_drift_alike_but_move_differently_are_no_duplicates(arrays):
    drift = np.arange(1200)
    for field, shift in (("observation", 0), ("next_observation", 1)):
        arrays[field][:, 0] += drift + shift
        arrays[field][:, 1] += drift + shift
    assert np.corrcoef(arrays["observation"][:, :2].T)[0, 1] > 0.9999
    assert duplicated_columns(look(arrays)) is None


def test_an_episode_that_is_there_twice(arrays):
    for field in ("observation", "action", "reward", "next_observation"):
        arrays[field][800:] = arrays[field][:400]
    finding = found(duplicated_rows(look(arrays)))
    assert finding.severity == "warning"
    assert "1 episodes" in finding.found and "400 rows" in finding.found
    assert finding.places[0].row == 800 and "episode 0" in finding.places[0].detail


def test_a_machine_at_rest_repeats_no_rows(arrays):
    for field in ("observation", "next_observation", "action", "reward"):
        arrays[field][600:700] = 0
    assert duplicated_rows(look(arrays)) is None
    arrays["next_observation"][600:700] = 1
    assert found(duplicated_rows(look(arrays))).found.startswith("99 rows")


def test_clipped_observations(arrays):
    arrays["observation"][:, 1] = np.minimum(np.random.default_rng(0).normal(size=1200), 1)
    finding = found(clipped_observations(look(arrays)))
    assert (finding.severity, finding.places[0].column) == ("note", 1)
    share = (arrays["observation"][:, 1] == 1).mean()
    assert finding.places[0].detail == f"1 in {share:.1%} of rows"
    # As often at its end, but resting there once.
    arrays["observation"][:, 1] = np.sort(arrays["observation"][:, 1])
    assert clipped_observations(look(arrays)) is None


@pytest.mark.parametrize("own_row", [True, False])
def test_observations_that_contain_the_action(arrays, own_row):
    action = arrays["action"][:, 0]
    if own_row:
        arrays["observation"][:, 2] = action
        arrays["next_observation"][:-1, 2] = action[1:]
    else:
        arrays["next_observation"][:, 2] = action
        arrays["observation"][1:, 2] = action[:-1]
    finding = found(observation_contains_action(look(arrays)))
    assert finding.severity == ("warning" if own_row else "note")
    assert [place.column for place in finding.places] == [2]


def test_saturated_actions(arrays):
    arrays["action"] = arrays["action"].clip(-0.3, 0.3)
    finding = found(saturated_actions(look(arrays)))
    assert finding.severity == "note"
    bounds = Bounds(np.array([-3.0]), np.array([3.0]))
    assert saturated_actions(look(arrays, bounds=bounds)) is None


def test_actions_outside(arrays):
    assert isinstance(actions_outside(look(arrays)), NotChecked)
    arrays["action"][:] = arrays["action"].clip(-1, 1)
    bounds = Bounds(np.array([-1.0]), np.array([1.0]))
    assert actions_outside(look(arrays, bounds=bounds)) is None
    arrays["action"][[7, 9], 0] = -1.5, 1 + 1e-6
    finding = found(actions_outside(look(arrays, bounds=bounds)))
    assert finding.severity == "error"
    assert finding.found.startswith("1 rows")
    assert (finding.places[0].row, finding.places[0].column) == (7, 3)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_held_actions(arrays, rows):
    held = np.arange(1200) // rows * rows
    arrays["action"] = arrays["action"][held]
    outcome = held_actions(look(arrays))
    assert outcome is None if rows == 1 else f"for {rows} rows" in found(outcome).found


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_delayed_actions(delay):
    outcome = delayed_actions(look(build((2000, 2000), delay=delay)))
    assert outcome is None if delay == 0 else f"of {delay} row" in found(outcome).found


def test_jumps_and_spikes(arrays):
    step = spoil(arrays, [500], 1, 99.0)
    step["observation"][900:1200, 0] += 40
    step["next_observation"][899:1200, 0] += 40
    finding = found(jumps(look(step)))
    assert finding.severity == "warning"
    assert finding.found.startswith("2 sudden jumps in 2 columns")
    assert {(place.row, place.column) for place in finding.places} == {(499, 1), (899, 0)}


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_heavy_tails_are_no_jumps(seed):
    generator = np.random.default_rng(seed)
    arrays = build(seed=seed)
    # A contact in every tenth row, of any strength up to 30 times the usual change.
    strength = generator.uniform(0, 30, 1200) * (generator.uniform(size=1200) < 0.1)
    arrays["next_observation"][:, 1] += STEP * strength * generator.normal(size=1200).clip(-1, 1)
    assert jumps(look(arrays)) is None


@pytest.mark.parametrize("period", [2 * np.pi, 360.0])
def test_wrapped_angles_are_told_and_are_no_jumps(arrays, period):
    turned = np.cumsum(np.append(0, np.random.default_rng(0).normal(0.02, 0.01, 1200))) * period
    wrapped = ((turned + period / 2) % period - period / 2).astype(np.float32)
    arrays["observation"][:, 0], arrays["next_observation"][:, 0] = wrapped[:-1], wrapped[1:]
    log = look(arrays)
    finding = found(wrapped_angles(log))
    place = finding.places[0]
    assert place.column == 0 and place.row == np.flatnonzero(np.abs(np.diff(wrapped)) > period / 2)[0]
    assert jumps(log) is None


def test_frozen_sensors(arrays):
    frozen = spoil(arrays, np.arange(450, 500), 1, arrays["observation"][450, 1])
    finding = found(frozen_sensors(look(frozen)))
    assert (finding.places[0].row, finding.places[0].column) == (450, 1)
    assert "50 rows" in finding.found


def test_a_machine_at_rest_has_no_frozen_sensor(arrays):
    for column in range(3):
        spoil(arrays, np.arange(450, 500), column, arrays["observation"][450, column])
    assert frozen_sensors(look(arrays)) is None


def test_sampling_time(arrays):
    assert isinstance(sampling_gaps(look(arrays)), NotChecked)
    time = np.arange(1200) * STEP
    # A pause between episodes is none of their gaps.
    time[400:] += 100
    assert sampling_gaps(look(arrays, time=time)) is None
    time[600:] += 3 * STEP
    finding = found(sampling_gaps(look(arrays, time=time)))
    assert "about 3 samples" in finding.found
    assert finding.places[0].row == 599
    assert sampling_jitter(look(arrays, time=time)) is None
    uneven = time + STEP * np.random.default_rng(0).uniform(0, 0.4, 1200)
    assert found(sampling_jitter(look(arrays, time=uneven))).severity == "warning"
    assert found(sampling_gaps(look(arrays, time=-time))).severity == "error"


def test_a_time_limit_stored_as_terminal(arrays):
    arrays["terminated"][arrays["end"]] = 1
    finding = found(time_limit_as_terminal(look(arrays)))
    assert finding.found.startswith("All 3 of 3")
    # Falls at other times beside it, as in D4RL's first version.
    mixed = build((400, 230, 400, 31, 400))
    mixed["terminated"][mixed["end"]] = 1
    assert found(time_limit_as_terminal(look(mixed))).found.startswith("3 of 5")


def test_falls_at_any_time_are_no_time_limit():
    falls = build((310, 230, 400, 31, 120))
    falls["terminated"][falls["end"]] = 1
    falls["terminated"][939] = 0
    assert time_limit_as_terminal(look(falls)) is None


def test_terminals_that_are_missing_or_last():
    varying = build((310, 230, 400, 31, 120))
    assert found(no_terminals(look(varying))).severity == "note"
    assert no_terminals(look(build((300,) * 5))) is None
    varying["terminated"][-1] = 1
    assert found(terminal_at_the_last_row(look(varying))).places[0].row == 1090
    varying["terminated"][309] = 1
    assert terminal_at_the_last_row(look(varying)) is None


def test_rewards(arrays):
    arrays["reward"][:] = 1
    assert found(constant_reward(look(arrays))).severity == "error"
    arrays["terminated"][-1] = 1
    assert found(constant_reward(look(arrays))).severity == "note"
    arrays["reward"][700] = 0
    assert "99.917%" in found(constant_reward(look(arrays))).found
    arrays["reward"] = build()["reward"] * 1e4
    assert reward_scale(look(build())) is None
    assert found(reward_scale(look(arrays))).severity == "note"


def test_reward_at_terminals():
    arrays = build((100,) * 10)
    arrays["terminated"][arrays["end"]] = 1
    assert reward_at_terminals(look(arrays)) is None
    arrays["reward"][arrays["end"]] -= 100
    assert "-10" in found(reward_at_terminals(look(arrays))).found


def test_small_logs():
    small = look(build((30,)))
    assert found(few_rows(small)).severity == found(one_episode(small)).severity == "warning"
    assert few_rows(look(build((500, 500)))) is None


def test_rows_that_are_missing_or_in_no_order(arrays):
    kept = np.delete(np.arange(1200), slice(500, 520))
    gap = {name: values[kept] for name, values in arrays.items()}
    finding = found(broken_chain(look(gap)))
    assert (finding.severity, finding.places[0].row) == ("warning", 499)
    order = np.random.default_rng(0).permutation(1200)
    shuffled = {name: values[order] for name, values in arrays.items()}
    shuffled["end"] = arrays["end"]
    assert found(broken_chain(look(shuffled))).severity == "note"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_stretches(flags):
    held, cut = (np.array(part) for part in zip(*flags, strict=True))
    start, length = runs_of(held, cut)
    expected, current = [], None
    for i, (flag, ends) in enumerate(flags):
        if flag and current is None:
            current = i
        if current is not None and (ends or i + 1 == len(flags) or not flags[i + 1][0]):
            expected.append((current, i + 1 - current))
            current = None
    assert list(zip(start.tolist(), length.tolist(), strict=True)) == expected


@pytest.mark.parametrize("rows", [1, 2, 3, 30])
def test_no_check_fails_on_few_rows(rows):
    arrays = {name: values[:rows] for name, values in build((30,)).items()}
    arrays["end"][-1] = True
    log = look(arrays, time=np.arange(rows) * STEP)
    assert all(isinstance(check.find(log), Finding | NotChecked | None) for check in ALL_CHECKS)


def test_no_check_changes_the_log(arrays):
    dataset = look(arrays, time=np.arange(1200) * STEP).dataset
    before = [field.copy() for field in dataset.transitions]
    log = of_dataset(replace(dataset), Bounds(np.array([-1.0]), np.array([1.0])))
    for check in ALL_CHECKS:
        check.find(log)
    assert all(map(np.array_equal, dataset.transitions, before))
