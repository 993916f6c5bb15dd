"""LeRobot's folders with known answers, and what can be wrong with them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simtrust.data import load_dataset
from simtrust.errors import DataError, DataWarning

LENGTHS = (3, 2, 4)


def frames():
    step = np.concatenate([np.arange(length) for length in LENGTHS])
    episode = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    state = np.stack([step, 10 * episode], axis=1).astype(np.float32)
    return {
        "observation.state": pa.array(list(state), pa.list_(pa.float32(), 2)),
        "action": pa.array([[float(n)] for n in range(9)], pa.list_(pa.float32())),
        "next.reward": pa.array(np.arange(9), pa.float32()),
        "next.done": np.append(np.diff(episode) != 0, True),
        "timestamp": pa.array(step / 10, pa.float32()),
        "frame_index": step,
        "episode_index": episode,
        "observation.images.front": pa.array([{"path": "x.png"}] * 9),
    }


def info(**changes):
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["shoulder", "elbow"]}},
        "action": {"dtype": "float32", "shape": [1], "names": ["shoulder"]},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
    }
    return {"codebase_version": "v3.0", "fps": 10, "total_frames": 9, "features": features} | changes


@pytest.fixture
def put(tmp_path):
    def write(columns=None, meta=None, cuts=(4, 7)):
        """The frames in three files, the last of which comes first in the order of the alphabet."""
        table = pa.table(frames() if columns is None else columns)
        bounds = (0, *cuts, len(table))
        names = ("chunk-000/file-000", "chunk-000/file-999", "chunk-000/file-1000")
        for name, start, end in zip(names, bounds, bounds[1:], strict=False):
            file = tmp_path / "data" / f"{name}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.slice(start, end - start), file)
        (tmp_path / "meta").mkdir(exist_ok=True)
        meta = info() if meta is None else meta
        (tmp_path / "meta" / "info.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
        return tmp_path

    return write


def test_frames_in_the_order_of_their_files(put):
    dataset = load_dataset(put(), dones_mean="terminated")
    assert dataset.transitions.action[:, 0].tolist() == list(range(9))
    assert dataset.transitions.reward.tolist() == list(range(9))
    assert dataset.transitions.terminated.tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 1]
    assert dataset.transitions.next_observation[:, 0].tolist() == [1, 2, 2, 1, 1, 1, 2, 3, 3]
    assert dataset.episode_lengths.tolist() == list(LENGTHS)
    assert dataset.observation_names == ("shoulder", "elbow")
    assert dataset.action_names == ("shoulder",)
    assert (dataset.observation_units, dataset.action_units) == (None, None)
    np.testing.assert_array_equal(dataset.time[:3], np.array([0, 0.1, 0.2], np.float32))


def test_done_by_a_time_limit(put):
    dataset = load_dataset(put(), dones_mean="timeout")
    assert not dataset.transitions.terminated.any()
    assert dataset.file_row.tolist() == [0, 1, 3, 5, 6, 7]


def test_done_wants_its_meaning_unless_cuts_are_marked(put):
    with pytest.raises(DataError, match=r"column 'next\.done': does not say.*--dones-mean"):
        load_dataset(put())
    cut = [False, False, True] + [False] * 6
    dataset = load_dataset(put(frames() | {"next.truncated": cut}))
    assert np.flatnonzero(dataset.transitions.terminated).tolist() == [3, 7]
    assert dataset.file_row.tolist() == [0, 1, 3, 4, 5, 6, 7, 8]


def test_without_done_no_row_is_terminal(put):
    columns = frames()
    del columns["next.done"]
    with pytest.warns(DataWarning, match=r"no row counts as terminal"):
        assert load_dataset(put(columns)).episode_lengths.tolist() == [2, 1, 3]


def test_reward_is_needed_and_may_be_named(put):
    columns = frames()
    columns["score"] = columns.pop("next.reward")
    with pytest.raises(DataError, match=r"column 'next\.reward': missing.*'score'.*--map reward=NAME"):
        load_dataset(put(columns))
    unrewarded = load_dataset(put(columns), dones_mean="terminated", rewards_required=False)
    assert not unrewarded.has_rewards and len(unrewarded) == 9
    fields = ["observation=observation.state", "action=action", "reward=score", "episode=episode_index",
              "terminated=next.done"]  # fmt: skip
    dataset = load_dataset(put(columns), columns=fields)
    assert dataset.transitions.reward.tolist() == list(range(9))
    assert dataset.observation_names == ("shoulder", "elbow")


def test_names_that_are_not_of_the_entries_are_passed_over(put):
    meta = info(features={"observation.state": {"names": ["motors"]}, "action": {"names": [1]}, "x": None})
    dataset = load_dataset(put(meta=meta), dones_mean="terminated")
    assert (dataset.observation_names, dataset.action_names) == (None, None)
    assert load_dataset(put(meta=info(features=3)), dones_mean="timeout").observation_names is None


def test_motors_of_several_features_are_told_apart(put):
    meta = info()
    meta["features"]["observation.velocity"] = {"names": {"motors": ["shoulder", "elbow"]}}
    columns = frames()
    columns["observation.velocity"] = columns["observation.state"]
    fields = ["observation=observation.state,observation.velocity", "action=action", "reward=next.reward",
              "episode=episode_index", "terminated=next.done"]  # fmt: skip
    dataset = load_dataset(put(columns, meta), columns=fields)
    assert dataset.observation_names == (
        "observation.state[shoulder]",
        "observation.state[elbow]",
        "observation.velocity[shoulder]",
        "observation.velocity[elbow]",
    )
    assert dataset.action_names == ("shoulder",)
    meta["features"]["observation.state"]["names"] = ["elbow", "elbow"]
    names = load_dataset(put(columns, meta), columns=fields).observation_names
    assert names == (
        "observation.state[elbow]",
        "observation.state[elbow] 2",
        "shoulder",
        "observation.velocity[elbow]",
    )


def test_an_older_layout_is_to_be_converted(put):
    folder = put(meta=info(codebase_version="v2.1"))
    for number, file in enumerate(sorted(folder.glob("data/*/*"))):
        file.rename(file.with_name(f"episode_{number:06}.parquet"))
    with pytest.raises(DataError, match=r"info\.json: says version v2\.1.*convert it to v3\.0"):
        load_dataset(folder)


def test_sum_is_of_all_files(put):
    sums = {load_dataset(put(), dones_mean="terminated").sha256}
    sums.add(load_dataset(put(), dones_mean="terminated").sha256)
    assert len(sums) == 1
    sums.add(
        load_dataset(
            put(frames() | {"next.reward": pa.array([*range(8), 0.5], pa.float32())}), dones_mean="terminated"
        ).sha256
    )
    sums.add(load_dataset(put(meta=info(fps=20)), dones_mean="terminated").sha256)
    assert len(sums) == 3


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (info(codebase_version="v2.1"), r"info\.json: says version v2\.1.*convert it"),
        (info(total_frames=10), r"holds 9 frames where meta/info\.json says 10.*copy"),
        ("{", r"info\.json: is damaged"),
        ("[" * 100_000, r"info\.json: is damaged"),
        ("[]", r"info\.json: is damaged"),
        ("{}", r"info\.json: is damaged"),
    ],
)
def test_metadata_that_cannot_be(put, meta, words):
    with pytest.raises(DataError, match=words):
        load_dataset(put(meta=meta), dones_mean="terminated")


def test_files_that_are_missing_damaged_or_differ(put):
    folder = put()
    file = folder / "data/chunk-000/file-999.parquet"
    pq.write_table(pa.table({"x": [1]}), file)
    with pytest.raises(DataError, match=r"'file-999\.parquet' has other columns than 'file-000\.parquet'"):
        load_dataset(folder)
    file.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"file-999\.parquet.*is damaged"):
        load_dataset(folder)
    for one in folder.glob("data/*/*"):
        one.unlink()
    with pytest.raises(DataError, match=r"has no data/chunk-\*/file-\*\.parquet"):
        load_dataset(folder)
