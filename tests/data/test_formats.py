"""Layouts with known answers, every defect's message, and files that would do harm."""

import hashlib
import io
import pickle
import re
import zipfile

import h5py
import numpy as np
import psutil
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simtrust.data import Dataset, load_dataset, save_dataset
from simtrust.errors import ConfigError, DataError
from simtrust.types import Transitions


def without(arrays, *keys):
    return {key: values for key, values in arrays.items() if key not in keys}


def renamed(arrays, **new_names):
    return {new_names.get(key, key): values for key, values in arrays.items()}


def replaced(arrays, key, place, value, dtype=None):
    values = arrays[key].astype(dtype or arrays[key].dtype)
    values[place] = value
    return arrays | {key: values}


# Layouts


@pytest.mark.parametrize("name", ["log.hdf5", "log.h5", "LOG.HDF5", "log.npz"])
def test_complete_layout(log, write, name):
    arrays = log()
    file = write(arrays, name)
    dataset = load_dataset(file)
    for field, key in zip(Transitions._fields, list(arrays)[:5], strict=True):
        values = getattr(dataset.transitions, field)
        np.testing.assert_array_equal(values, arrays[key])
        assert type(values) is np.ndarray and values.dtype == np.float32 and values.flags.c_contiguous
    assert np.flatnonzero(dataset.episode_end).tolist() == [3, 6, 8]
    assert dataset.episode_lengths.tolist() == [4, 3, 2]
    assert dataset.episode_returns.tolist() == [10.0, 18.0, 17.0]
    assert (len(dataset), dataset.observation_size, dataset.action_size) == (9, 2, 3)
    assert dataset.source == str(file)
    assert dataset.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
def test_without_rewards_they_are_unknown(log, write, name):
    file = write(without(log(), "rewards"), name)
    with pytest.raises(DataError, match=r"key 'rewards': missing; .* Remedy: store 'rewards'"):
        load_dataset(file)
    dataset = load_dataset(file, rewards_required=False)
    assert not dataset.has_rewards
    # Not 0 or another number, which could pass for a reward.
    assert np.isnan(dataset.transitions.reward).all() and np.isnan(dataset.episode_returns).all()
    rewarded = load_dataset(write(log(), f"rewarded_{name}"), rewards_required=False)
    assert rewarded.has_rewards and rewarded.episode_returns.tolist() == [10.0, 18.0, 17.0]
    for field in ("observation", "action", "next_observation", "terminated"):
        np.testing.assert_array_equal(
            getattr(dataset.transitions, field), getattr(rewarded.transitions, field)
        )


def test_timeout_is_not_terminal(log, write):
    dataset = load_dataset(write(log()))
    assert np.flatnonzero(dataset.transitions.terminated).tolist() == [6]


def test_both_terminal_and_timeout_is_terminal(log, write):
    dataset = load_dataset(write(replaced(log(), "timeouts", 6, True)))
    assert dataset.transitions.terminated[6] == 1
    assert dataset.episode_lengths.tolist() == [4, 3, 2]


def test_without_next_observations_the_unseen_ends_are_dropped(log, write):
    arrays = log()
    dataset = load_dataset(write(without(arrays, "next_observations")))
    # Rows 3 (timeout) and 8 (timeout, end of recording) go; 6 is terminal and stays.
    assert dataset.file_row.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert dataset.row_in_file(3) == 4
    assert dataset.episode_lengths.tolist() == [3, 3, 1]
    assert dataset.episode_returns.tolist() == [6.0, 18.0, 8.0]
    assert dataset.transitions.terminated.tolist() == [0, 0, 0, 0, 0, 1, 0]
    expected = arrays["next_observations"][dataset.file_row]
    expected[5] = arrays["observations"][6]
    np.testing.assert_array_equal(dataset.transitions.next_observation, expected)


def test_next_observations_do_not_cross_ends(log, write):
    arrays = log()
    dataset = load_dataset(write(without(arrays, "next_observations")))
    shifted = np.roll(arrays["observations"], -1, axis=0)[dataset.file_row]
    episode = dataset.transitions.observation[:, 1]
    np.testing.assert_array_equal(dataset.transitions.next_observation[:, 1], episode)
    assert (shifted[:, 1] != episode).any(), "rows shifted blindly would have passed"


def test_without_timeouts_ends_are_breaks_in_the_chain(log, write):
    dataset = load_dataset(write(without(log(), "timeouts")))
    assert dataset.episode_lengths.tolist() == [4, 3, 2]
    assert np.flatnonzero(dataset.transitions.terminated).tolist() == [6]


def test_oldest_d4rl_layout_ends_at_terminals(log, write):
    arrays = log(((4, "terminal"), (3, "terminal"), (3, "")))
    arrays = without(arrays, "timeouts", "next_observations")
    arrays |= {"infos/qpos": np.zeros(3), "metadata/algorithm": np.bytes_("SAC")}
    dataset = load_dataset(write(arrays))
    assert dataset.episode_lengths.tolist() == [4, 3, 2]
    assert dataset.transitions.terminated.tolist() == [0, 0, 0, 1, 0, 0, 1, 0, 0]


def test_single_row_episode_without_next_observation_vanishes(log, write):
    arrays = without(log(((1, "timeout"), (2, "timeout"), (1, "terminal"))), "next_observations")
    dataset = load_dataset(write(arrays))
    assert dataset.file_row.tolist() == [1, 3]
    assert dataset.episode_lengths.tolist() == [1, 1]


def test_nothing_is_dropped_where_all_terminate(log, write):
    dataset = load_dataset(write(without(log(((2, "terminal"),)), "next_observations")))
    assert dataset.file_row is None and dataset.row_in_file(1) == 1


def test_columns_of_width_one_and_doubles(log, write):
    arrays = {key: values.astype(np.float64) for key, values in log().items()}
    arrays |= {key: arrays[key][:, None] for key in ("rewards", "terminals", "timeouts")}
    expected, dataset = load_dataset(write(log())), load_dataset(write(arrays, "wide.npz"))
    for left, right in zip(dataset.transitions, expected.transitions, strict=True):
        np.testing.assert_array_equal(left, right)
        assert left.dtype == np.float32
    np.testing.assert_array_equal(dataset.episode_end, expected.episode_end)


def test_other_spellings(log, write):
    arrays = renamed(log(), observations="obs", next_observations="next_obs", actions="action")
    arrays = renamed(arrays, rewards="reward", terminals="terminated", timeouts="truncated")
    assert load_dataset(write(arrays)).episode_lengths.tolist() == [4, 3, 2]


def test_content_decides_not_the_extension(log, write):
    file = write(log(), "log.npz")
    assert len(load_dataset(file.rename(file.with_suffix(".hdf5")))) == 9


# Dones


def bare_dones(arrays):
    dones = arrays["terminals"] | arrays["timeouts"]
    return without(arrays, "terminals", "timeouts") | {"dones": dones}


@pytest.mark.parametrize(("meaning", "terminated"), [("terminated", 3), ("timeout", 0)])
def test_dones_mean(log, write, meaning, terminated):
    dataset = load_dataset(write(bare_dones(log())), dones_mean=meaning)
    assert dataset.episode_lengths.tolist() == [4, 3, 2]
    assert dataset.transitions.terminated.sum() == terminated


def test_bare_dones_are_refused(log, write):
    with pytest.raises(DataError, match=r"key 'dones'.*dones_mean=.*--dones-mean"):
        load_dataset(write(bare_dones(log())))


def test_dones_beside_timeouts_are_terminals_elsewhere(log, write):
    arrays = log()
    arrays = bare_dones(arrays) | {"timeouts": arrays["timeouts"]}
    assert np.flatnonzero(load_dataset(write(arrays)).transitions.terminated).tolist() == [6]


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
def test_dones_beside_terminals_are_timeouts_elsewhere(log, write, name):
    arrays = log(((10, "timeout"), (10, "terminal")))
    arrays |= {"dones": arrays["terminals"] | arrays["timeouts"]}
    arrays = without(arrays, "timeouts", "next_observations")
    dataset = load_dataset(write(arrays, name))
    assert dataset.episode_lengths.tolist() == [9, 10]
    assert np.flatnonzero(dataset.transitions.terminated).tolist() == [18]
    assert (dataset.transitions.next_observation[:, 1] == dataset.transitions.observation[:, 1]).all()


def test_a_terminal_that_is_not_done_ends_the_episode(log, write):
    arrays = without(log() | {"dones": np.isin(np.arange(9), [3, 8])}, "timeouts")
    dataset = load_dataset(write(arrays))
    assert dataset.episode_lengths.tolist() == [4, 3, 2]
    assert np.flatnonzero(dataset.transitions.terminated).tolist() == [6]


def test_dones_that_repeat_the_terminals_hide_no_break_in_the_chain(log, write):
    arrays = log()
    dataset = load_dataset(write(without(arrays, "timeouts") | {"dones": arrays["terminals"]}))
    assert dataset.episode_lengths.tolist() == [4, 3, 2]


def test_dones_beside_terminals_and_timeouts_are_ignored(log, write):
    dataset = load_dataset(write(log() | {"dones": np.ones(9)}), dones_mean="terminated")
    assert dataset.transitions.terminated.sum() == 1


def test_unknown_meaning_of_dones(log, write):
    with pytest.raises(ConfigError, match=r"dones_mean: 'maybe'"):
        load_dataset(write(log()), dones_mean="maybe")  # pyright: ignore


# Defects of the columns: (what is done to a good log, key, row or None, words of the message)

DEFECTS = {
    "no observations": (lambda a: without(a, "observations"), "observations", None, "the file has actions"),
    "no actions": (lambda a: without(a, "actions"), "actions", None, "store 'actions'"),
    "no reward": (lambda a: without(a, "rewards"), "rewards", None, "missing"),
    "misspelt": (lambda a: renamed(a, rewards="rewrads"), "rewards", None, "did you mean 'rewrads'"),
    "misspelt optional": (lambda a: renamed(a, timeouts="time_outs"), "time_outs", None, "rename it to"),
    "no terminals": (lambda a: without(a, "terminals"), "terminals", None, "all false if the task never"),
    "two spellings": (lambda a: a | {"obs": a["observations"]}, "observations", None, "'obs' means the same"),
    "flat observations": (lambda a: a | {"observations": a["rewards"]}, "observations", None, r"\(9,\)"),
    "no width": (lambda a: a | {"actions": np.zeros((9, 0), "f4")}, "actions", None, "width at least 1"),
    "wide rewards": (lambda a: a | {"rewards": a["actions"]}, "rewards", None, r"shape \(9, 3\)"),
    "scalar flag": (lambda a: a | {"terminals": np.array(True)}, "terminals", None, r"shape \(\)"),
    "too short": (lambda a: a | {"actions": a["actions"][:7]}, "actions", 7, "7 rows where .* has 9"),
    "too long": (lambda a: a | {"rewards": np.zeros(11, "f4")}, "rewards", 9, "11 rows"),
    "widths differ": (
        lambda a: a | {"next_observations": a["actions"]}, "next_observations", 0, "width 3 where"),
    "zero rows": (lambda a: {k: v[:0] for k, v in a.items()}, "observations", None, "zero rows"),
    "NaN": (
        lambda a: replaced(a, "observations", (5, 1), np.nan), "observations", 5, "dimension 1: value nan"),
    "infinity": (lambda a: replaced(a, "rewards", 2, -np.inf), "rewards", 2, "value -inf is not finite"),
    "overflow": (lambda a: replaced(a, "actions", (4, 2), 1e300, "f8"), "actions", 4, r"value 1e\+300"),
    "integers": (lambda a: a | {"observations": np.ones((9, 2), int)}, "observations", None, "type int64"),
    "complex": (lambda a: a | {"rewards": np.ones(9, complex)}, "rewards", None, "type complex128"),
    "strings": (lambda a: a | {"actions": np.full((9, 3), b"left")}, "actions", None, r"type \|S4"),
    "string flags": (lambda a: a | {"timeouts": np.full(9, b"no")}, "timeouts", None, r"type \|S2"),
    "half a flag": (lambda a: replaced(a, "terminals", 3, 0.5, "f4"), "terminals", 3, "0.5 is neither 0"),
    "NaN flag": (lambda a: replaced(a, "timeouts", 1, np.nan, "f4"), "timeouts", 1, "nan is neither"),
    "ends unknown": (
        lambda a: without(a | {"terminals": np.zeros(9)}, "timeouts", "next_observations"),
        "terminals", None, "add 'timeouts'.*or 'next_observations'"),
    "nothing seen": (
        lambda a: without(a, "next_observations") | {"terminals": np.zeros(9), "timeouts": np.ones(9)},
        "observations", 0, "add 'next_observations'"),
    "crossing": (
        lambda a: a | {"next_observations": np.roll(a["observations"], -1, axis=0)},
        "next_observations", 3, "first observation of the next episode"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
@pytest.mark.parametrize("case", DEFECTS)
def test_defect_names_file_key_row_and_remedy(log, write, case, name):
    spoil, key, row, words = DEFECTS[case]
    file = write(spoil(log()), name)
    with pytest.raises(DataError, match=words) as caught:
        load_dataset(file)
    place = f"{file}: key '{key}'" + (f", row {row}" if row is not None else "")
    assert str(caught.value).startswith(place)
    assert re.search(r"Remedy: .+\.$", str(caught.value))


def rolled(arrays, *dropped):
    return without(arrays, *dropped) | {"next_observations": np.roll(arrays["observations"], -1, axis=0)}


def all_false(arrays, key):
    return arrays | {key: np.zeros_like(arrays[key])}


TERMINATING = ((4, "terminal"), (3, "terminal"), (2, "terminal"))


@pytest.mark.parametrize(
    "told",
    [lambda a: a, lambda a: all_false(a, "timeouts"), lambda a: without(a, "timeouts")],
    ids=["with timeouts", "timeouts all false", "without timeouts"],
)
def test_a_terminal_must_not_lead_into_the_next_episode(log, write, told):
    right = told(log(TERMINATING))
    assert load_dataset(write(right)).episode_lengths.tolist() == [4, 3, 2]
    file = write(rolled(right))
    with pytest.raises(DataError) as caught:
        load_dataset(file)
    assert str(caught.value) == (
        f"{file}: key 'next_observations', row 3: the next observation of a terminal is the first observation"
        " of the next episode (row 4), here and at every terminal before the last row. Remedy: delete"
        " 'next_observations', which is then rebuilt within episodes, or clear the terminals if the recording"
        " ran on without a reset."
    )
    mended = load_dataset(write(without(rolled(right), "next_observations")))
    np.testing.assert_array_equal(mended.transitions.next_observation[3], right["observations"][3])


def test_terminals_are_judged_beside_timeouts_that_are_right(log, write):
    arrays = log(((4, "timeout"), (3, "terminal"), (2, "timeout"), (2, "terminal"), (1, "timeout")))
    shifted = rolled(arrays)["next_observations"]
    terminals, timeouts = ([6, 10], [3, 8])
    for crossing, word in ((terminals, "terminal"), (timeouts, "timeout")):
        spoilt = replaced(arrays, "next_observations", crossing, shifted[crossing])
        with pytest.raises(DataError, match=rf"row {crossing[0]}: the next observation of a {word} is"):
            load_dataset(write(spoilt))


def test_a_terminal_that_tells_nothing_excuses_no_other(log, write):
    arrays = log(TERMINATING)
    arrays["observations"][4] = arrays["observations"][3]  # the second episode begins where the first ended
    with pytest.raises(DataError, match=r"row 6: the next observation of a terminal"):
        load_dataset(write(rolled(arrays)))


def test_a_single_coincidence_at_a_terminal_is_no_crossing(log, write):
    arrays = log(TERMINATING)
    arrays["next_observations"][3] = arrays["observations"][4]
    assert load_dataset(write(arrays)).episode_count == 3


def test_a_task_that_ends_at_home_is_no_crossing(log, write):
    """Out along the line and back: home is where every episode begins and ends."""
    arrays = log(TERMINATING)
    place = np.array([0, 1, 2, 1, 0, 1, 1, 0, 1], np.float32)
    following = np.array([1, 2, 1, 0, 1, 1, 0, 1, 0], np.float32)
    home = {"observations": place, "next_observations": following}
    home = {key: np.stack([x, np.ones(9, np.float32)], 1) for key, x in home.items()}
    arrays |= home
    assert load_dataset(write(arrays)).episode_count == 3
    # The jump back to the beginning is longer than any step: a reset.
    arrays["observations"][3, 0] = arrays["next_observations"][2, 0] = 3
    with pytest.raises(DataError, match="row 3: the next observation of a terminal"):
        load_dataset(write(arrays))


def test_one_episode_cannot_cross(log, write):
    arrays = rolled(log(((9, "terminal"),)))
    assert load_dataset(write(arrays)).episode_count == 1


ENDS = st.tuples(st.integers(1, 5), st.sampled_from(["terminal", "timeout"]))


@settings(deadline=None)
@given(episodes=st.lists(ENDS, min_size=2, max_size=6), keeps_timeouts=st.booleans(), alike=st.booleans())
def test_rows_shifted_over_episodes_never_load(log, tmp_path_factory, episodes, keeps_timeouts, alike):
    """Without timeouts nothing but terminals tells of an end, so one before the last must be there.

    Where all episodes begin alike, a reset is told by its jump, which takes three rows.
    """
    arrays = log([(length + 2 * alike, how) for length, how in episodes])
    if alike:
        arrays["observations"][:, 1] = arrays["next_observations"][:, 1] = 0
    if not keeps_timeouts:
        assume(arrays["terminals"][:-1].any())
        arrays = without(arrays, "timeouts")
    file = tmp_path_factory.mktemp("rolled") / "log.npz"
    np.savez(file, **arrays)
    assert load_dataset(file).episode_count == len(episodes)
    np.savez(file, **rolled(arrays))
    with pytest.raises(DataError, match="is the first observation of the next episode"):
        load_dataset(file)


def test_real_logs_that_terminate_do_not_cross(real_log):
    file = real_log.with_name("walker2d_medium-v5.hdf5")
    if not file.exists():
        pytest.skip("the real log is not here")
    assert load_dataset(file).transitions.terminated.sum() == 120


def test_a_continuous_state_that_never_moves_is_no_crossing(log, write):
    arrays = log()
    still = np.zeros_like(arrays["observations"])
    arrays |= {"observations": still, "next_observations": still}
    assert load_dataset(write(arrays)).episode_count == 3


# Defects of the file itself


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.hdf5", b"", "is empty"),
        ("log.hdf5", b"observations,actions\n", "neither an HDF5 file nor an npz"),
        ("log.npz", b"PK\x03\x04 and no more", "damaged or cut short"),
        ("log.txt", b"observations,actions\n", "unknown extension '.txt'"),
        ("log.npz", pickle.dumps([1, 2]), "neither an HDF5 file nor an npz"),
        ("log.hdf5", None, "no such file"),
    ],
)
def test_unusable_file(tmp_path, name, content, words):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=rf"{re.escape(str(file))}: .*{words}.*Remedy: "):
        load_dataset(file)


def test_directory(tmp_path):
    with pytest.raises(DataError, match=r"is a directory"):
        load_dataset(tmp_path)


def test_name_too_long(tmp_path):
    with pytest.raises(DataError, match=r"cannot be opened"):
        load_dataset(tmp_path / ("x" * 300 + ".hdf5"))


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
def test_file_cut_in_half(log, write, name):
    file = write(log(), name)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"log.*damaged or cut short.*Remedy: copy"):
        load_dataset(file)


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz"])
def test_damaged_values_name_the_key(log, tmp_path, name):
    file = tmp_path / name
    arrays = log(((500, "timeout"),))
    save_dataset(file, arrays) if name == "log.hdf5" else np.savez_compressed(file, **arrays)
    content = bytearray(file.read_bytes())
    stream = content.find(b"\x78\x5e") if name == "log.hdf5" else content.find(b".npy") + 40
    content[stream + 4 : stream + 60] = bytes(56)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"key '\w+': is damaged"):
        load_dataset(file)


# Files that would do harm


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (type(self.marker).touch, (self.marker,))


def test_pickled_objects_are_refused_unread(log, write, tmp_path):
    marker = tmp_path / "executed"
    hostile = np.empty(9, object)
    hostile[:] = [Hostile(marker)] * 9
    file = write(log() | {"rewards": hostile}, "log.npz")
    with pytest.raises(DataError, match=r"key 'rewards': .*never unpickled"):
        load_dataset(file)
    assert not marker.exists()
    with np.load(file, allow_pickle=True) as archive:
        assert len(archive["rewards"]) == 9
    assert marker.exists(), "the file was harmless, so the test proved nothing"


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.hdf5", "rewards"), h5py.SoftLink("/other")])
def test_links_are_refused(log, write, link):
    write(log(), "other.hdf5")
    file = write(without(log(), "rewards"))
    with h5py.File(file, "a") as container:
        container["other"] = log()["rewards"]
        container["rewards"] = link
        assert container["rewards"].shape == (9,), "the link leads nowhere, so the test proves nothing"
    with pytest.raises(DataError, match=r"key 'rewards': is a \w+Link.*Remedy: copy the values"):
        load_dataset(file)


def add_virtual(container, folder):
    layout = h5py.VirtualLayout((9,), "f4")
    layout[:] = h5py.VirtualSource(folder / "other.hdf5", "rewards", (9,))
    container.create_virtual_dataset("rewards", layout)


def add_external(container, folder):
    (folder / "raw").write_bytes(bytes(36))
    container.create_dataset("rewards", (9,), "f4", external=[(folder / "raw", 0, 36)])


@pytest.mark.parametrize("add", [add_virtual, add_external])
def test_values_in_other_files_are_refused(log, write, tmp_path, add):
    write(log(), "other.hdf5")
    file = write(without(log(), "rewards"))
    with h5py.File(file, "a") as container:
        add(container, tmp_path)
    with pytest.raises(DataError, match=r"key 'rewards': keeps its values in other files"):
        load_dataset(file)


@pytest.mark.parametrize("kind", ["group", "null"])
def test_key_that_is_no_array(log, write, kind):
    file = write(without(log(), "observations"))
    with h5py.File(file, "a") as container:
        if kind == "group":
            container["observations/position"] = np.zeros(9)
        else:
            container["observations"] = h5py.Empty("f4")
    with pytest.raises(DataError, match=r"key 'observations': is not an array"):
        load_dataset(file)


def test_key_that_is_no_text_is_passed_over(log, write):
    file = write(log())
    with h5py.File(file, "a") as container:
        container[b"\xff\xfe"] = 1.0
    assert len(load_dataset(file)) == 9
    with h5py.File(file, "a") as container:
        del container["rewards"]
    with pytest.raises(DataError, match=r"key 'rewards': missing"):
        load_dataset(file)


def test_claimed_size_beyond_memory_is_refused_unread(log, write):
    rows = psutil.virtual_memory().total // 8
    file = write(without(log(), "observations"))
    with h5py.File(file, "a") as container:
        for key in ("actions", "rewards", "next_observations", "terminals", "timeouts"):
            del container[key]
        for key, shape in {"observations": (rows, 2), "actions": (rows, 3), "rewards": (rows,)}.items():
            container.create_dataset(key, shape, "f4", chunks=True)
        container.create_dataset("terminals", (rows,), bool, chunks=True)
    assert file.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"key 'actions': claims .* GiB to read.*Remedy: split"):
        load_dataset(file)


def npy_header(shape):
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("rows", "words"),
    [(10**15, r"claims .* GiB to read"), (-9, r"is damaged.*negative shape"), (9, r"is damaged")],
)
def test_npz_headers_that_lie(tmp_path, rows, words):
    file = tmp_path / "log.npz"
    shapes = {"observations": (rows, 2), "actions": (rows, 3), "rewards": (rows,), "terminals": (rows,)}
    with zipfile.ZipFile(file, "w") as archive:
        for key, shape in shapes.items():
            archive.writestr(f"{key}.npy", npy_header(shape))
    with pytest.raises(DataError, match=rf"log\.npz: key '\w+': {words}"):
        load_dataset(file)


def test_npz_member_that_unpacks_beyond_memory(log, write, monkeypatch):
    file = write(log(), "log.npz")
    nearly_full = psutil.virtual_memory()._replace(available=100)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: nearly_full)
    with pytest.raises(DataError, match=r"key 'observations': claims"):
        load_dataset(file)


# Saving

structures = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["terminal", "timeout"])), min_size=1)


@settings(max_examples=40, deadline=None, database=None)
@given(episodes=structures, seed=st.integers(0, 1000))
def test_round_trip(log, tmp_path_factory, episodes, seed):
    arrays = log(episodes)
    arrays["actions"] = np.random.default_rng(seed).standard_normal(arrays["actions"].shape, np.float32)
    file = tmp_path_factory.mktemp("round") / "log.hdf5"
    first = load_dataset(save_dataset(file, arrays))
    again = load_dataset(save_dataset(file, first))
    assert first.episode_lengths.tolist() == [length for length, _ in episodes]
    for left, middle, right in zip(
        first.transitions, again.transitions, list(arrays.values())[:5], strict=True
    ):
        np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(left, middle)
    np.testing.assert_array_equal(first.episode_end, again.episode_end)


@settings(max_examples=40, deadline=None, database=None)
@given(episodes=structures)
def test_with_and_without_next_observations_agree_inside_episodes(log, tmp_path_factory, episodes):
    arrays = log([*episodes, (2, "terminal")])
    folder = tmp_path_factory.mktemp("agree")
    full = load_dataset(save_dataset(folder / "full.hdf5", arrays))
    bare = load_dataset(save_dataset(folder / "bare.hdf5", without(arrays, "next_observations")))
    kept = np.arange(len(full)) if bare.file_row is None else bare.file_row
    interior = ~full.episode_end[kept]
    for left, right in zip(bare.transitions, full.transitions, strict=True):
        np.testing.assert_array_equal(left[interior], right[kept][interior])
    assert set(np.flatnonzero(~full.episode_end)) <= set(kept)
    assert bare.transitions.terminated.sum() == full.transitions.terminated.sum()


def test_save_marks_every_other_end_as_timeout(log, tmp_path):
    arrays = log(((2, "terminal"), (3, "")))
    dataset = load_dataset(save_dataset(tmp_path / "first.hdf5", arrays))
    with h5py.File(save_dataset(tmp_path / "new" / "second.h5", dataset)) as container:
        assert container["terminals"][:].tolist() == [False, True, False, False, False]
        assert container["timeouts"][:].tolist() == [False, False, False, False, True]


def test_failed_save_leaves_the_old_file_and_no_debris(log, tmp_path):
    file = save_dataset(tmp_path / "log.hdf5", log())
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_dataset(file, log() | {"rewards": np.array([object()])})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_save_refuses_other_extensions_and_unwritable_places(log, tmp_path):
    with pytest.raises(DataError, match=r"end it in \.hdf5 or \.h5"):
        save_dataset(tmp_path / "log.npz", log())
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written"):
        save_dataset(tmp_path / "file" / "log.hdf5", log())


def test_real_log(real_log):
    dataset = load_dataset(real_log)
    assert isinstance(dataset, Dataset)
    assert (len(dataset), dataset.observation_size, dataset.action_size) == (200_000, 17, 6)
    assert (dataset.episode_lengths == 1000).all()
    assert not dataset.transitions.terminated.any()
