"""Minari's folders with known answers, files that would do harm, and what Minari makes of ours."""

import hashlib
import json

import h5py
import numpy as np
import psutil
import pytest

from simtrust.data import Dataset, load_dataset
from simtrust.data.minari_out import save_minari
from simtrust.errors import ConfigError, DataError, DataWarning

LENGTHS = (3, 1, 11)
ID = "my-robot/test-v0"


def episodes():
    """Observations count 0, 1, … beside 100 times the episode's number; the second terminates."""
    return [
        {
            "observations": np.array([(step, 100 * number) for step in range(length + 1)], np.float32),
            "actions": np.full((length, 1), number, np.float32),
            "rewards": np.arange(length) + 10.0 * number,
            "terminations": np.full(length, number == 1),
            "truncations": np.arange(length) == (length - 1 if number == 0 else -1),
        }
        for number, length in enumerate(LENGTHS)
    ]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def put(root):
    def write(wanted=None, description=None):
        folder = root / ID
        (folder / "data").mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / "data/main_data.hdf5", "w") as file:
            for number, arrays in enumerate(episodes() if wanted is None else wanted):
                for key, values in arrays.items():
                    file[f"episode_{number}/{key}"] = values
        text = description if isinstance(description, str) else json.dumps(description or {})
        (folder / "data/metadata.json").write_text(text)
        return folder

    return write


def changed(number, **arrays):
    wanted = episodes()
    wanted[number] |= arrays
    return wanted


def editing(folder):
    return h5py.File(folder / "data/main_data.hdf5", "r+")


# Reading


def test_known_answers(put):
    folder = put()
    dataset = load_dataset(f"minari:{ID}")
    rows = dataset.transitions
    assert rows.observation[:, 0].tolist() == [0, 1, 2, 0, *range(11)]
    assert rows.next_observation[:, 0].tolist() == [1, 2, 3, 1, *range(1, 12)]
    assert (rows.next_observation[:, 1] == rows.observation[:, 1]).all()
    assert rows.reward.tolist() == [0, 1, 2, 10, *range(20, 31)]
    assert rows.action[:, 0].tolist() == [0, 0, 0, 1, *[2] * 11]
    assert np.flatnonzero(rows.terminated).tolist() == [3]
    assert dataset.episode_lengths.tolist() == list(LENGTHS), "the third ends in neither flag"
    assert all(values.dtype == np.float32 and values.flags.c_contiguous for values in rows)
    assert dataset.source == f"minari:{ID}" and dataset.file_row is None
    data = (folder / "data/main_data.hdf5").read_bytes()
    assert dataset.sha256 == hashlib.sha256(data).hexdigest()
    assert load_dataset(folder).sha256 == dataset.sha256


def test_episodes_in_the_order_of_their_numbers(put):
    wanted = [episodes()[0] | {"rewards": np.full(3, float(number))} for number in range(11)]
    put(wanted)
    assert load_dataset(f"minari:{ID}").transitions.reward[::3].tolist() == list(range(11))


def test_flags_inside_of_an_episode_end_it(put):
    put(changed(2, terminations=np.arange(11) == 4, truncations=np.arange(11) == 6))
    dataset = load_dataset(f"minari:{ID}")
    assert dataset.episode_lengths.tolist() == [3, 1, 5, 2, 4]
    assert np.flatnonzero(dataset.transitions.terminated).tolist() == [3, 8]


def test_a_recording_that_was_cut_and_ran_on(put):
    wanted = episodes()[:1] * 2
    wanted[1] = wanted[1] | {"observations": wanted[0]["observations"] + [[3, 0]]}
    put([{key: np.asarray(values) for key, values in episode.items()} for episode in wanted])
    dataset = load_dataset(f"minari:{ID}")
    assert dataset.episode_lengths.tolist() == [3, 3]
    assert dataset.transitions.observation[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_without_metadata_whole_rewards_and_an_episode_without_steps(put):
    empty = {key: values[: len(values) - 3] for key, values in episodes()[0].items()}
    folder = put([{**episodes()[0], "rewards": np.arange(3)}, empty, episodes()[1]])
    (folder / "data/metadata.json").unlink()
    dataset = load_dataset(folder)
    assert dataset.transitions.reward.tolist() == [0, 1, 2, 10]
    assert dataset.episode_lengths.tolist() == [3, 1]


def test_what_is_not_there_is_not_downloaded(root):
    with pytest.raises(DataError, match=r"no such dataset at .*minari download D4RL/pen/human-v2"):
        load_dataset("minari:D4RL/pen/human-v2")
    assert not root.exists()


@pytest.mark.parametrize("name", ["", "no-version", "../../etc/x-v0", "/tmp/x-v0", "a b-v0", "robots//x-v0"])
def test_ids_that_cannot_be(root, name):
    with pytest.raises(ConfigError, match="is no id of a Minari dataset"):
        load_dataset(f"minari:{name}")


def test_map_is_for_tables(put):
    put()
    with pytest.raises(ConfigError, match="leave --map out"):
        load_dataset(f"minari:{ID}", columns=["observation=a", "action=b", "reward=c", "episode=d"])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (changed(1, observations=np.zeros((1, 2), "f4")), r"episode_1/observations.*has 1 rows where 2"),
        (changed(1, rewards=np.zeros(2)), r"episode_1/rewards.*has 2 rows where 1"),
        (changed(2, observations=np.zeros((12, 3), "f4")), r"episode_2/observations': has \(3,\)"),
        (changed(0, actions=np.zeros(3)), r"episode_0/actions.*has shape \(3,\).*FlattenObservation"),
        (changed(0, rewards=np.full(3, np.nan)), r"key 'rewards', row 0: value nan is not finite"),
        (changed(0, terminations=np.full(3, 2)), r"key 'terminations', row 0: value 2 is neither"),
        (
            [{k: v for k, v in episodes()[0].items() if k != "truncations"}],
            r"episode_0/truncations': missing",
        ),
        ([], "has no episodes"),
        ([{key: values[: len(values) - 3] for key, values in episodes()[0].items()}], "has zero rows"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be(put, wanted, words):
    put(wanted)
    with pytest.raises(DataError, match=words):
        load_dataset(f"minari:{ID}")


def test_goal_environments_are_refused(put):
    wanted = episodes()
    observations = wanted[0].pop("observations")
    put([wanted[0] | {"observations/observation": observations, "observations/desired_goal": observations}])
    with pytest.raises(DataError, match=r"episode_0/observations.*Dict or Tuple.*desired_goal"):
        load_dataset(f"minari:{ID}")


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"data_format": "arrow"}, r"stores its data as arrow.*data_format='hdf5'"),
        ({"total_episodes": 4}, r"holds 3 episodes where metadata\.json says 4"),
        ("{", r"metadata\.json: is damaged"),
        ("[" * 100_000, r"metadata\.json: is damaged"),
        ("[]", r"metadata\.json: is damaged"),
        ({"simtrust_names": {"observation_names": ["only one"]}}, "does not fit the file's rows"),
        ({"simtrust_names": 3}, "does not fit the file's rows"),
    ],
)
def test_metadata_that_cannot_be(put, description, words):
    put(description=description)
    with pytest.raises(DataError, match=words):
        load_dataset(f"minari:{ID}")


def test_the_environment_in_the_metadata_is_never_made(put):
    put(description={"env_spec": json.dumps({"id": "x-v0", "entry_point": "no_such_module:make"})})
    assert len(load_dataset(f"minari:{ID}")) == 15


def test_links_are_not_followed(put, tmp_path):
    folder = put()
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        for key, values in episodes()[0].items():
            other[f"episode_0/{key}"] = values
    with editing(folder) as file:
        del file["episode_0"]
        file["episode_0"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "episode_0")
    with pytest.raises(DataError, match="'episode_0': is a link"):
        load_dataset(folder)
    with editing(folder) as file:
        del file["episode_0"]
        file.copy(file["episode_1"], "episode_0")
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = h5py.SoftLink("/episode_1/rewards")
    with pytest.raises(DataError, match="'episode_0/rewards': is a SoftLink"):
        load_dataset(folder)


def test_claimed_sizes_are_checked_before_reading(put, monkeypatch):
    folder = put()
    with editing(folder) as file:
        for key, values in episodes()[0].items():
            del file[f"episode_0/{key}"]
            claimed = (2**36 + (key == "observations"), *values.shape[1:])
            file.create_dataset(f"episode_0/{key}", claimed, values.dtype, chunks=(1024, *values.shape[1:]))
    assert psutil.virtual_memory().available < 2**36
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda *_: pytest.fail("was read"))
    with pytest.raises(DataError, match="GiB to read"):
        load_dataset(folder)


def test_damaged_file(put):
    folder = put()
    file = folder / "data/main_data.hdf5"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataError, match="is damaged or cut short"):
        load_dataset(folder)
    file.unlink()
    with pytest.raises(DataError, match=r"main_data\.hdf5: no such file"):
        load_dataset(folder)


# Writing


def read_log(arrays, write):
    return load_dataset(write(arrays))


def same_rows(one: Dataset, other: Dataset):
    for left, right in zip(one.transitions, other.transitions, strict=True):
        assert left.tobytes() == right.tobytes()


def test_round_trip(log, write, root):
    dataset = read_log(log(), write)
    folder = save_minari(dataset, ID)
    assert folder == root / ID
    again = load_dataset(f"minari:{ID}")
    same_rows(again, dataset)
    assert again.episode_end.tolist() == dataset.episode_end.tolist()
    with h5py.File(folder / "data/main_data.hdf5") as file:
        assert [len(file[f"episode_{number}/observations"]) for number in range(3)] == [5, 4, 3]
        assert file["episode_0/truncations"][:].tolist() == [False] * 3 + [True]
        assert file["episode_1/terminations"][:].tolist() == [False] * 2 + [True]
        assert not file["episode_1/truncations"][:].any()
        assert not any("simtrust_final_observation_unknown" in file[name].attrs for name in file)
    assert json.loads((root / "my-robot/namespace_metadata.json").read_text()) == {}
    assert [file.name for file in root.iterdir()] == ["my-robot"], "the root itself is no namespace"
    assert sorted(file.name for file in folder.parent.iterdir()) == ["namespace_metadata.json", "test-v0"]


def test_names_units_and_time(log, write, root, tmp_path):
    plain = read_log(log(), write)
    names = (("θ", "ω"), ("a", "b", "c"), ("rad", ""), None)
    time = np.array([0, 0.1, 0.2, 0.3, 0, 0.1, 0.2, 0, 1 / 3])
    dataset = Dataset(plain.transitions, plain.episode_end, "x", "y", None, time, *names)
    save_minari(dataset, ID, root=tmp_path / "elsewhere")
    again = load_dataset(tmp_path / "elsewhere" / ID)
    assert tuple(again.names) == names
    assert again.time.tobytes() == time.tobytes()
    with editing(tmp_path / "elsewhere" / ID) as file:
        del file["episode_1/simtrust_time"]
    assert load_dataset(tmp_path / "elsewhere" / ID).time is None
    assert not root.exists()


def test_a_state_that_nobody_recorded_is_marked(log, write, root):
    arrays = {key: values for key, values in log().items() if key != "next_observations"}
    dataset = read_log(arrays, write)
    with pytest.warns(DataWarning, match=r"1 episodes terminated in a state that nobody recorded"):
        folder = save_minari(dataset, ID)
    same_rows(load_dataset(f"minari:{ID}"), dataset)
    with h5py.File(folder / "data/main_data.hdf5") as file:
        marked = [name for name in file if "simtrust_final_observation_unknown" in file[name].attrs]
        assert marked == ["episode_1"]
        assert (file["episode_1/observations"][-1] == file["episode_1/observations"][-2]).all()


def test_a_gap_cuts_an_episode_and_loses_nothing(log, write, root):
    arrays = {key: np.delete(values, 1, axis=0) for key, values in log().items()}
    dataset = read_log(arrays, write)
    assert dataset.episode_lengths.tolist() == [3, 3, 2]
    with pytest.warns(DataWarning, match="1 times the next row of an episode is missing"):
        save_minari(dataset, ID)
    again = load_dataset(f"minari:{ID}")
    same_rows(again, dataset)
    assert again.episode_lengths.tolist() == [1, 2, 3, 2]
    assert again.transitions.terminated.tolist() == dataset.transitions.terminated.tolist()


def test_what_is_there_is_replaced_only_if_told(log, write, root):
    dataset = read_log(log(), write)
    other = read_log(log(((2, "terminal"),)), lambda arrays: write(arrays, "other.npz"))
    save_minari(dataset, ID)
    with pytest.raises(ConfigError, match=r"a Minari dataset lies at .*--overwrite"):
        save_minari(other, ID)
    assert len(load_dataset(f"minari:{ID}")) == 9
    save_minari(other, ID, overwrite=True)
    assert len(load_dataset(f"minari:{ID}")) == 2
    assert sorted(file.name for file in (root / "my-robot").iterdir()) == [
        "namespace_metadata.json",
        "test-v0",
    ]
    (root / "mine-v0").mkdir()
    with pytest.raises(ConfigError, match="is no Minari dataset"):
        save_minari(other, "mine-v0", overwrite=True)
    with pytest.raises(ConfigError, match="is no id"):
        save_minari(other, "../x-v0")


def test_a_root_that_cannot_be_written(log, write, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        save_minari(read_log(log(), write), ID, root=tmp_path / "file")


def test_minari_reads_what_was_written(log, write, root):
    minari = pytest.importorskip("minari")
    dataset = read_log(log(), write)
    save_minari(dataset, ID)
    assert list(minari.list_local_datasets()) == [ID]
    theirs = minari.load_dataset(ID)
    assert (theirs.total_episodes, theirs.total_steps) == (3, 9)
    assert theirs.observation_space.shape == (2,) and theirs.action_space.shape == (3,)
    row = 0
    for episode in theirs.iterate_episodes():
        steps = slice(row, row + len(episode))
        np.testing.assert_array_equal(episode.observations[:-1], dataset.transitions.observation[steps])
        np.testing.assert_array_equal(episode.observations[1:], dataset.transitions.next_observation[steps])
        np.testing.assert_array_equal(episode.actions, dataset.transitions.action[steps])
        np.testing.assert_array_equal(episode.rewards, dataset.transitions.reward[steps])
        np.testing.assert_array_equal(episode.terminations, dataset.transitions.terminated[steps] == 1)
        assert episode.truncations[-1] != episode.terminations[-1]
        assert "EpisodeData" in repr(episode)
        row += len(episode)
    assert row == 9


def test_what_minari_wrote_is_read(root):
    minari = pytest.importorskip("minari")
    import gymnasium
    from minari.data_collector import EpisodeBuffer

    boxes = (gymnasium.spaces.Box(-np.inf, np.inf, (2,)), gymnasium.spaces.Box(-1, 1, (1,)))
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            ID, [EpisodeBuffer(**arrays) for arrays in episodes()],
            observation_space=boxes[0], action_space=boxes[1], data_format="hdf5",
        )  # fmt: skip
    dataset = load_dataset(f"minari:{ID}")
    assert dataset.episode_lengths.tolist() == list(LENGTHS)
    assert dataset.transitions.next_observation[:, 0].tolist() == [1, 2, 3, 1, *range(1, 12)]
