"""The map's grammar, what it finds in a file, and the names that need none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrust.data.column_map import (
    conventional_columns,
    entry_name,
    parse_columns,
    read_header,
    required_fields,
    resolve_columns,
)
from simtrust.errors import ConfigError, DataError

FULL = ("observation=theta,theta_dot", "action=tau", "reward=r", "episode=ep")
HEADERS = ["t [ms]", "theta [rad]", "theta_dot (rad/s)", "tau", "r", "ep"]


def test_parse():
    assert parse_columns([*FULL, "time = t ", "terminated=fell"]) == {
        "observation": ("theta", "theta_dot"),
        "action": ("tau",),
        "reward": ("r",),
        "episode": ("ep",),
        "time": ("t",),
        "terminated": ("fell",),
    }


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            (*FULL, "observatoin=x"),
            r"unknown field 'observatoin' \(did you mean 'observation'\?\); fields are",
        ),
        ((*FULL, "zzz=x"), r"unknown field 'zzz'; fields are observation,"),
        ((*FULL, "truncated"), r"--map 'truncated': it has no '='"),
        ((*FULL, "reward=s"), r"'reward' is given twice; list its columns with commas"),
        ((*FULL, "time=t,u"), r"'time' takes one column, not 2"),
        ((*FULL, "terminated="), r"a column's name is empty; write terminated=NAME"),
        ((*FULL, "terminated=ep"), r"column 'ep' is used twice, for episode and for terminated"),
        (("observation=a,a", *FULL[1:]), r"column 'a' is used twice, for observation and for observation"),
        (FULL[1:], r"'observation' is missing; add observation=NAME"),
        ((FULL[0], *FULL[2:]), r"'action' is missing"),
        ((*FULL[:2], FULL[3]), r"'reward' is missing"),
        (FULL[:3], r"nothing says where an episode ends; add episode=NAME"),
        ((*FULL, "next_observation=n"), r"next_observation has 1 columns, observation 2"),
        ("observation=theta", r"is one text; give a list"),
    ],
)
def test_maps_that_cannot_be(columns, words):
    with pytest.raises(ConfigError, match=words):
        parse_columns(columns)


@pytest.mark.parametrize(
    ("header", "name", "unit"),
    [
        ("theta [rad]", "theta", "rad"),
        ("theta(rad/s)", "theta", "rad/s"),
        (" theta ", "theta", ""),
        ("theta [m/s^2] ", "theta", "m/s^2"),
        ("f(x) [N]", "f(x)", "N"),
        ("[rad]", "[rad]", ""),
        ("theta []", "theta", ""),
    ],
)
def test_header(header, name, unit):
    assert read_header(header) == (name, unit)


@given(
    st.text(st.characters(exclude_characters="[]()"), min_size=1).map(str.strip).filter(bool),
    st.sampled_from("[("),
)
def test_unit_is_taken_off_any_name(name, bracket):
    assert read_header(f"{name} {bracket}Nm{']' if bracket == '[' else ')'}") == (name, "Nm")


@pytest.mark.parametrize(
    "spelt", ["theta,theta_dot", "theta [rad],theta_dot (rad/s)", "theta (rad),theta_dot"]
)
def test_columns_are_named_with_or_without_unit(spelt):
    found = resolve_columns("log.csv", parse_columns([f"observation={spelt}", *FULL[1:]]), HEADERS)
    assert found["observation"] == ("theta [rad]", "theta_dot (rad/s)")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            (*FULL[:2], "reward=rr", "episode=ep"),
            r"column 'rr': wanted for reward, is not in the file.*'tau', 'r'",
        ),
        (
            ("observation=thta", *FULL[1:]),
            r"column 'thta': .*did you mean 'theta'\?.*correct --map observation=",
        ),
        (("observation=theta [deg]", *FULL[1:]), r"column 'theta \[deg\]': .*is not in the file"),
        (
            ("observation=theta,theta [rad]", *FULL[1:]),
            r"'theta \[rad\]': is used twice, for observation and",
        ),
    ],
)
def test_columns_that_are_not_there(columns, words):
    with pytest.raises(DataError, match=rf"log\.csv: .*{words}"):
        resolve_columns("log.csv", parse_columns(columns), HEADERS)


def test_one_name_in_two_units_wants_the_unit():
    headers = [*HEADERS, "theta [deg]"]
    with pytest.raises(DataError, match=r"several columns, 'theta \[rad\]', 'theta \[deg\]'.*with its unit"):
        resolve_columns("log.csv", parse_columns(FULL), headers)
    named = parse_columns(["observation=theta [deg],theta_dot", *FULL[1:]])
    assert resolve_columns("log.csv", named, headers)["observation"][0] == "theta [deg]"


def test_a_header_spelt_the_same_wins():
    found = resolve_columns("log.csv", parse_columns(FULL), [*HEADERS, "theta"])
    assert found["observation"] == ("theta", "theta_dot (rad/s)")


# Conventions


@pytest.mark.parametrize("prefix", ["observation_", "observation.", "obs_"])
def test_conventional_names(prefix):
    names = [
        f"{prefix}theta [rad]",
        "junk",
        "Action_tau",
        "Reward",
        "episode_id",
        f"next_{prefix}theta",
        "time (s)",
    ]
    assert conventional_columns("log.csv", names) == {
        "observation": (f"{prefix}theta [rad]",),
        "next_observation": (f"next_{prefix}theta",),
        "action": ("Action_tau",),
        "reward": ("Reward",),
        "episode": ("episode_id",),
        "time": ("time (s)",),
    }


def test_numbered_entries_come_in_the_order_of_their_numbers():
    names = ["obs_0", "obs_1", "obs_10", "obs_2", "action", "reward", "done"]
    assert conventional_columns("log.csv", names)["observation"] == ("obs_0", "obs_1", "obs_2", "obs_10")


def test_named_entries_come_in_the_order_of_the_file():
    names = ["obs_z", "obs_a", "obs_10", "action", "reward", "terminal"]
    assert conventional_columns("log.csv", names)["observation"] == ("obs_z", "obs_a", "obs_10")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["x", "v", "u", "r"],
            r"recognised as observation or action or reward; the file has 'x', 'v', 'u', 'r'",
        ),
        (["x", "v", "action_u", "r"], r"for example --map observation=NAME,NAME action=action_u reward=NAME"),
        (
            ["obs_x", "action_u", "reward"],
            r"recognised as the ends of episodes.*observation=obs_x action=action_u",
        ),
        (["obs_x", "action_u", "reward", "rewards", "done"], r"column 'reward': 'rewards' means the same"),
        (["obs_x", "observation_x", "action", "reward", "done"], r"'obs_x' could also be of the observation"),
        (["obs_x", "action", "reward", "done", "episodes"], r"'episodes': looks like a misspelt 'episode'"),
        (["obs_x", "action", "reward", "episode", "truncatd"], r"looks like a misspelt 'truncated'"),
        ([f"c{i}" for i in range(50)], r"'c39' and 10 more"),
    ],
)
def test_names_that_tell_too_little(names, words):
    with pytest.raises(DataError, match=rf"{words}"):
        conventional_columns("log.csv", names)


def test_rewards_may_be_left_out_of_a_map():
    fields = required_fields(rewards_required=False)
    assert "reward" not in parse_columns([text for text in FULL if not text.startswith("reward")], fields)
    names = ["obs_x", "action", "episode"]
    assert set(conventional_columns("log.csv", names, fields)) == {"observation", "action", "episode"}
    with pytest.raises(DataError) as raised:
        conventional_columns("log.csv", ["x", "u"], fields)
    assert "reward" not in str(raised.value)


@pytest.mark.parametrize(
    ("header", "field", "name"),
    [
        ("observation_theta [rad]", "observation", "theta"),
        ("obs.theta", "observation", "theta"),
        ("theta", "observation", "theta"),
        ("obs_3", "observation", None),
        ("action_3", "action", None),
        ("action", "action", "action"),
        ("obs_3", "action", "obs_3"),
    ],
)
def test_entry_name(header, field, name):
    assert entry_name(header, field) == name
