"""Datasets are found by name, told by the command that makes them, and drawn from in whole episodes."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simtrust.data import Dataset, load_dataset, save_dataset
from simtrust.errors import DataError, RunError
from simtrust.paper.cells import cell
from simtrust.paper.logs import (
    Log,
    LogFacts,
    best_decile,
    facts_of,
    file_name,
    log_of,
    require_logs,
    whole_episodes,
)
from simtrust.paper.studies import STUDIES
from simtrust.types import Transitions


def log(lengths, source="log.hdf5") -> Dataset:
    """Episodes whose rows tell which they are of: observations are (episode, row within it)."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    row = np.concatenate([np.arange(length) for length in lengths])
    observation = np.stack([episode, row], 1).astype(np.float32)
    end = np.append(episode[1:] != episode[:-1], True)
    following = observation + np.array([0, 1], np.float32)
    # Every other episode ends in a terminal.
    terminated = (end & (episode % 2 == 1)).astype(np.float32)
    rows = Transitions(observation, observation[:, :1], episode.astype(np.float32), following, terminated)
    return Dataset(rows, end, source, "sum")


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(LENGTHS, st.data())
def test_episodes_are_whole_and_no_more_rows_than_asked_for(lengths, data):
    rows = data.draw(st.integers(max(lengths), sum(lengths)))
    columns = whole_episodes(log(lengths), rows)
    episode, row = columns["observations"].astype(int).T
    kept = list(dict.fromkeys(episode.tolist()))
    assert rows - max(lengths) < len(episode) <= rows
    assert episode.tolist() == [k for k in kept for _ in range(lengths[k])]
    assert row.tolist() == [i for k in kept for i in range(lengths[k])]
    ends = columns["terminals"] | columns["timeouts"]
    assert ends.sum() == len(kept)
    assert (columns["terminals"][ends] == (np.array(kept) % 2 == 1)).all()


@given(LENGTHS, st.integers(0, 5))
def test_what_holds_for_fewer_rows_is_the_beginning_of_what_holds_for_more(lengths, seed):
    some, all_ = (
        whole_episodes(log(lengths), rows, seed=seed)["observations"] for rows in (max(lengths), sum(lengths))
    )
    assert len(all_) == sum(lengths)
    np.testing.assert_array_equal(some, all_[: len(some)])


def test_episodes_are_drawn_from_all_of_the_log():
    """A replay buffer's first rows are of its worst policies."""
    drawn = whole_episodes(log([10] * 100), 200)["observations"][:, 0]
    assert len(np.unique(drawn)) == 20
    assert 30 < drawn.mean() < 70
    other = whole_episodes(log([10] * 100), 200, seed=1)["observations"][:, 0]
    assert set(other) != set(drawn)


def test_a_log_that_is_too_short_is_told():
    with pytest.raises(DataError, match=r"log.hdf5: has 20 rows, 21 are wanted"):
        whole_episodes(log([10, 10]), 21)
    with pytest.raises(DataError, match="an episode drawn has 10 rows, more than the 9 wanted"):
        whole_episodes(log([10, 10]), 9)


@pytest.mark.parametrize(("episodes", "mean"), [(20, 18.5 * 2), (4, 3 * 2), (30, 28 * 2)])
def test_the_best_decile_is_the_mean_of_the_best_tenth(episodes, mean):
    # Episode k has two rows of reward k.
    assert best_decile(log([2] * episodes)) == mean


def test_files_are_named_as_the_data_sets_are():
    assert file_name("halfcheetah", "medium-replay") == "halfcheetah_medium_replay-v5.hdf5"
    assert file_name("walker2d", "medium") == "walker2d_medium-v5.hdf5"


def test_a_missing_dataset_is_told_with_the_command_that_makes_it(tmp_path):
    (tmp_path / "halfcheetah_medium-v5.hdf5").touch()
    with pytest.raises(DataError) as told:
        require_logs(STUDIES["table1"].cells, tmp_path)
    path = tmp_path / "halfcheetah_medium_replay-v5.hdf5"
    assert f"simtrust generate HalfCheetah-v5 medium-replay --out {path}" in str(told.value)
    assert "medium_expert" in str(told.value)
    assert "halfcheetah_medium-v5" not in str(told.value)
    require_logs(
        [cell("halfcheetah", "medium", "gravity", "h2o"), cell("walker2d", "", "gravity", "sac")], tmp_path
    )


def test_the_command_told_is_one_that_a_shell_takes(tmp_path):
    folder = tmp_path / "my data; and more"
    with pytest.raises(DataError) as told:
        require_logs(STUDIES["table2"].cells, folder)
    words = shlex.split(str(told.value).splitlines()[-1])
    assert words[-2:] == ["--out", str(folder / "halfcheetah_medium_replay-v5.hdf5")]


def found_log(one, data, out) -> Log:
    found = log_of(one, data, out)
    assert found is not None
    return found


class TestLogOf:
    @pytest.fixture
    def data(self, tmp_path) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        save_dataset(folder / "halfcheetah_medium-v5.hdf5", log([400] * 10))
        return folder

    def test_a_whole_dataset_is_read_where_it_is_and_its_facts_are_kept(self, data, tmp_path):
        path, facts = found_log(cell("halfcheetah", "medium", "gravity", "h2o"), data, tmp_path)
        assert path == data / "halfcheetah_medium-v5.hdf5"
        assert (facts.rows, facts.episodes, facts.best_decile) == (4_000, 10, 9 * 400.0)
        assert facts.sha256 == load_dataset(path).sha256
        assert facts_of(facts.sha256, tmp_path) == facts
        assert facts_of("another", tmp_path) is facts_of(facts.sha256, tmp_path / "elsewhere") is None

    def test_the_facts_of_an_earlier_file_of_its_name_are_kept(self, data, tmp_path):
        one = cell("halfcheetah", "medium", "gravity", "h2o")
        earlier = found_log(one, data, tmp_path).facts
        save_dataset(data / "halfcheetah_medium-v5.hdf5", log([500] * 8))
        later = found_log(one, data, tmp_path).facts
        assert (earlier.best_decile, later.best_decile) == (9 * 400.0, 7 * 500.0)
        assert [facts_of(facts.sha256, tmp_path) for facts in (earlier, later)] == [earlier, later]

    def test_facts_that_were_kept_by_name_are_read(self, tmp_path):
        kept = {"sha256": "sum", "rows": 20, "episodes": 2, "best_decile": 1.5}
        (tmp_path / "datasets.json").write_text(json.dumps({"halfcheetah_medium-v5.hdf5": kept}))
        assert facts_of("sum", tmp_path) == LogFacts(**kept)

    def test_a_part_is_written_once_for_each_dataset(self, data, tmp_path):
        one = cell("halfcheetah", "medium", "gravity", "h2o", thousands=1)
        part, facts = found_log(one, data, tmp_path)
        found = load_dataset(part)
        assert (facts.rows, facts.episodes) == (len(found), found.episode_count) == (800, 2)
        assert facts.sha256 == found.sha256
        # Of all of the dataset.
        assert facts.best_decile == 9 * 400.0
        written = part.stat().st_mtime_ns
        assert found_log(one, data, tmp_path) == (part, facts)
        assert part.stat().st_mtime_ns == written
        save_dataset(data / "halfcheetah_medium-v5.hdf5", log([500] * 8))
        other = found_log(one, data, tmp_path)
        assert other.path != part
        assert len(load_dataset(other.path)) == other.facts.rows == 1_000

    def test_sac_needs_no_log(self, data, tmp_path):
        assert log_of(cell("halfcheetah", "medium", "gravity", "sac"), data, tmp_path) is None

    @pytest.mark.parametrize("content", ["[]", "{", '{"halfcheetah_medium-v5.hdf5": {"rows": 1}}'])
    def test_damaged_facts_are_told(self, content, tmp_path):
        (tmp_path / "datasets.json").write_text(content)
        with pytest.raises(RunError, match=r"datasets.json is damaged .* delete it"):
            facts_of("sum", tmp_path)

    def test_a_folder_of_a_datasets_name_is_told(self, data, tmp_path):
        (data / "halfcheetah_expert-v5.hdf5").mkdir()
        with pytest.raises(DataError, match=r"halfcheetah_expert-v5.hdf5: cannot be read \(it is no file\)"):
            log_of(cell("halfcheetah", "expert", "gravity", "h2o"), data, tmp_path)
