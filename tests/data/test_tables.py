"""CSV and Parquet with known answers, and every defect's message."""

import csv
import dataclasses
import hashlib
import re
import sys
import warnings

import h5py
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simtrust.data import csv_table, load_dataset, parquet_table, save_dataset
from simtrust.data.convert import convert
from simtrust.data.dataset import Dataset
from simtrust.errors import ConfigError, DataError, DataWarning
from simtrust.gap.dimensions import dimension_names

MAP = (
    "observation=theta,theta_dot",
    "action=tau",
    "reward=r",
    "episode=ep",
    "terminated=fell",
    "time=t",
)

# Two episodes, the first of which falls; the last row of the second is not seen to its end.
TEXT = """\
t [s],theta [rad],theta_dot (rad/s),tau [Nm],r,ep,fell,remark
0.0,0.5,1,2,1,a,0,"one, two"
0.1,0.25,2,3,2,a,0,
0.2,0.125,3,4,3,a,1,
0.0,5,10,7,4,b,0,"a ""quoted"" word"
0.1,6,11,8,5,b,false,
0.2,7,12,9,6,b,False,
"""


@pytest.fixture
def put(tmp_path):
    def write(text, name="log.csv", encoding="utf-8"):
        file = tmp_path / name
        file.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
        return file

    return write


@pytest.fixture
def put_parquet(tmp_path):
    def write(columns, name="log.parquet"):
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return write


def parquet_columns():
    return {
        "t [s]": [0.0, 0.1, 0.2, 0.0, 0.1, 0.2],
        "theta [rad]": [0.5, 0.25, 0.125, 5.0, 6.0, 7.0],
        "theta_dot (rad/s)": pa.array([1, 2, 3, 10, 11, 12], pa.int16()),
        "tau [Nm]": pa.array([2, 3, 4, 7, 8, 9], pa.float32()),
        "r": [1, 2, 3, 4, 5, 6],
        "ep": ["a", "a", "a", "b", "b", "b"],
        "fell": [False, False, True, False, False, False],
        "remark": [None, {"x": 1}, None, None, None, None],
    }


def check_known(dataset):
    transitions = dataset.transitions
    assert transitions.observation.tolist() == [[0.5, 1], [0.25, 2], [0.125, 3], [5, 10], [6, 11]]
    assert transitions.next_observation.tolist() == [[0.25, 2], [0.125, 3], [0.125, 3], [6, 11], [7, 12]]
    assert transitions.action.tolist() == [[2], [3], [4], [7], [8]]
    assert transitions.reward.tolist() == [1, 2, 3, 4, 5]
    assert transitions.terminated.tolist() == [0, 0, 1, 0, 0]
    for values in transitions:
        assert values.dtype == np.float32 and values.flags.c_contiguous
    assert dataset.episode_end.tolist() == [False, False, True, False, True]
    assert dataset.file_row.tolist() == [0, 1, 2, 3, 4]
    assert dataset.time.tolist() == [0.0, 0.1, 0.2, 0.0, 0.1]
    assert dataset.time.dtype == np.float64
    assert dataset.observation_names == ("theta", "theta_dot")
    assert dataset.observation_units == ("rad", "rad/s")
    assert (dataset.action_names, dataset.action_units) == (("tau",), ("Nm",))


# What is read


@pytest.mark.parametrize("name", ["log.csv", "LOG.CSV", "log.tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(put, name, separator):
    rows = csv.reader(TEXT.splitlines())
    quoted = "\n".join(
        separator.join(f'"{c}"' if separator in c else c.replace('"', "") for c in r) for r in rows
    )
    file = put(quoted, name)
    dataset = load_dataset(file, columns=MAP)
    check_known(dataset)
    assert dataset.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("edit", [
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text + "\n\n",
    lambda text: text.rstrip("\n"),
    lambda text: text.replace(",5,10,", ", 5 , 10 ,"),
    lambda text: text.replace("one, two", "one\ntwo"),
], ids=["BOM", "CRLF", "blank end", "no last newline", "spaces", "newline in quotes"])  # fmt: skip
def test_csv_variants(put, edit):
    check_known(load_dataset(put(edit(TEXT)), columns=MAP))


def test_csv_in_small_chunks_is_the_same(put, monkeypatch):
    monkeypatch.setattr(csv_table, "CHUNK_CELLS", 16)
    monkeypatch.setattr(csv_table, "SAMPLE_BYTES", 80)
    check_known(load_dataset(put(TEXT), columns=MAP))


def test_csv_needs_no_pyarrow(put, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    check_known(load_dataset(put(TEXT), columns=MAP))


def test_parquet(put_parquet):
    check_known(load_dataset(put_parquet(parquet_columns()), columns=MAP))


@pytest.mark.parametrize("ids", [[7, 7, 7, -1, -1, -1], ["x"] * 3 + ["y"] * 3, [0.5] * 3 + [0.25] * 3])
def test_ids_of_any_kind(put_parquet, ids):
    column = pa.array(ids).dictionary_encode() if isinstance(ids[0], str) else pa.array(ids)
    check_known(load_dataset(put_parquet(parquet_columns() | {"ep": column}), columns=MAP))


def test_parquet_in_many_row_groups_and_batches(put_parquet, monkeypatch):
    monkeypatch.setattr(parquet_table, "BATCH_ROWS", 2)
    file = put_parquet(parquet_columns())
    pq.write_table(pq.read_table(file), file, row_group_size=4)
    check_known(load_dataset(file, columns=MAP))


def test_parquet_without_pyarrow_names_the_extra(put_parquet, monkeypatch):
    file = put_parquet(parquet_columns())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"needs pyarrow.*pip install 'simtrust\[tables\]'"):
        load_dataset(file, columns=MAP)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32(), 2), pa.list_(pa.float64()), pa.large_list(pa.int32())]
)
def test_lists(put_parquet, kind):
    columns = {
        "observation": pa.array([[1, 2], [3, 4], [5, 6]], kind),
        "action": [0.5, 0.25, 0.125],
        "reward": [1.0, 2.0, 3.0],
        "terminated": [0, 0, 1],
    }
    dataset = load_dataset(put_parquet(columns))
    assert dataset.transitions.observation.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert (dataset.observation_names, dataset.action_names) == (None, ("action",))
    mixed = ("observation=observation,reward", "action=action", "reward=x", "terminated=terminated")
    dataset = load_dataset(put_parquet(columns | {"x": [0, 0, 0]}), columns=mixed)
    assert dataset.transitions.observation.tolist() == [[1, 2, 1], [3, 4, 2], [5, 6, 3]]
    assert dataset.observation_names == ("observation[0]", "observation[1]", "reward")


def test_a_table_without_rewards(put):
    file, columns = put(TEXT), [field for field in MAP if not field.startswith("reward")]
    with pytest.raises(ConfigError, match="'reward' is missing; add reward=NAME"):
        load_dataset(file, columns=columns)
    dataset = load_dataset(file, columns=columns, rewards_required=False)
    assert np.isnan(dataset.transitions.reward).all() and not dataset.has_rewards
    assert dataset.transitions.action.tolist() == load_dataset(file, columns=MAP).transitions.action.tolist()
    bare = put("observation_0,action_0,episode\n1,2,0\n3,4,0\n", "bare.csv")
    with pytest.raises(DataError, match="no column is recognised as reward"):
        load_dataset(bare)
    with pytest.warns(DataWarning, match="no row counts as terminal"):
        assert load_dataset(bare, rewards_required=False).transitions.action.tolist() == [[2]]


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
def test_keys_of_one_dimension_are_columns(write, name):
    arrays = {header: np.array(values) for header, values in parquet_columns().items() if header != "remark"}
    arrays["theta_dot (rad-s)"] = arrays.pop("theta_dot (rad/s)")
    arrays["ep"] = arrays["ep"].astype("S")
    with pytest.raises(DataError, match=r"key 'observations': missing.*or say which key is what, with --map"):
        load_dataset(write(arrays, f"unmapped_{name}"))
    dataset = load_dataset(write(arrays, name), columns=MAP)
    check_known(dataclasses.replace(dataset, observation_units=("rad", "rad/s")))
    with pytest.raises(
        DataError, match=r"key 'theta \[rad\]': has 5 rows where|key 'theta_dot.*has 6 rows where"
    ):
        load_dataset(write(arrays | {"theta [rad]": np.zeros(5)}, "short.npz"), columns=MAP)


def test_conventional_names_need_no_map(put):
    file = put("obs_theta [rad],obs_1,action_0,reward,terminated,truncated\n1,2,3,4,0,0\n2,3,4,5,0,1\n")
    dataset = load_dataset(file)
    assert dataset.observation_names == ("theta", "obs_1")
    assert dataset.observation_units == ("rad", "")
    assert (dataset.action_names, dataset.action_units) == (None, None)
    assert dataset.transitions.next_observation.tolist() == [[2, 3]]


def test_next_observation_keeps_every_row(put):
    text = "x,y,u,r,end\n1,2,0,0,0\n2,3,0,0,1\n9,8,0,0,0\n"
    with pytest.warns(DataWarning):
        dataset = load_dataset(
            put(text),
            columns=["observation=x", "next_observation=y", "action=u", "reward=r", "truncated=end"],
        )
    assert dataset.transitions.next_observation[:, 0].tolist() == [2, 3, 8]
    assert dataset.episode_end.tolist() == [False, True, True]


def test_a_task_without_terminals_is_warned_of(put):
    with pytest.warns(DataWarning, match=r"log\.csv: no column says.*--map terminated=NAME") as caught:
        dataset = load_dataset(put(TEXT), columns=[text for text in MAP if "fell" not in text])
    assert caught[0].filename == __file__
    assert not dataset.transitions.terminated.any()
    # Both last rows are unseen now.
    assert dataset.episode_end.tolist() == [False, True, False, True]
    assert dataset.file_row.tolist() == [0, 1, 3, 4]


def test_bare_dones_want_their_meaning(put):
    columns = [text.replace("terminated=", "done=") for text in MAP]
    with pytest.raises(DataError, match=r"column 'fell': does not say.*--dones-mean"):
        load_dataset(put(TEXT), columns=columns)
    check_known(load_dataset(put(TEXT), columns=columns, dones_mean="terminated"))
    assert load_dataset(put(TEXT), columns=columns, dones_mean="timeout").episode_lengths.tolist() == [2, 2]


def test_done_beside_terminated_is_ignored(put):
    text = TEXT.replace("remark", "done").replace('"one, two"', "0").replace('"a ""quoted"" word"', "0")
    text = "\n".join(line + "1" if line.endswith(",") else line for line in text.splitlines())
    check_known(load_dataset(put(text), columns=[*MAP, "done=done"]))


@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "log.npz"])
def test_done_beside_terminated_marks_timeouts_without_episodes(tmp_path, name):
    step = np.arange(20)
    columns = {"x": step, "u": step, "r": step, "fell": step == 19, "done": step % 10 == 9}
    file = tmp_path / name
    if name == "log.csv":
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        file.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]))
    elif name == "log.parquet":
        pq.write_table(pa.table(columns), file)
    else:
        np.savez(file, **columns)
    fields = ["observation=x", "action=u", "reward=r", "terminated=fell", "done=done"]
    dataset = load_dataset(file, columns=fields)
    assert dataset.episode_lengths.tolist() == [9, 10]
    assert np.flatnonzero(dataset.transitions.terminated).tolist() == [18]


def test_time_in_other_units(put):
    text = TEXT.replace("t [s]", "t [ms]")
    np.testing.assert_allclose(load_dataset(put(text), columns=MAP).time, np.array([0, 1, 2, 0, 1]) * 1e-4)
    with pytest.raises(DataError, match=r"column 't \[min\]': is in 'min'.*s, sec"):
        load_dataset(put(TEXT.replace("t [s]", "t [min]")), columns=MAP)


# Names, units and time live on


def test_saved_and_read_back(put, tmp_path):
    first = load_dataset(put(TEXT), columns=MAP)
    again = load_dataset(save_dataset(tmp_path / "again.hdf5", first, metadata={"made by": "a test"}))
    assert again.names == first.names
    np.testing.assert_array_equal(again.time, first.time)
    for left, right in zip(again.transitions, first.transitions, strict=True):
        np.testing.assert_array_equal(left, right)
    with h5py.File(tmp_path / "again.hdf5") as container:
        kinds = [container[f"metadata/{name}"].dtype for name in ("simtrust_names", "simtrust_time")]
    assert kinds[0].kind == "S" and kinds[1] == np.float64


def test_read_back_from_npz(log, write):
    names = b'{"observation_names": ["x", "y"], "action_units": ["N", "", "m"]}'
    arrays = log() | {"metadata/simtrust_names": np.bytes_(names), "metadata/simtrust_time": np.arange(9.0)}
    dataset = load_dataset(write(arrays, "log.npz"))
    assert dataset.names == (("x", "y"), None, None, ("N", "", "m"))
    assert dataset.time.tolist() == list(range(9))


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", np.bytes_(b'{"observation_names": ["x"]}')),
        ("names", np.bytes_(b'{"action_names": [1, 2, 3]}')),
        ("names", np.bytes_(b"[1]")),
        ("names", np.bytes_(b"{")),
        ("names", np.bytes_(b"[" * 100_000)),
        ("names", np.zeros(3)),
        ("time", np.zeros(8)),
        ("time", np.full(9, np.nan)),
    ],
)
def test_metadata_that_does_not_fit(log, write, name, key, value):
    path = f"metadata/simtrust_{key}"
    with pytest.raises(DataError, match=rf"key '{path}': does not fit the file's rows\. Remedy: delete"):
        load_dataset(write(log() | {path: value}, name))


def test_time_goes_with_the_rows_that_are_kept(log, write):
    arrays = log() | {"metadata/simtrust_time": np.arange(9.0)}
    del arrays["next_observations"]
    dataset = load_dataset(write(arrays))
    assert dataset.time.tolist() == dataset.file_row.tolist() == [0, 1, 2, 4, 5, 6, 7]


def test_metadata_in_another_file_is_passed_over(log, write):
    write({"simtrust_time": np.arange(9.0)}, "other.hdf5")
    file = write(log())
    with h5py.File(file, "a") as container:
        container["metadata"] = h5py.ExternalLink("other.hdf5", "/")
    assert load_dataset(file).time is None


def test_names_of_the_log_win(log, write):
    dataset = load_dataset(write(log()))
    assert dimension_names(dataset, "some-id") == (
        ("observation 0", "observation 1"), ("action 0", "action 1", "action 2"))  # fmt: skip
    named = dataclasses.replace(dataset, observation_names=("x", "y"))
    assert dimension_names(named, "some-id")[0] == ("x", "y")
    assert dimension_names(named, "some-id")[1] == ("action 0", "action 1", "action 2")
    both = dataclasses.replace(named, action_names=("x", "u", "v"))
    assert dimension_names(both, "HalfCheetah-v5") == (("x", "y"), ("action x", "u", "v"))
    assert "torso height" in " ".join(dimension_names(dataset, "HalfCheetah-v5")[0])


def test_names_that_would_be_equal_are_whole_headers(put, tmp_path):
    file = put("a [m],a [rad],b [s],b[0],u,r,end\n1,2,3,4,5,6,1\n")
    fields = ["observation=a [m],a [rad],b [s],b[0]", "action=u", "reward=r", "terminated=end"]
    dataset = load_dataset(file, columns=fields)
    assert dataset.observation_names == ("a [m]", "a [rad]", "b [s]", "b[0]")
    assert dataset.observation_units == ("m", "rad", "s", "0")
    assert load_dataset(convert(dataset, tmp_path / "again.csv")).names == dataset.names


def test_lists_of_one_name_are_told_apart_by_their_unit(put_parquet):
    columns = {"a [m]": [[1, 2]], "a [rad]": [[3, 4]], "b": [5], "u": [6], "r": [7], "end": [1]}
    fields = ["observation=a [m],a [rad],b", "action=u", "reward=r", "terminated=end"]
    names = load_dataset(put_parquet(columns), columns=fields).observation_names
    assert names == ("a [m][0]", "a [m][1]", "a [rad][0]", "a [rad][1]", "b")


def test_equal_names_in_the_metadata_are_numbered(log, write):
    names = b'{"observation_names": ["x", "x"], "action_names": ["x", "action x", "action x 2"]}'
    dataset = load_dataset(write(log() | {"metadata/simtrust_names": np.bytes_(names)}))
    assert dimension_names(dataset, "some-id") == (
        ("x", "x 2"), ("action x", "action x 3", "action x 2"))  # fmt: skip


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        (None, (0,), r"key 'x': has zero rows.*record at least one"),
        ("x", (5, 0), r"key 'x': has shape \(5, 0\).*at least one number"),
        ("u", (5, 0), r"key 'u': has shape \(5, 0\).*at least one number"),
        ("u", (0, 5), r"key 'u': has zero rows"),
    ],
)
def test_arrays_that_hold_nothing(write, name, key, shape, words):
    arrays = {column: np.zeros(shape if key in (None, column) else 5) for column in ("x", "u", "r", "end")}
    fields = ["observation=x", "action=u", "reward=r", "terminated=end"]
    with pytest.raises(DataError, match=words):
        load_dataset(write(arrays, name), columns=fields)


# Defects of CSV: (what is done to the good text, column or None, line or None, words of the message)

DEFECTS = {
    "text": (lambda t: t.replace(",5,10", ",five,10"), "theta [rad]", 5, "'five' is not a number"),
    "underscore": (lambda t: t.replace(",5,10", ",5_0,10"), "theta [rad]", 5, "'5_0' is not a number"),
    "empty cell": (lambda t: t.replace(",5,10", ",,10"), "theta [rad]", 5, "the cell is empty"),
    "empty id": (lambda t: t.replace(",b,0", ",,0"), "ep", 5, "the cell is empty"),
    "NaN": (lambda t: t.replace(",6,11", ",6,nan"), "theta_dot (rad/s)", 6, "value nan is not finite"),
    "infinity": (lambda t: t.replace(",6,11", ",-inf,11"), "theta [rad]", 6, "value -inf is not finite"),
    "overflow": (lambda t: t.replace(",3,2,a", ",1e99,2,a"), "tau [Nm]", 3, r"value 1e\+99 is not finite"),
    "flag": (lambda t: t.replace("b,false", "b,maybe"), "fell", 6, "'maybe' is not a number"),
    "half a flag": (lambda t: t.replace("b,false", "b,0.5"), "fell", 6, "0.5 is neither 0 nor 1"),
    "boolean number": (lambda t: t.replace(",5,10", ",true,10"), "theta [rad]", 5, "'true' is not a number"),
    "too few": (lambda t: t.replace(",8,5,b,false,", ",8,5,b,false"), None, 6, "7 cells where the header"),
    "too many": (lambda t: t.replace(",8,5,b,false,", ",8,5,b,false,,"), None, 6, "9 cells where the header"),
    "blank inside": (lambda t: t.replace("0.0,5,", "\n0.0,5,"), None, 5, "is empty, with more below"),
    "id comes back": (lambda t: t.replace("9,6,b", "9,6,a"), "ep", 7, "id 'a' comes back.*id of its own"),
    "flag inside": (lambda t: t.replace("2,a,0", "2,a,1"), "fell", 3, "true inside of episode 'a'"),
    "time stands": (lambda t: t.replace("0.1,6", "0,6"), "t [s]", 6, "goes from 0 to 0 s within episode 1"),
    "time back at the dropped row": (
        lambda t: t.replace("0.2,7", "0.05,7"), "t [s]", 7, "from 0.1 to 0.05 s within episode 1"),
    "time NaN": (lambda t: t.replace("0.1,6", "nan,6"), "t [s]", 6, "time that is not finite"),
    "same name": (lambda t: t.replace("remark", "r"), "r", None, "name of more than one column"),
    "only a header": (lambda t: t.split("\n")[0] + "\n", None, None, "has zero rows"),
    "no header": (lambda t: "1,2,3\n4,5,6\n", None, 1, "holds numbers where the columns' names"),
    "empty header": (lambda t: "\n" + t, None, 1, "is empty"),
    "single column": (lambda t: "theta\n1\n", None, 1, "a single column, 'theta'"),
    "open quote": (lambda t: t.replace('two"', "two"), None, None, "damaged or cut short"),
    "binary": (lambda t: b"\x00\xff\xfe\x01" * 10, None, 1, "not UTF-8"),
    "latin-1": (lambda t: t.replace("remark", "°C").encode("latin-1"), None, 1, "not UTF-8.*save it as CSV"),
    "latin-1 below": (lambda t: t.replace("one,", "\xe9").encode("latin-1"), None, None, "not UTF-8"),
    "nothing": (lambda t: "", None, None, "is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", DEFECTS)
def test_defect_names_file_column_line_and_remedy(put, case):
    spoil, column, line, words = DEFECTS[case]
    assert spoil(TEXT) != TEXT
    file = put(spoil(TEXT))
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(file, columns=MAP)
    place = ", ".join([f"column '{column}'"] * (column is not None) + [f"line {line}"] * (line is not None))
    assert str(caught.value).startswith(f"{file}: {place}")
    assert re.search(r"Remedy: .+\.$", str(caught.value))


def test_line_after_a_quoted_newline(put):
    text = TEXT.replace("one, two", "one\ntwo").replace(",5,10", ",five,10")
    with pytest.raises(DataError, match=r"line 6: 'five'"):
        load_dataset(put(text), columns=MAP)


def test_decimal_comma(put):
    text = "x;u;r;ep\n1,5;2;3;1\n"
    columns = ["observation=x", "action=u", "reward=r", "episode=ep"]
    with pytest.raises(DataError, match=r"column 'x', line 2: '1,5' has a decimal comma.*decimal point"):
        load_dataset(put(text), columns=columns)


def test_ends_that_nobody_tells(put):
    columns = [text for text in MAP if "ep" not in text]
    text = TEXT.replace("a,1", "a,0")
    with pytest.raises(DataError, match=r"no row is a terminal"):
        load_dataset(put(text), columns=columns)


def test_map_is_checked_before_the_file_is_opened(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown field"):
        load_dataset(tmp_path / "missing.csv", columns=["x=y"])


def test_unknown_column_and_no_convention(put):
    with pytest.raises(DataError, match=r"column 'thta': .*did you mean 'theta'"):
        load_dataset(put(TEXT), columns=["observation=thta", *MAP[1:]])
    with pytest.raises(
        DataError, match=r"the file has 't \[s\]', 'theta \[rad\]'.*example --map observation="
    ):
        load_dataset(put(TEXT))


# Defects of Parquet

PARQUET_DEFECTS = {
    "null": ("theta [rad]", [0.5, None, 1, 1, 1, 1], 1, "missing"),
    "NaN": ("theta [rad]", [0.5, 1, 1, 1, np.nan, 1], 4, "value nan is not finite"),
    "text": ("theta [rad]", list("123456"), None, "has type string, which is no number"),
    "struct": ("theta [rad]", [{"x": 1}] * 6, None, "has type struct"),
    "date": ("t [s]", pa.array([1, 2, 3, 4, 5, 6], pa.timestamp("s")), None, "time in seconds"),
    "lists": ("r", [[1, 2]] * 6, None, "lists of 2"),
    "unequal": ("theta [rad]", [[1], [1], [1, 2], [1], [1], [1]], 2, "unequal lengths"),
    "null inside": ("theta [rad]", [[1, 2]] * 3 + [[1, None]] + [[1, 2]] * 2, 3, "missing"),
    "null list": ("theta [rad]", [[1, 2]] * 5 + [None], 5, "missing"),
    "empty lists": ("theta [rad]", pa.array([[]] * 6, pa.list_(pa.int8())), None, "empty list"),
    "list of text": ("theta [rad]", [["a"]] * 6, None, "has type list"),
    "id back": ("ep", [1, 1, 2, 2, 1, 1], 4, "id '1' comes back"),
    "null id": ("ep", [1, 1, None, 2, 2, 2], 2, "missing"),
    "NaN id": ("ep", [1, 1, 1, 2, np.nan, 2], 4, "missing"),
    "flag": ("fell", [0, 0, 2, 0, 0, 0], 2, "neither 0 nor 1"),
}


@pytest.mark.parametrize("batch", [65_536, 2])
@pytest.mark.parametrize("case", PARQUET_DEFECTS)
def test_parquet_defect_names_column_row_and_remedy(put_parquet, monkeypatch, case, batch):
    monkeypatch.setattr(parquet_table, "BATCH_ROWS", batch)
    column, values, row, words = PARQUET_DEFECTS[case]
    file = put_parquet(parquet_columns() | {column: values})
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(file, columns=MAP)
    assert str(caught.value).startswith(
        f"{file}: column '{column}'" + (f", row {row}" if row is not None else "")
    )
    assert re.search(r"Remedy: .+\.$", str(caught.value))


@pytest.mark.parametrize("keep", [0.5, 0.9, 8])
def test_parquet_cut_short(put_parquet, keep):
    file = put_parquet(parquet_columns())
    content = file.read_bytes()
    file.write_bytes(content[: keep if keep > 1 else int(len(content) * keep)])
    with pytest.raises(DataError, match=r"damaged or cut short"):
        load_dataset(file, columns=MAP)


def test_parquet_with_damaged_values(put_parquet):
    file = put_parquet({"x": np.random.default_rng(0).random(9000), "u": np.zeros(9000), "r": np.zeros(9000),
                        "ep": np.zeros(9000, int)})  # fmt: skip
    content = bytearray(file.read_bytes())
    content[4:60] = bytes(56)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged or cut short"):
        load_dataset(file, columns=["observation=x", "action=u", "reward=r", "episode=ep"])


def test_parquet_without_rows(put_parquet):
    file = put_parquet({name: pa.array([], pa.float32()) for name in ("x", "u", "r", "ep")})
    with pytest.raises(DataError, match=r"has zero rows"):
        load_dataset(file, columns=["observation=x", "action=u", "reward=r", "episode=ep"])


def test_parquet_by_name_only(put):
    with pytest.raises(DataError, match=r"nor Parquet"):
        load_dataset(put(TEXT, "log.parquet"))


# Memory


def nearly_full(monkeypatch, available=100):
    memory = psutil.virtual_memory()._replace(available=available)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def test_memory_is_checked_before_values_are_read(put, put_parquet, monkeypatch):
    csv_file = put(TEXT.replace(",5,10", ",five,10"))
    parquet_file = put_parquet(parquet_columns() | {"r": [None] * 5 + [1]})
    nearly_full(monkeypatch)
    for file in (csv_file, parquet_file):
        with pytest.raises(DataError, match=r"claims .* GiB to read"):
            load_dataset(file, columns=MAP)


def test_csv_that_grows_beyond_its_sample(put, monkeypatch):
    monkeypatch.setattr(csv_table, "SAMPLE_BYTES", 2000)
    monkeypatch.setattr(csv_table, "CHUNK_CELLS", 400)
    text = "x,u,r,ep,long\n1,1,1,1," + "y" * 3000 + "\n" + "1,1,1,1,\n" * 5000
    nearly_full(monkeypatch, 400_000)
    with pytest.raises(DataError, match=r"claims .* GiB to read"):
        load_dataset(put(text), columns=["observation=x", "action=u", "reward=r", "episode=ep"])


def test_small_parquet_that_claims_much(tmp_path, monkeypatch):
    file = tmp_path / "log.parquet"
    zeros = pa.array(np.zeros(2_000_000, np.float32))
    pq.write_table(pa.table(dict.fromkeys(["x", "u", "r", "terminated"], zeros)), file)
    assert file.stat().st_size < 200_000
    nearly_full(monkeypatch, 100_000_000)
    with pytest.raises(DataError, match=r"claims .* GiB to read"):
        load_dataset(file, columns=["observation=x", "action=u", "reward=r", "terminated=terminated"])


def test_claims_are_those_of_the_right_column(tmp_path):
    columns = {"nested": [{"x": 1, "y": {"z": 2}}] * 4, "list": [[1, 2, 3]] * 4, "last": [1] * 4}
    file = tmp_path / "log.parquet"
    pq.write_table(pa.table(columns), file, row_group_size=3)
    with pq.ParquetFile(file) as handle:
        assert [parquet_table._claimed_values([handle], index) for index in range(3)] == [4, 12, 4]


def test_line_without_end(put, monkeypatch):
    monkeypatch.setattr(csv_table, "LINE_MAX", 1000)
    with pytest.raises(DataError, match=r"a line of 1,000 characters or more"):
        load_dataset(put(TEXT + "1" * 2000), columns=MAP)


# Properties

structures = st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1).filter(
    lambda episodes: any(length > 1 or terminal for length, terminal in episodes)
)


@settings(max_examples=40, deadline=None, database=None)
@given(episodes=structures, seed=st.integers(0, 1000))
def test_csv_parquet_and_hdf5_agree_bit_for_bit(tmp_path_factory, episodes, seed):
    folder = tmp_path_factory.mktemp("agree")
    generator = np.random.default_rng(seed)
    number = np.repeat(np.arange(len(episodes)), [length for length, _ in episodes])
    rows = len(number)
    last = np.append(np.diff(number) != 0, True)
    terminal = last & np.array([episodes[n][1] for n in number])
    x, u, r = generator.standard_normal((3, rows)) * 10.0 ** generator.integers(-30, 30, (3, rows))
    x, u, r = (values.astype(np.float32) for values in (x, u, r))
    table = {"x": x, "u": u, "r": r, "ep": number, "fell": terminal}
    with (folder / "log.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(table)
        writer.writerows(zip(*(values.tolist() for values in table.values()), strict=True))
    pq.write_table(pa.table(table), folder / "log.parquet")
    arrays = {"observations": x[:, None], "actions": u[:, None], "rewards": r, "terminals": terminal}
    save_dataset(folder / "log.hdf5", arrays | {"timeouts": last & ~terminal})
    columns = ["observation=x", "action=u", "reward=r", "episode=ep", "terminated=fell"]
    expected: Dataset = load_dataset(folder / "log.hdf5")
    for name in ("log.csv", "log.parquet"):
        found = load_dataset(folder / name, columns=columns)
        for left, right in zip(found.transitions, expected.transitions, strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(found.episode_end, expected.episode_end)
        np.testing.assert_array_equal(found.file_row, expected.file_row)


@settings(max_examples=200, deadline=None, database=None)
@given(text=st.text(st.characters(codec="utf-8") | st.sampled_from(',;\t"\n\r0123456789.eE-'), max_size=80))
def test_no_text_raises_anything_else(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("any") / "log.csv"
    file.write_text(f"x,u,r,ep\n{text}", encoding="utf-8", newline="")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            load_dataset(file, columns=["observation=x", "action=u", "reward=r", "episode=ep"])
        except DataError as error:
            assert str(file) in str(error) and "Remedy: " in str(error)
