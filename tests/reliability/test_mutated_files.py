"""Ten thousand damaged files: each is read as something that holds together, or refused with a SimtrustError.

    SIMTRUST_MUTATIONS=100000 pytest tests/reliability/test_mutated_files.py

reads ten times as many, and 1000 the first tenth of them; the cases are the same ones in the same order. A
damaged text or number may still be a text or number, so that a log that is accepted need not be the one
that was saved: of what carries no checksum that cannot be known. What is accepted must be finite, of
consistent shapes, and small.

Another process reads them, which C libraries may bring down; the case is then named by its kind and number,
and ``python tests/reliability/test_mutated_files.py FOLDER '{"KIND": [NUMBER, NUMBER + 1]}'`` repeats it.
"""

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import helper

from simtrust.data import Dataset, checks, load_dataset, save_dataset
from simtrust.data.convert import convert
from simtrust.errors import DataWarning, RunError, SimtrustError
from simtrust.export import onnx_graph
from simtrust.export.onnx_session import open_session
from simtrust.reports.run_record import read_run
from simtrust.training.checkpoint import CheckpointStore, StoredFile, read_tensors, write_tensors
from simtrust.training.config import TrainConfig, config_from_json, config_to_json
from simtrust.training.result import read_result

DEFAULT = 10_000
SECONDS = 20
"""For one file; most take milliseconds."""
MEMORY = 600 * 2**20
"""By which a process may grow over all of its files: they are of a few kilobytes."""

SPECIAL = [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"1" * 400, b"9" * 5000, b"null", b"true", b"[]", b"{}",
    b'""', b'"\\ud800"', b"1.5", b"[[[[", b"\xff", b"\x00", b'"x"', b"2000000000000", b"1e12", b"=1+1", b"\r",
]  # fmt: skip


# Mutations: from bytes and a generator to other bytes


def flip_bits(content, generator):
    for place in generator.integers(len(content), size=generator.integers(1, 9)):
        content[place] ^= 1 << generator.integers(8)
    return content


def flip_bits_of_the_header(content, generator):
    content[:256] = flip_bits(content[:256], generator)
    return content


def cut(content, generator):
    return content[: generator.integers(len(content))]


def cut_out(content, generator):
    start, end = sorted(generator.integers(len(content) + 1, size=2))
    end = min(end, start + 64) if generator.random() < 0.7 else end
    return content[:start] + content[end:]


def swap_chunks(content, generator):
    size = int(generator.integers(1, max(len(content) // 4, 2)))
    one, other = (int(place) for place in generator.integers(max(len(content) - size, 1), size=2))
    content[one : one + size], content[other : other + size] = (
        content[other : other + size],
        content[one : one + size],
    )
    return content


def insert(content, generator):
    place = int(generator.integers(len(content) + 1))
    return content[:place] + generator.bytes(generator.integers(1, 40)) + content[place:]


def repeat(content, generator):
    place, size = int(generator.integers(len(content))), int(generator.integers(1, 200))
    return content[: place + size] + content[place:]


def write_number(content, generator):
    """A number of 1 to 8 bytes, where sizes, offsets and counts may be."""
    size = int(generator.choice([1, 2, 4, 8]))
    place = int(generator.integers(max(len(content) - size, 1)))
    value = SPECIAL[generator.integers(len(SPECIAL))] % 256**size
    content[place : place + size] = value.to_bytes(size, "little" if generator.random() < 0.9 else "big")
    return content


def write_word(content, generator):
    """One token of a text becomes another."""
    tokens = list(re.finditer(rb'"[^"]*"|[-+.\w]+|[\[\]{},:;]', content))
    if not tokens:
        return insert(content, generator)
    token = tokens[generator.integers(len(tokens))]
    word = WORDS[generator.integers(len(WORDS))]
    if generator.random() < 0.3:
        word = tokens[generator.integers(len(tokens))].group()
    return content[: token.start()] + word + content[token.end() :]


BINARY = (
    flip_bits,
    flip_bits_of_the_header,
    cut,
    cut_out,
    swap_chunks,
    insert,
    repeat,
    write_number,
    write_number,
)
TEXT = (flip_bits, cut, cut_out, swap_chunks, insert, repeat, *[write_word] * 6)


def mutated(content: bytes, mutations, generator: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(1 if generator.random() < 0.7 else generator.integers(2, 5)):
        changed = bytearray(mutations[generator.integers(len(mutations))](changed, generator)) or bytearray(
            b" "
        )
    return bytes(changed)


def rezip(file: Path, generator: np.random.Generator) -> None:
    """A member of an npz mutated before it is packed: behind the checksums."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    chosen = list(members)[generator.integers(len(members))]
    members[chosen] = mutated(members[chosen], (*BINARY, write_word), generator)
    with zipfile.ZipFile(file, "w") as archive:
        for name, values in members.items():
            archive.writestr(name, values)


# What is saved, mutated, read, and must hold of what was read


def arrays(rows: int = 12) -> dict[str, np.ndarray]:
    step = np.arange(rows)
    observations = np.stack([np.sin(step), np.cos(step), step], 1).astype(np.float32)
    return {
        "observations": observations,
        "actions": np.sin(step + 1)[:, None].astype(np.float32),
        "rewards": step.astype(np.float32),
        "next_observations": observations + 1,
        "terminals": step == 5,
        "timeouts": step == rows - 1,
    }


def log(folder: Path) -> Dataset:
    first = load_dataset(save_dataset(folder / "plain.hdf5", arrays()))
    names = (("sin", "cos", "step"), ("torque",), ("", "", "s"), ("Nm",))
    return Dataset(first.transitions, first.episode_end, "x", "y", None, np.arange(12) / 10, *names)


def check_dataset(found: Dataset) -> None:
    rows, observations, actions = len(found), found.observation_size, found.action_size
    assert 0 < rows < 10_000 and 0 < observations < 1000 and 0 < actions < 1000
    shapes = ((rows, observations), (rows, actions), (rows,), (rows, observations), (rows,))
    for values, shape in zip(found.transitions, shapes, strict=True):
        assert values.shape == shape and values.dtype == np.float32 and np.isfinite(values).all()
        assert values.flags.c_contiguous
    assert np.isin(found.transitions.terminated, (0, 1)).all()
    assert found.episode_end.shape == (rows,) and found.episode_end.dtype == bool and found.episode_end[-1]
    assert np.isin(found.episode_end.view(np.uint8), (0, 1)).all()
    assert found.episode_end[found.transitions.terminated == 1].all()
    assert int(found.episode_lengths.sum()) == rows and np.isfinite(found.episode_returns).all()
    if found.file_row is not None:
        assert (
            found.file_row.shape == (rows,) and (np.diff(found.file_row) > 0).all() and found.file_row[0] >= 0
        )
    if found.time is not None:
        assert found.time.shape == (rows,) and np.isfinite(found.time).all()
    for names, size in zip(found.names, 2 * (observations, actions), strict=True):
        assert names is None or len(names) == size
        assert all(name.encode() is not None for name in names or ())
    assert re.fullmatch("[0-9a-f]{64}", found.sha256)


def one_file(name: str) -> Callable[[Path], Path]:
    return lambda folder: convert(log(folder), folder / name)


def npz(folder: Path) -> Path:
    np.savez(folder / "log.npz", **arrays())
    return folder / "log.npz"


def contiguous_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "log.hdf5", "w") as file:
        for key, values in arrays().items():
            file[key] = values
    return folder / "log.hdf5"


def csv_with_text(folder: Path) -> Path:
    lines = [f'{n // 4},{n / 10},{n},"a ""b"", {n}",{n}.5,1e-{n},{n},{n == 11}' for n in range(12)]
    text = "episode;time [ms];obs_x [rad];remark;obs_y;action_u;reward;terminated\n" + "\n".join(lines)
    (folder / "log.csv").write_text(text.replace(";", ","))
    return folder / "log.csv"


def lerobot(folder: Path) -> Path:
    values = arrays()
    columns = {
        "observation.state": pa.array(list(values["observations"]), pa.list_(pa.float32(), 3)),
        "action": pa.array(list(values["actions"]), pa.list_(pa.float32())),
        "next.reward": values["rewards"],
        "next.done": values["terminals"] | values["timeouts"],
        "timestamp": np.arange(12) / 10,
        "episode_index": np.arange(12) // 6,
        "task": pa.array(["walk"] * 12).dictionary_encode(),
    }
    for name, rows in (("file-000", slice(0, 6)), ("file-001", slice(6, 12))):
        file = folder / "data/chunk-000" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns)[rows], file)
    names = {"observation.state": {"names": {"motors": ["a", "b", "c"]}}, "action": {"names": ["u"]}}
    info = {"codebase_version": "v3.0", "fps": 10, "total_frames": 12, "features": names}
    (folder / "meta").mkdir()
    (folder / "meta/info.json").write_text(json.dumps(info | {"data_path": "data/{chunk}/{file}.parquet"}))
    return folder / "meta/info.json"


def minari(folder: Path) -> Path:
    values = arrays()
    (folder / "data").mkdir()
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for number, rows in enumerate((slice(0, 6), slice(6, 12))):
            group = file.create_group(f"episode_{number}")
            group["observations"] = np.concatenate([values["observations"][rows], np.zeros((1, 3), "f4")])
            group["actions"], group["rewards"] = values["actions"][rows], values["rewards"][rows]
            group["terminations"], group["truncations"] = values["terminals"][rows], values["timeouts"][rows]
    names = {"observation_names": ["a", "b", "c"], "action_units": ["N"]}
    description = {"data_format": "hdf5", "total_episodes": 2, "simtrust_names": names}
    (folder / "data/metadata.json").write_text(json.dumps(description))
    return folder / "data/metadata.json"


def logged(*, folder: bool = False, columns: list[str] | None = None) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        check_dataset(load_dataset(WHERE if folder else file, columns=columns, dones_mean="terminated"))

    return read


WHERE = Path()
"""The folder that this process reads."""


class Kind(NamedTuple):
    """One kind of file: how many mutations of it there are, how it is made, and read with its checks."""

    count: int
    make: Callable[[Path], Path]
    read: Callable[[Path], None]
    mutations: tuple[Callable, ...] = BINARY
    repack: bool = False


def beside(name: str, make: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """Another file of the same folder."""

    def made(folder: Path) -> Path:
        make(folder)
        return folder / name

    return made


# Of run directories


def config(folder: Path) -> Path:
    scaling = {
        "observation_mean": [0.0],
        "observation_std": [1.0],
        "action_low": [-1.0],
        "action_high": [1.0],
    }
    extra = {
        "scaling": {**scaling, "reward_scale": 1.0},
        "evaluation_environment": "Hopper-v5",
        "versions": {},
    }
    text = config_to_json(TrainConfig(real="log.hdf5", sim="Hopper-v5", shifts=("gravity=2",)), **extra)
    (folder / "config.json").write_text(text)
    return folder / "config.json"


def check_config(file: Path) -> None:
    found, extra = config_from_json(file)
    # Written again it is the same, so that nothing of another type passes for an option.
    assert isinstance(extra, dict) and found.seeds == len(found.run_seeds)
    assert json.loads(config_to_json(found))["steps"] == found.steps and isinstance(found.steps, int)
    for numbers in (found.rollout_steps, found.evaluate_every, found.checkpoint_every, found.first_seed):
        assert isinstance(numbers, int) and not isinstance(numbers, bool)


def result(folder: Path) -> Path:
    config(folder)
    run = {"seed": 0, "return_mean": 1.0, "return_std": 0.5, "episode_returns": [1.0], "episode_lengths": [9]}
    summary = {"steps": 200_000, "runs": [run], "evaluation_environment": "Hopper-v5"}
    (folder / "result.json").write_text(json.dumps(summary, indent=2))
    return folder / "result.json"


def check_result(file: Path) -> None:
    found = read_result(file.parent)
    assert found is not None and all(isinstance(run["seed"], int) for run in found.summary["runs"])
    record = read_run(file.parent)
    assert record.final is not None and record.final.mean.shape == record.final.spread.shape


def metrics(folder: Path) -> Path:
    config(folder)
    lines = [{"step": step, "seed": 0, "return_mean": 1.5, "q_real": None} for step in range(0, 5000, 1000)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "metrics.jsonl"


def check_metrics(file: Path) -> None:
    curves = read_run(file.parent).curves
    for values in curves.values.values():
        assert values.shape == (len(curves.steps), len(curves.seeds)) and not np.isinf(values).any()
    # What is damaged is left out and told, which for this file is how it is refused.
    if len(curves.steps) < 5:
        raise RunError("lines were left out")


STATE = {".actor.weight": np.ones((2, 3), np.float32), ".step": np.full(1, 5, np.int32)}


def checkpoint(folder: Path) -> Path:
    store = CheckpointStore(folder)
    rows = np.ones((1, 4, 6), np.float32)
    numbers = {"capacity": 100, "metrics_bytes": 10, "wall_seconds": 1.0, "update_seconds": 1.0}
    store.save(100, STATE, rows, previous=None, **numbers)
    return next(folder.glob("checkpoint-*.json"))


def check_checkpoint(file: Path) -> None:
    store = CheckpointStore(file.parent)
    manifest = store.latest()
    assert manifest is not None
    found = store.load_state(manifest, STATE)
    assert all(np.array_equal(found[key], STATE[key]) for key in STATE)
    for number in (manifest.step, manifest.metrics_bytes):
        assert isinstance(number, int) and not isinstance(number, bool) and number >= 0
    for start, rows in store.load_rows(manifest):
        assert isinstance(start, int) and rows.shape == (1, 4, 6)


def tensors(folder: Path) -> Path:
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.arange(4), "c": np.asarray(2.0, np.float16)}
    return folder / write_tensors(folder, "state.safetensors", arrays).name


def check_tensors(file: Path) -> None:
    """Its sum is made anew: a manifest beside it could say any."""
    found = read_tensors(file.parent, StoredFile(file.name, hashlib.sha256(file.read_bytes()).hexdigest()))
    assert all(isinstance(values, np.ndarray) and values.nbytes < 10_000 for values in found.values())


def graph(folder: Path) -> Path:
    inputs = [onnx_graph.rows("observation", onnx.TensorProto.FLOAT, 2)]
    outputs = [
        onnx_graph.rows("action", onnx.TensorProto.FLOAT, 2),
        helper.make_tensor_value_info("valid", onnx.TensorProto.BOOL, ["rows"]),
    ]
    made = onnx_graph.Graph({"weight": np.eye(2, dtype=np.float32)})
    made.add("MatMul", "observation", made.constant("weight"), name="action")
    made.nodes[-1].output[0] = "action"
    made.add("Identity", made.all_finite("observation"), name="valid")
    model = onnx_graph.checked_model(made, "policy", inputs, outputs, {"kind": "policy"}, "a policy")
    (folder / "policy.onnx").write_bytes(model.SerializeToString())
    return folder / "policy.onnx"


def check_graph(file: Path) -> None:
    session = open_session(file.read_bytes())
    assert session is not None
    action, valid = session(np.ones((3, 2), np.float32))
    assert action.dtype == np.float32 and valid.dtype == bool


PARQUET = [
    "observation=observation_sin,observation_cos,observation_step", "action=action_torque", "reward=reward",
    "episode=episode", "terminated=terminated", "time=time",
]  # fmt: skip
KINDS: dict[str, Kind] = {
    "hdf5, contiguous": Kind(1000, contiguous_hdf5, logged()),
    "hdf5, gzip": Kind(1000, one_file("log.hdf5"), logged()),
    "npz": Kind(500, npz, logged()),
    "npz, deflated": Kind(300, one_file("log.npz"), logged()),
    "npz, inside": Kind(700, npz, logged(), repack=True),
    "csv": Kind(700, one_file("log.csv"), logged(), TEXT),
    "csv with text": Kind(800, csv_with_text, logged(), TEXT),
    "parquet": Kind(1000, one_file("log.parquet"), logged(columns=PARQUET)),
    "lerobot, info": Kind(700, lerobot, logged(folder=True), TEXT),
    "lerobot, data": Kind(500, beside("data/chunk-000/file-001.parquet", lerobot), logged(folder=True)),
    "minari, metadata": Kind(400, minari, logged(folder=True), TEXT),
    "config.json": Kind(400, config, check_config, TEXT),
    "result.json": Kind(300, result, check_result, TEXT),
    "metrics.jsonl": Kind(300, metrics, check_metrics, TEXT),
    "checkpoint.json": Kind(400, checkpoint, check_checkpoint, TEXT),
    "safetensors": Kind(400, tensors, check_tensors),
    "policy.onnx": Kind(100, graph, check_graph),
    "minari, data": Kind(500, beside("data/main_data.hdf5", minari), logged(folder=True)),
}


# One process for all of them


def run(folder: Path, wanted: dict[str, list[int]]) -> None:
    """Reads mutations of each kind, from one number to another, and tells of each kind as a line of JSON."""
    # Asked for once: that takes longer than to read one of these files.
    free = checks.available_memory()
    checks.available_memory = lambda: free
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DataWarning)
    signal.signal(signal.SIGALRM, _too_long)
    for name, (first, last) in wanted.items():
        place = folder / name
        place.mkdir()
        print(json.dumps({"kind": name, **_run_kind(name, place, first, last)}), flush=True)


def _run_kind(name: str, place: Path, first: int, last: int) -> dict[str, Any]:
    global WHERE
    kind, WHERE = KINDS[name], place
    file = kind.make(place)
    base = file.read_bytes()
    kind.read(file)
    before, started = _memory(), time.process_time()
    outcomes: Counter[str] = Counter()
    wrong = []
    for number in range(first, last):
        generator = np.random.default_rng([list(KINDS).index(name), number])
        file.write_bytes(base)
        if kind.repack:
            rezip(file, generator)
        else:
            file.write_bytes(mutated(base, kind.mutations, generator))
        (place.parent / "case").write_text(f"{name}, {number}")
        signal.alarm(SECONDS)
        try:
            kind.read(file)
            outcomes["read"] += 1
        except SimtrustError:
            outcomes["refused"] += 1
        except BaseException as error:
            *_, raised = traceback.extract_tb(error.__traceback__)
            told = f"{type(error).__name__}: {error}"[:300]
            wrong.append({"case": number, "error": told, "where": f"{raised.filename}:{raised.lineno}"})
        signal.alarm(0)
    return {
        "outcomes": outcomes,
        "wrong": wrong,
        "grown": _memory() - before,
        "seconds": time.process_time() - started,
    }


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Late(BaseException):
    """Nobody takes it for damage."""


def _too_long(*_: Any) -> None:
    raise Late(f"not read within {SECONDS} seconds")


def share(name: str) -> int:
    wanted = int(os.environ.get("SIMTRUST_MUTATIONS", DEFAULT))
    return round(KINDS[name].count * wanted / DEFAULT)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mutated")
    wanted = json.dumps({name: (0, share(name)) for name in KINDS})
    command = [sys.executable, "-X", "faulthandler", __file__, str(folder), wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"it ended at {(folder / 'case').read_text()}: {done.stderr[-3000:]}"
    return {line["kind"]: line for line in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", KINDS)
def test_is_read_soundly_or_refused(name, outcomes):
    found = outcomes[name]
    assert not found["wrong"], found["wrong"][:5]
    assert sum(found["outcomes"].values()) == share(name)
    assert found["outcomes"].get("refused", 0) > 0.05 * share(name), (
        "hardly any was damaged: it proves little"
    )
    assert found["grown"] < MEMORY


def test_there_are_as_many_as_promised():
    assert sum(kind.count for kind in KINDS.values()) == DEFAULT


if __name__ == "__main__":
    run(Path(sys.argv[1]), json.loads(sys.argv[2]))
