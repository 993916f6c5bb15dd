"""The copy of a run directory in storage is a whole run directory at every moment."""

import os
import shutil
import sys
from pathlib import Path

import pytest

import simtrust
from simtrust.errors import ConfigError, RunError
from simtrust.sweeps.lease import LeaseLost
from simtrust.sweeps.mirror import Mirror
from simtrust.sweeps.places import RemoteFolder, SharedFolder, place_of, stored_run
from simtrust.sweeps.remote import RemoteFiles
from simtrust.training.checkpoint import CheckpointStore
from simtrust.training.config import TrainConfig, config_to_json

fsspec = pytest.importorskip("fsspec")
STEPS = 400


class Cut(RemoteFiles):
    """Storage that is cut off in the middle of its n-th change; ``log`` has every change."""

    def __init__(self, url: str, after: int | None = None):
        super().__init__(url)
        self.log: list[tuple[str, str]] = []
        self.after = after

    def _count(self, what: str, name: str) -> None:
        self.log.append((what, name))
        if len(self.log) == self.after:
            raise RunError("cut off")

    def upload(self, name: str, file: Path) -> None:
        if len(self.log) + 1 == self.after:
            # Half of it is there, under another name.
            self.filesystem.makedirs(f"{self.root}/{name}".rpartition("/")[0], exist_ok=True)
            self.filesystem.pipe_file(f"{self.root}/{name}.0.partial", file.read_bytes()[:20])
        self._count("upload", name)
        super().upload(name, file)

    def remove(self, name: str) -> None:
        self._count("remove", name)
        super().remove(name)


def train(common: str, out: Path, callbacks=()) -> Path:
    import tomllib

    options = {**tomllib.loads(common)["common"], "steps": STEPS, "buffer_capacity": 150}
    return simtrust.train("sac", quiet=True, out=out, callbacks=callbacks, **options).directory


@pytest.fixture(scope="module")
def moments(common, tmp_path_factory) -> list[Path]:
    """A run directory after each of its checkpoints, and at the end."""
    folder = tmp_path_factory.mktemp("moments")

    class Keep(simtrust.Callback):
        def on_checkpoint(self, step, directory):
            shutil.copytree(directory, folder / f"{step}", symlinks=True)

    done = train(common, folder / "run", [Keep()])
    return [*(folder / str(step) for step in range(100, STEPS + 1, 100)), done]


def move_on(directory: Path, moment: Path) -> None:
    """Make the directory what the run made of it until then."""
    for path in moment.rglob("*"):
        file = directory / path.relative_to(moment)
        if path.is_file() and not (file.exists() and file.read_bytes() == path.read_bytes()):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.read_bytes())
    for file in [*directory.rglob("*")]:
        if file.is_file() and not (moment / file.relative_to(directory)).exists():
            file.unlink()


def fetched(url: str, to: Path) -> Path:
    Mirror(RemoteFiles(url), to, lambda: None).fetch()
    return to


def steps(directory: Path) -> int:
    manifest = CheckpointStore(directory / "checkpoints").latest()
    return 0 if manifest is None else manifest.step


def test_only_what_is_new_is_copied_and_a_manifest_last(moments, tmp_path):
    remote = Cut(f"file://{tmp_path}/far")
    mirror = Mirror(remote, tmp_path / "run", lambda: None)
    for moment in moments:
        move_on(tmp_path / "run", moment)
        remote.log.clear()
        mirror.push()
        uploads = [name for what, name in remote.log if what == "upload"]
        tensors = [name for name in uploads if name.endswith(".safetensors")]
        if moment is moments[-1]:
            assert uploads == ["result.json"]
            continue
        assert len(tensors) == 2, "one state, one chunk of rows"
        assert uploads[-1] == f"checkpoints/checkpoint-{int(moment.name):012d}.json"
        removed = [name for what, name in remote.log if what == "remove"]
        assert removed == sorted(removed, key=lambda name: not name.endswith(".json"))
        assert [what for what, _ in remote.log] == ["upload"] * len(uploads) + ["remove"] * len(removed)
    found = {path.relative_to(tmp_path / "far") for path in (tmp_path / "far").rglob("*") if path.is_file()}
    here = {p.relative_to(moments[-1]) for p in moments[-1].rglob("*") if p.is_file() and p.name != ".lock"}
    assert found == here
    assert all((tmp_path / "far" / name).read_bytes() == (moments[-1] / name).read_bytes() for name in here)


def test_cut_off_at_any_change_the_last_checkpoint_is_there(moments, tmp_path, computed):
    """After each single change to the storage, anybody finds the latest checkpoint that was copied."""
    changes, after = 0, 0
    while changes == after:
        after += 1
        run, url = tmp_path / f"run-{after}", f"file://{tmp_path}/far-{after}"
        remote = Cut(url, after)
        mirror, copied = Mirror(remote, run, lambda: None), 0
        try:
            for moment in moments:
                move_on(run, moment)
                mirror.push()
                copied = steps(run)
        except RunError:
            pass
        changes = len(remote.log)
        saved = steps(fetched(url, tmp_path / f"found-{after}"))
        assert copied <= saved <= steps(run)
        assert not list(Path(f"{tmp_path}/far-{after}").rglob("*.partial"))
    assert after > 15


def test_a_run_goes_on_from_its_copy_to_the_same_bits(moments, tmp_path, computed):
    """The copy of each moment, with what a killed process left half written besides."""
    for moment in moments[:2]:
        url = f"file://{tmp_path}/{moment.name}"
        mirror = Mirror(RemoteFiles(url), moment, lambda: None)
        mirror.push()
        (Path(f"{tmp_path}/{moment.name}") / "metrics.jsonl.12345678.partial").write_bytes(b"half")
        run = fetched(url, tmp_path / f"run-{moment.name}")
        simtrust.resume(run, quiet=True)
        assert computed(run) == computed(moments[-1])


def test_a_file_written_again_under_its_name_is_copied_again(tmp_path):
    """As where a run goes on elsewhere, and rounds differently there."""
    run, remote = tmp_path / "run", RemoteFiles("memory://again")
    (run / "checkpoints").mkdir(parents=True)
    mirror = Mirror(remote, run, lambda: None)
    for content in (b"one", b"two"):
        (run / "checkpoints" / "new").write_bytes(content)
        (run / "checkpoints" / "new").replace(run / "checkpoints" / "state-000000000100.safetensors")
        mirror.push()
        assert remote.read("checkpoints/state-000000000100.safetensors", 9) == content


def test_who_lost_the_lease_writes_nothing(tmp_path):
    def confirm() -> None:
        raise LeaseLost

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"{}")
    mirror = Mirror(RemoteFiles(f"file://{tmp_path}/far"), tmp_path / "run", confirm)
    with pytest.raises(LeaseLost):
        mirror.push()
    assert not (tmp_path / "far").exists()


def test_who_lost_the_lease_meanwhile_removes_nothing(tmp_path):
    allowed = [True]

    def confirm() -> None:
        if not allowed[0]:
            raise LeaseLost

    far = tmp_path / "far"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_bytes(b"x")
    mirror = Mirror(RemoteFiles(f"file://{far}"), tmp_path / "run", confirm)
    mirror.push()
    (tmp_path / "run" / "old.txt").unlink()
    (far / "half.12345678.partial").touch()
    allowed[0] = False
    for change in (mirror.push, mirror.fetch):
        with pytest.raises(LeaseLost):
            change()
    assert {path.name for path in far.iterdir()} == {"old.txt", "half.12345678.partial"}


@pytest.mark.parametrize("moment", ["listed", "looked at", "copied"])
@pytest.mark.parametrize("gone", ["wandb/tmp/gone.txt", "metrics.jsonl", "checkpoints/a.safetensors"])
def test_a_trackers_file_may_vanish_and_no_other(tmp_path, monkeypatch, moment, gone):
    run, mirrors = tmp_path / "run", sys.modules[Mirror.__module__]
    for name in ("config.json", "metrics.jsonl", "checkpoints/a.safetensors", "wandb/tmp/gone.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"x")
    stamp = mirrors._stamp

    def vanishing(file: Path) -> tuple[int, int, int]:
        if moment == "listed" and file.name == "config.json" and "/" in gone:
            shutil.rmtree((run / gone).parent)
        if moment == "looked at" and file == run / gone:
            file.unlink()
        return stamp(file)

    class Vanishing(RemoteFiles):
        def upload(self, name: str, file: Path) -> None:
            if moment == "copied" and name == gone:
                file.unlink()
            super().upload(name, file)

    monkeypatch.setattr(mirrors, "_stamp", vanishing)
    push = Mirror(Vanishing(f"file://{tmp_path}/far"), run, lambda: None).push
    if gone.startswith("wandb") or (moment, gone) == ("listed", "metrics.jsonl"):
        push()
        assert (tmp_path / "far" / "config.json").exists()
        return
    with pytest.raises((OSError, RunError), match=gone.partition("/")[0]):
        push()


def test_names_that_are_none_of_ours_are_not_copied(tmp_path):
    for name in (".lock", "checkpoints/.state.12345678.simtrust", "..", "a/../../b"):
        file = tmp_path / "far" / name
        if ".." not in name:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")

    class Hostile(RemoteFiles):
        def names(self):
            return [*super().names(), "../outside", "a/../../outside", "/etc/outside"]

    Mirror(Hostile(f"file://{tmp_path}/far"), tmp_path / "run", lambda: None).fetch()
    assert not (tmp_path / "run").exists() and not (tmp_path / "outside").exists()


@pytest.mark.parametrize("url", ["nonsense://x", "no-such.package://x"])
def test_unknown_storage_is_told(url):
    with pytest.raises(ConfigError, match=url.partition(":")[0]):
        place_of(url)


def test_places_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("runs/a") == SharedFolder(str(tmp_path / "runs/a"))
    assert place_of("memory://a") == RemoteFolder("memory://a")


def test_small_files_of_either_place(tmp_path):
    for place in (SharedFolder(str(tmp_path / "near")), RemoteFolder(f"file://{tmp_path}/far")):
        assert place.read("a/b") is None
        place.remove("a/b")
        place.write("a/b", b"1")
        place.write("a/b", b"22")
        assert place.read("a/b") == b"22"
        place.remove("a/b")
        assert place.read("a/b") is None


def test_what_is_no_file_or_endless_is_not_read(tmp_path):
    for place, root in (
        (SharedFolder(str(tmp_path / "near")), tmp_path / "near"),
        (RemoteFolder(f"file://{tmp_path}/far"), tmp_path / "far"),
    ):
        (root / "a").mkdir(parents=True)
        os.mkfifo(root / "a" / "config.json")
        with pytest.raises(RunError, match="not a file"):
            stored_run(place, "a")
        place.write("b", b"1234")
        assert place.read("b", 4) == b"1234"
        with pytest.raises(RunError, match="/b cannot be read: it is larger than 3 bytes"):
            place.read("b", 3)
    with pytest.raises(RunError, match="not a file"):
        RemoteFiles(f"file://{tmp_path}/far").download("a/config.json", tmp_path / "here")


def test_a_damaged_result_is_written_again_by_the_sweep(tmp_path):
    place = RemoteFolder(f"file://{tmp_path}/far")
    place.write("a/config.json", config_to_json(TrainConfig()).encode())
    place.write("a/result.json", b"{")
    with pytest.raises(
        RunError, match=r"/far/a/result\.json is damaged .* and the same simtrust sweep command"
    ):
        stored_run(place, "a")


def test_what_is_damaged_is_named_where_it_lies(tmp_path):
    place = RemoteFolder(f"file://{tmp_path}/far")
    place.write("a/config.json", b"{")
    with pytest.raises(RunError, match=r"/far/a/config\.json is damaged"):
        stored_run(place, "a")
