"""Every format read again: the same bits; and what `simtrust convert` says and refuses."""

import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.commands.convert import convert as command
from simtrust.data import Dataset, load_dataset
from simtrust.data.convert import check_out, convert
from simtrust.data.table_out import table_map
from simtrust.errors import ConfigError, DataError
from simtrust.types import Transitions

OUT = ("log.hdf5", "log.h5", "log.npz", "LOG.CSV", "log.parquet", "minari:my-robot/test-v0")
NAMES = (("θ", "joint q[0]"), ("left", "Right (arm)", "3rd"), ("rad", ""), ("N m", "", "m/s^2"))
TIME = np.array([0, 0.1, 0.2, 0.3, 0, 1 / 3, 2 / 3, 1e-9, 1e6])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def named(log, write) -> Dataset:
    plain = load_dataset(write(log(), "plain.hdf5"))
    return Dataset(plain.transitions, plain.episode_end, "plain", "0", None, TIME, *NAMES)


def bits(dataset: Dataset):
    rows = [np.asarray(field) for field in dataset.transitions]
    return [(values.dtype, values.shape, values.tobytes()) for values in (*rows, dataset.episode_end)]


@pytest.mark.parametrize("out", OUT)
def test_round_trip(named, out):
    convert(named, out)
    again = load_dataset(out)
    assert bits(again) == bits(named)
    assert tuple(again.names) == NAMES
    assert again.time.tobytes() == TIME.tobytes()


@pytest.mark.parametrize("out", OUT)
def test_a_log_without_rewards_gets_none(log, write, out):
    arrays = {key: values for key, values in log().items() if key != "rewards"}
    dataset = load_dataset(write(arrays, "plain.hdf5"), rewards_required=False)
    if out.startswith("minari:"):
        with pytest.raises(DataError, match=r"plain\.hdf5: has no rewards, .* Remedy: add them to the log"):
            convert(dataset, out)
        assert not Path("root").exists()
        return
    convert(dataset, out)
    with pytest.raises(DataError, match="reward"):
        load_dataset(out)
    assert bits(load_dataset(out, rewards_required=False)) == bits(dataset)


@pytest.mark.parametrize("out", OUT)
def test_nothing_named(log, write, out):
    dataset = load_dataset(write(log(), "plain.hdf5"))
    convert(dataset, out)
    again = load_dataset(out)
    assert bits(again) == bits(dataset)
    assert (tuple(again.names), again.time) == ((None,) * 4, None)


@pytest.mark.parametrize("out", OUT)
@pytest.mark.filterwarnings("ignore::simtrust.errors.DataWarning")
def test_states_that_nobody_recorded(log, write, out):
    arrays = {key: values for key, values in log().items() if key != "next_observations"}
    dataset = load_dataset(write(arrays, "plain.hdf5"))
    convert(dataset, out)
    assert bits(load_dataset(out)) == bits(dataset)


@pytest.mark.parametrize("out", OUT[:-1])
def test_gaps_inside_of_episodes(log, write, out):
    arrays = {key: np.delete(values, 1, axis=0) for key, values in log().items()}
    dataset = load_dataset(write(arrays, "plain.hdf5"))
    convert(dataset, out)
    assert bits(load_dataset(out)) == bits(dataset)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(FLOATS, FLOATS, FLOATS, FLOATS, st.booleans(), st.booleans()), min_size=1, max_size=9)
)
def test_any_numbers_in_csv_and_parquet(tmp_path_factory, table):
    """Of every size, with subnormal ones, and either zero."""
    columns = list(zip(*table, strict=True))
    observation, following = (np.array(columns[i], np.float32)[:, None] for i in (0, 3))
    terminated = np.array(columns[4])
    ends = terminated | np.array(columns[5])
    ends[-1] = True
    # Shifted rows would be refused, and rightly.
    following[ends] = observation[ends]
    rows = Transitions(
        observation,
        np.array(columns[1], np.float32)[:, None],
        np.array(columns[2], np.float32),
        following,
        terminated.astype(np.float32),
    )
    dataset = Dataset(rows, ends, "x", "0")
    folder = tmp_path_factory.mktemp("any")
    for name in ("log.csv", "log.parquet", "log.npz"):
        convert(dataset, folder / name)
        assert bits(load_dataset(folder / name)) == bits(dataset)


def test_all_kinds_of_float32_in_csv():
    """Any bits that are finite, of which one in many needs the ninth digit; and the extreme ones."""
    anything = np.random.default_rng(0).integers(2**32, size=5000, dtype=np.uint32).view(np.float32)
    limits = np.finfo(np.float32)
    values = np.append(anything[np.isfinite(anything)], [limits.max, limits.smallest_subnormal, -0.0])
    values = values.astype(np.float32)
    assert any(np.float32(f"{value:.8g}") != value for value in values.tolist())
    ends = np.arange(len(values)) == len(values) - 1
    rows = Transitions(values[:, None], values[:, None], values, values[:, None], ends.astype(np.float32))
    dataset = Dataset(rows, ends, "x", "0")
    convert(dataset, "log.csv")
    assert bits(load_dataset("log.csv")) == bits(dataset)


@pytest.mark.parametrize(
    "names",
    [("1", "0"), ("a,b", "c"), ("", "y"), ("x ", "y"), ("x\ny", "z"), ('"x', "y"), ("a;b", "c"), ("x", "2")],
)  # fmt: skip
def test_names_that_a_header_cannot_carry(named, names):
    dataset = Dataset(
        named.transitions, named.episode_end, "x", "0", None, None, names, NAMES[1], ("rad", "m")
    )
    for out in ("log.csv", "log.parquet"):
        convert(dataset, out)
        again = load_dataset(out)
        assert bits(again) == bits(dataset)
        assert (again.observation_names, again.observation_units) == (None, ("rad", "m"))
        assert again.action_names == NAMES[1]
    convert(dataset, "log.npz")
    assert load_dataset("log.npz").observation_names == names


@pytest.mark.parametrize("names", [("x", "X"), ("observation_x", "next"), ("q (m)", " y")])
def test_names_that_look_alike(named, names):
    dataset = Dataset(named.transitions, named.episode_end, "x", "0", None, None, names, None, ("rad", "m"))
    for out in ("log.csv", "log.parquet"):
        convert(dataset, out)
        again = load_dataset(out)
        assert bits(again) == bits(dataset)
        assert (again.observation_names, again.observation_units) == (names, ("rad", "m"))


def test_equal_names_are_told_apart_by_their_headers(named):
    dataset = Dataset(
        named.transitions, named.episode_end, "x", "0", None, None, ("x", "x"), None, ("rad", "m")
    )
    for out in ("log.csv", "log.parquet"):
        convert(dataset, out)
        again = load_dataset(out)
        assert bits(again) == bits(dataset)
        assert again.observation_names == ("observation_x [rad]", "observation_x [m]")
        assert again.observation_units == ("rad", "m")


def test_header(named):
    convert(named, "log.csv")
    header, first = Path("log.csv").read_text("utf-8").splitlines()[:2]
    assert header.split(",") == [
        "episode", "time [s]", "observation_θ [rad]", "observation_joint q[0] []", "action_left [N m]",
        "action_Right (arm) []", "action_3rd [m/s^2]", "reward", "terminated", "truncated",
        "next_observation_θ [rad]", "next_observation_joint q[0] []",
    ]  # fmt: skip
    assert first == "0,0.0,0,0,0,1,0,1,0,0,1,0"


@pytest.mark.parametrize("out", ["log.csv", "log.parquet"])
def test_the_map_that_is_told(named, out):
    convert(named, out)
    fields = [f"{field}={','.join(names)}" for field, names in table_map(named).items()]
    assert bits(load_dataset(out, columns=fields)) == bits(named)


# What is refused


@pytest.mark.parametrize("out", ["log", "log.txt", "log.pkl", "folder/"])
def test_endings_that_are_unknown(out):
    with pytest.raises(ConfigError, match=r"nothing is written under this ending.*\.parquet"):
        check_out(out)


@pytest.mark.parametrize("out", OUT)
def test_what_is_there_is_kept_unless_told(named, log, write, out):
    convert(named, out)
    other = load_dataset(write(log(((2, "terminal"),)), "other.hdf5"))
    with pytest.raises(ConfigError, match="--overwrite"):
        convert(other, out)
    assert bits(load_dataset(out)) == bits(named)
    convert(other, out, overwrite=True)
    assert bits(load_dataset(out)) == bits(other)


def test_a_failed_write_leaves_the_old_file(named, monkeypatch, tmp_path):
    convert(named, "log.csv")
    monkeypatch.setattr("simtrust.data.table_out._texts", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(DataError, match=r"log\.csv: cannot be written \(full\)"):
        convert(named, "log.csv", overwrite=True)
    assert bits(load_dataset("log.csv")) == bits(named)
    assert not list(tmp_path.glob(".*")), "no partial file stays"


def test_parquet_without_pyarrow(named, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"log\.parquet: is Parquet, which needs pyarrow.*simtrust\[tables\]"):
        convert(named, "log.parquet")


def test_a_recording_that_ran_on_is_not_written_where_it_could_not_be_read(log, write):
    rows = load_dataset(write(log(((4, "timeout"),)))).transitions
    dataset = Dataset(rows, np.array([False, True, False, True]), "x", "0")
    with pytest.raises(DataError, match=r"log\.csv.*next episode"):
        convert(dataset, "log.csv")
    convert(dataset, "minari:ran-on-v0")
    assert bits(load_dataset("minari:ran-on-v0")) == bits(dataset)


# The command


def run(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tyro.cli(command, args=arguments, config=(tyro.conf.OmitArgPrefixes,))


@pytest.mark.parametrize("out", OUT)
def test_command(log, write, capsys, out):
    file = write(log())
    run(str(file), "new.hdf5" if out == "log.hdf5" else out)
    said = capsys.readouterr().out
    assert "9 rows in 3 episodes" in said and "check-data" in said
    assert ("--map episode=episode observation=observation_0" in said) == (out in ("LOG.CSV", "log.parquet"))
    assert ("minari.load_dataset('my-robot/test-v0')" in said) == out.startswith("minari:")


def test_command_with_map_and_dones(capsys):
    with h5py.File("own.hdf5", "w") as file:
        file["q"], file["u"], file["r"] = np.arange(4.0), np.zeros(4), np.ones(4)
        file["stop"] = [False, True, False, True]
    fields = ("observation=q", "action=u", "reward=r", "done=stop")
    run("own.hdf5", "log.csv", "--map", *fields, "--dones-mean", "terminated")
    expected = load_dataset("own.hdf5", columns=fields, dones_mean="terminated")
    assert expected.transitions.terminated.tolist() == [0, 1, 0, 1]
    assert bits(load_dataset("log.csv")) == bits(expected)


def test_command_looks_at_the_place_first(named):
    convert(named, "log.csv")
    with pytest.raises(ConfigError, match="exists already"):
        run("there-is-no-log.hdf5", "log.csv")
    run("log.csv", "log.csv", "--overwrite")
    assert bits(load_dataset("log.csv")) == bits(named)
