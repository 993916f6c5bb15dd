"""Checkpoints survive damage and crashes, and give back the same bits."""

import json
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from simtrust.errors import RunError
from simtrust.networks import MLP
from simtrust.training import checkpoint
from simtrust.training.checkpoint import (
    CheckpointStore,
    arrays_to_tree,
    read_tensors,
    tree_to_arrays,
    write_tensors,
)
from simtrust.training.storage import StorageError, write_atomically


class State(eqx.Module):
    """Modules within modules, as an agent is."""

    network: MLP
    count: Array
    rest: tuple[dict[str, Array], None]


def make_state(seed: int) -> State:
    awkward = jnp.array([-0.0, jnp.inf, jnp.nan, 1e-45, 1 / 3], jnp.float32)
    network = MLP(3, (4, 4), 2, layer_norm=True, key=jax.random.key(seed))
    return State(network, jnp.array([seed, 2**31 - 1], jnp.int32), ({"moments": awkward}, None))


def bits(tree) -> list[tuple]:
    return [(leaf.shape, leaf.dtype, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    return CheckpointStore(tmp_path)


def save(store, step, rows=None, previous=None, capacity=10):
    return store.save(
        step,
        make_state(step),
        rows,
        previous=previous,
        capacity=capacity,
        metrics_bytes=7 * step,
        wall_seconds=1.5,
        update_seconds=0.5,
    )


def rows_from(start: int, count: int = 5) -> np.ndarray:
    """Rows [2, count, 3] that tell their run and number."""
    number = np.arange(start, start + count, dtype=np.float32)
    return np.stack([np.stack([np.full(count, run), number, -number], -1) for run in (0, 1)]).astype(
        np.float32
    )


def save_several(store, steps) -> None:
    """A checkpoint at each step, with five new rows each."""
    manifest = None
    for index, step in enumerate(steps):
        manifest = save(store, step, rows_from(5 * index), manifest)


def names(directory: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_state_and_rows_come_back_bit_for_bit(store, tmp_path):
    saved = save(store, 300, rows_from(0))
    again = CheckpointStore(tmp_path)
    manifest = again.latest()
    assert manifest == saved
    assert (manifest.step, manifest.metrics_bytes) == (300, 2_100)
    assert bits(again.load_state(manifest, make_state(1))) == bits(make_state(300))
    assert bits(make_state(1)) != bits(make_state(300))
    ((start, rows),) = again.load_rows(manifest)
    assert start == 0
    np.testing.assert_array_equal(rows, rows_from(0))


def test_rows_come_back_whatever_their_order_in_memory(tmp_path):
    """Safetensors alone would write the transposed array's memory as it lies."""
    rows = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    stored = write_tensors(tmp_path, "rows.safetensors", {"rows": np.moveaxis(rows, 0, 1)})
    found = read_tensors(tmp_path, stored)["rows"]
    np.testing.assert_array_equal(found, np.moveaxis(rows, 0, 1))


def test_scalar_leaf_comes_back_as_scalar():
    tree = {"count": jnp.array(3, jnp.int32), "rate": jnp.array(0.1, jnp.float32)}
    assert bits(arrays_to_tree(tree_to_arrays(tree), tree, Path("x"))) == bits(tree)


def test_empty_directory_has_no_checkpoint(store):
    assert store.latest() is None


def test_last_two_are_kept(store, tmp_path):
    save_several(store, (100, 200, 300))
    assert names(tmp_path, "checkpoint-*") == ["checkpoint-000000000200.json", "checkpoint-000000000300.json"]
    assert names(tmp_path, "state-*") == ["state-000000000200.safetensors", "state-000000000300.safetensors"]
    assert store.latest().step == 300


@pytest.mark.parametrize("damage", [flip_byte, truncate, Path.unlink], ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    "name",
    ["state-000000000200.safetensors", "replay-000000000005.safetensors", "checkpoint-000000000200.json"],
)
def test_damaged_newest_falls_back_to_the_older(store, tmp_path, name, damage):
    save_several(store, (100, 200))
    assert store.latest().step == 200
    damage(tmp_path / name)
    manifest = store.latest()
    assert manifest.step == 100
    assert bits(store.load_state(manifest, make_state(1))) == bits(make_state(100))
    assert [start for start, _ in store.load_rows(manifest)] == [0]


def test_all_damaged_names_the_files(store, tmp_path):
    save_several(store, (100, 200))
    flip_byte(tmp_path / "state-000000000200.safetensors")
    truncate(tmp_path / "checkpoint-000000000100.json")
    with pytest.raises(RunError, match=r"state-000000000200\.safetensors.*checkpoint-000000000100\.json"):
        store.latest()


def test_newer_format_is_refused(store, tmp_path):
    save(store, 100)
    path = tmp_path / "checkpoint-000000000100.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(RunError, match=r"checkpoint-000000000100\.json has format 2: a newer simtrust"):
        store.latest()


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"format": 1}', '{"format": 1, "chunks": 3}', "\0" * 99]
)
def test_nonsense_manifest_is_damage_not_a_crash(store, tmp_path, content):
    save(store, 100)
    (tmp_path / "checkpoint-000000000100.json").write_text(content)
    with pytest.raises(RunError, match=r"checkpoint-000000000100\.json is damaged"):
        store.latest()


def test_manifest_cannot_point_outside_its_directory(store, tmp_path):
    save(store, 100)
    path = tmp_path / "checkpoint-000000000100.json"
    manifest = json.loads(path.read_text())
    manifest["state"]["name"] = "/etc/passwd"
    path.write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"checkpoint-000000000100\.json is damaged: it names no file of ours"):
        store.latest()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("checkpoint-000000000150.json", truncate),
        ("state-000000000150.safetensors", flip_byte),
    ],
)
def test_damaged_checkpoint_is_not_kept_in_place_of_a_whole_one(store, tmp_path, name, damage):
    """A simulator failed at step 150, and that checkpoint was damaged: the run goes on from 100 to 200."""
    first = save(store, 100, rows_from(0))
    save(store, 150, rows_from(5), first)
    damage(tmp_path / name)
    manifest = save(store, 200, rows_from(5), store.latest())
    assert store.latest() == manifest
    flip_byte(tmp_path / manifest.state.name)
    assert store.latest().step == 100


def test_stale_temporary_files_go_and_others_stay(store, tmp_path):
    (tmp_path / ".state-000000000100.safetensors.0123abcd.simtrust").write_bytes(b"half")
    (tmp_path / ".checkpoint-000000000100.json.89efabcd.simtrust").write_bytes(b"half")
    mine = ["best.safetensors", "notes.txt", "state-best.safetensors"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    save(store, 100)
    assert names(tmp_path, ".*") == []
    assert names(tmp_path, "*") == sorted(
        [*mine, "checkpoint-000000000100.json", "state-000000000100.safetensors"]
    )


@pytest.mark.parametrize("dies_at", ["replay", "state", "checkpoint"])
def test_crash_before_any_of_the_writes_loses_nothing(store, tmp_path, monkeypatch, dies_at):
    first = save(store, 100, rows_from(0))

    def die(path, content):
        if path.name.startswith(dies_at):
            path.with_name(f".{path.name}.0123abcd.simtrust").write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            save(store, 200, rows_from(5), first)

    again = CheckpointStore(tmp_path)
    manifest = again.latest()
    assert manifest == first
    assert bits(again.load_state(manifest, make_state(1))) == bits(make_state(100))
    assert save(again, 200, rows_from(5), manifest) == again.latest()
    assert names(tmp_path, ".*") == []


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomically(path, b"old")

    def no_space(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(StorageError, match="No space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path, "*") == ["result.json"]
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert names(tmp_path, "*") == ["result.json"]


def test_chunks_are_dropped_once_no_kept_checkpoint_needs_them(store, tmp_path):
    """Ten rows fit the ring; checkpoint 400 needs rows 10 to 19, checkpoint 500 rows 15 to 24."""
    save_several(store, (100, 200, 300, 400, 500))
    assert names(tmp_path, "replay-*") == [f"replay-{start:012d}.safetensors" for start in (10, 15, 20)]
    newest = store.latest()
    assert [(chunk.start, chunk.count) for chunk in newest.chunks] == [(15, 5), (20, 5)]
    flip_byte(tmp_path / newest.state.name)
    older = store.latest()
    loaded = list(store.load_rows(older))
    assert [start for start, _ in loaded] == [10, 15]
    np.testing.assert_array_equal(loaded[0][1], rows_from(10))


def test_chunk_straddling_the_rings_edge_is_kept(store):
    """Of 12 rows the ring of 10 holds 2 to 11: the first chunk, rows 0 to 4, is still needed."""
    manifest = save(store, 1, rows_from(0))
    manifest = save(store, 2, rows_from(5), manifest)
    manifest = save(store, 3, rows_from(10, 2), manifest)
    assert [chunk.start for chunk in manifest.chunks] == [0, 5, 10]
    manifest = save(store, 4, rows_from(12, 3), manifest)
    assert [chunk.start for chunk in manifest.chunks] == [5, 10, 12]


@pytest.mark.parametrize("nothing", [None, np.zeros((2, 0, 3), np.float32)], ids=["none", "no rows"])
def test_checkpoint_without_new_rows_keeps_the_chunks(store, nothing):
    first = save(store, 100, rows_from(0))
    assert save(store, 200, nothing, first).chunks == first.chunks


TREE = {"critic": {"weight": jnp.ones((2, 3)), "steps": jnp.zeros(2, jnp.int32)}}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "['critic']['weight']",
            np.ones((3, 2), np.float32),
            r"is float32\[3, 2\], expected float32\[2, 3\]",
        ),
        (
            "['critic']['weight']",
            np.ones((2, 3), np.float64),
            r"is float64\[2, 3\], expected float32\[2, 3\]",
        ),
        ("['critic']['steps']", np.zeros(2, np.int64), r"is int64\[2\], expected int32\[2\]"),
        ("['critic']['steps']", None, r"is missing, expected int32\[2\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(key, value, message):
    arrays = {**tree_to_arrays(TREE), key: value}
    assert bits(arrays_to_tree(tree_to_arrays(TREE), TREE, Path("s"))) == bits(TREE)
    with pytest.raises(RunError, match=r"state\.safetensors: " + key.replace("[", r"\[") + " " + message):
        arrays_to_tree({k: v for k, v in arrays.items() if v is not None}, TREE, Path("state.safetensors"))


def test_newer_format_is_not_passed_over_for_an_older_checkpoint(store, tmp_path):
    """Going on from the older one would train what the newer version has trained already."""
    save(store, 150, rows_from(5), save(store, 100, rows_from(0)))
    path = tmp_path / "checkpoint-000000000150.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(RunError, match="has format 2"):
        store.latest()


def test_other_files_beside_the_checkpoints_are_left_alone(store, tmp_path):
    (tmp_path / "checkpoint-old.json").write_text("{}")
    manifest = save(store, 100, rows_from(0))
    assert store.latest() == manifest
    assert (tmp_path / "checkpoint-old.json").exists()


def test_the_policy_alone_needs_no_simulated_rows(store, tmp_path):
    """Rows that are damaged cost a run that goes on its newest checkpoint, and a policy nothing."""
    save_several(store, (100, 200))
    flip_byte(tmp_path / "replay-000000000005.safetensors")
    assert store.latest().step == 100
    assert store.latest_state().step == 200
    flip_byte(tmp_path / "state-000000000200.safetensors")
    assert store.latest_state().step == 100


class Agent(eqx.Module):
    """An actor, and what is not asked for."""

    actor: MLP
    actor_optimiser: Array
    critic: MLP


def test_the_actor_is_read_by_itself(store):
    networks = [MLP(3, (4,), 2, layer_norm=False, key=jax.random.key(seed)) for seed in (1, 2, 3)]
    agent = Agent(networks[0], jnp.ones(2), networks[1])
    counts = {"metrics_bytes": 0, "wall_seconds": 0.0, "update_seconds": 0.0}
    manifest = store.save(100, agent, None, previous=None, capacity=10, **counts)
    shapes = jax.eval_shape(lambda: networks[2])
    assert bits(store.load_actor(manifest, shapes)) == bits(networks[0])
    other = jax.eval_shape(lambda: MLP(3, (5,), 2, layer_norm=False, key=jax.random.key(0)))
    with pytest.raises(RunError, match=r"state-000000000100\.safetensors: \.layers\[0\]\.\w+ is float32"):
        store.load_actor(manifest, other)


def test_reading_makes_nothing_and_saving_makes_the_folder(tmp_path):
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    assert store.latest() is store.latest_state() is None
    assert list(tmp_path.iterdir()) == []
    save(store, 100)
    assert store.latest().step == 100


@pytest.mark.parametrize("fails_at", ["replay", "state", "checkpoint"])
def test_a_checkpoint_that_cannot_be_written_leaves_nothing_of_itself(store, tmp_path, monkeypatch, fails_at):
    first = save(store, 100, rows_from(0))
    before = names(tmp_path, "*")

    def full_disk(path, content):
        if path.name.startswith(fails_at):
            raise StorageError(path, OSError(28, "No space left on device"))
        write_atomically(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", full_disk)
        with pytest.raises(
            StorageError, match=f"{fails_at}-.* cannot be written: No space left on device; free"
        ):
            save(store, 200, rows_from(5), first)
    assert names(tmp_path, "*") == before
    assert store.latest() == first
    assert save(store, 200, rows_from(5), first) == store.latest()


def test_the_name_of_a_new_folder_outlasts_a_power_cut(tmp_path, monkeypatch):
    """A folder's own name is in its parent, which must reach the disk before the manifest counts."""
    flushed, fsync = [], os.fsync

    def recorded(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    save(CheckpointStore(tmp_path / "checkpoints"), 10)
    assert tmp_path.stat().st_ino in flushed
    assert flushed[-1] == (tmp_path / "checkpoints").stat().st_ino
