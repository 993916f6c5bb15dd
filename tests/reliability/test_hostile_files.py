"""Files made to do harm: none is obeyed, none leads elsewhere, none is waited for, none fills the memory.

`tests/data` has those that only lie about their shapes, or hold pickles and links in the plainest place.
"""

import base64
import hashlib
import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import h5py
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from simtrust.data import checks, csv_table, hdf5_packing, load_dataset, save_dataset
from simtrust.data.json_file import BYTES_MAX
from simtrust.errors import DataError, ExportError, RunError, SimtrustError
from simtrust.export.onnx_session import open_session
from simtrust.training.checkpoint import CheckpointStore, StoredFile, read_tensors
from simtrust.training.config import config_from_json
from simtrust.training.gap_model import load_gap_model
from simtrust.training.result import read_result

MIB = 2**20
SECONDS = 20
TABLE = ["observation=x", "action=u", "reward=r", "episode=ep"]


class Late(BaseException):
    """Nobody takes it for damage."""


@pytest.fixture(autouse=True)
def in_time():
    """What waits for a pipe waits forever."""

    def late(*_):
        raise Late(f"not read within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def free(monkeypatch):
    """Says how much memory there is."""

    def say(available):
        for module in (checks, hdf5_packing):
            monkeypatch.setattr(module, "available_memory", lambda: available)

    return say


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def peak_of(read) -> int:
    """Bytes that Python and numpy held at most while reading, an error included."""
    tracemalloc.start()
    try:
        read()
    except SimtrustError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


def arrays(rows=9, width=2):
    return {
        "observations": np.ones((rows, width), np.float32),
        "actions": np.ones((rows, 1), np.float32),
        "rewards": np.ones(rows, np.float32),
        "terminals": np.arange(rows) == rows - 1,
    }


def refused(file, words, **options):
    with pytest.raises(DataError, match=words):
        load_dataset(file, **options)


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (type(self.marker).touch, (self.marker,))


# Files that are none


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz", "log.csv", "log.parquet"])
def test_pipes_and_devices_are_not_opened(tmp_path, pipe, name):
    (tmp_path / name).symlink_to(pipe)
    refused(tmp_path / name, "is a directory or a device")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    refused(tmp_path / name, "is a directory or a device")


def test_a_path_that_cannot_be():
    refused("log\0.csv", "cannot be opened")


# npz


@pytest.mark.parametrize("key", ["observations", "terminals", "timeouts", "metadata/simtrust_names"])
def test_a_pickle_is_not_opened_wherever_it_is(tmp_path, key):
    hostile = np.empty(9, object)
    hostile[:] = [Hostile(tmp_path / "executed")] * 9
    np.savez(tmp_path / "log.npz", **arrays() | {"rewards2": np.ones(9), key: hostile})
    refused(tmp_path / "log.npz", "never unpickled|does not fit")
    refused(tmp_path / "log.npz", "store plain numbers|is not in the file", columns=[
        f"observation={key}", "action=actions", "reward=rewards", "terminated=rewards2"])  # fmt: skip
    assert not (tmp_path / "executed").exists()


def member(shape, dtype="<f4", values=b""):
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + values


def zipped(file, members, **options):
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file


def npy(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_what_an_npz_claims_is_not_made_room_for(tmp_path):
    members = [(f"{key}.npy", npy(values)) for key, values in arrays().items()]
    rows = 5_000_000
    claims = [("observations.npy", member((rows, 2))), ("actions.npy", member((rows, 1)))]
    claims += [("rewards.npy", member((rows,))), ("terminals.npy", member((rows,), "|b1"))]
    assert len(claims) == len(members)
    file = zipped(tmp_path / "log.npz", claims)
    refused(file, r"damaged.*0 bytes where the header claims 40,000,000")
    assert peak_of(lambda: load_dataset(file)) < 5 * MIB


def test_a_bomb_of_zeros_is_counted_before_it_is_unpacked(tmp_path, free):
    content = member((64 * MIB, 1), "|u1", bytes(64 * MIB))
    members = [(f"{key}.npy", npy(values)) for key, values in arrays().items() if key != "observations"]
    file = zipped(
        tmp_path / "log.npz", [("observations.npy", content), *members], compression=zipfile.ZIP_DEFLATED
    )
    assert file.stat().st_size < MIB
    free(100 * MIB)
    refused(file, r"'observations'.*claims 0\.1 GiB to read")
    assert peak_of(lambda: load_dataset(file)) < 5 * MIB


def test_a_header_without_end_is_not_read(tmp_path):
    header = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**26) + b" " * 2**26
    members = [
        ("observations.npy", header),
        *((f"{k}.npy", npy(v)) for k, v in arrays().items() if k != "observations"),
    ]
    file = zipped(tmp_path / "log.npz", members, compression=zipfile.ZIP_DEFLATED)
    refused(file, "damaged")
    assert peak_of(lambda: load_dataset(file)) < 5 * MIB


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_numpy_does_not_write(tmp_path, packing):
    file = zipped(
        tmp_path / "log.npz", [(f"{k}.npy", npy(v)) for k, v in arrays().items()], compression=packing
    )
    refused(file, "is packed by .*savez_compressed")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_key_that_is_there_twice(tmp_path):
    members = [(f"{key}.npy", npy(values)) for key, values in arrays().items()]
    refused(zipped(tmp_path / "log.npz", [*members, members[0]]), "'observations': is there more than once")


def test_names_that_lead_elsewhere_write_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    members = [(f"{key}.npy", npy(values)) for key, values in arrays().items()]
    file = zipped(
        tmp_path / "in" / "log.npz", [*members, ("../x.npy", npy(np.ones(3))), ("/tmp/x.npy", b"x")]
    )
    assert len(load_dataset(file)) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["log.npz"]


def test_an_encrypted_member(tmp_path):
    file = zipped(tmp_path / "log.npz", [(f"{key}.npy", npy(values)) for key, values in arrays().items()])
    content = bytearray(file.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := content.find(signature, place + 1)) >= 0:
            content[place + flags] |= 1
    file.write_bytes(content)
    refused(file, "encrypted")


def test_booleans_of_any_byte_are_no_flags(tmp_path):
    file = zipped(tmp_path / "log.npz", [
        *((f"{key}.npy", npy(values)) for key, values in arrays().items() if key != "terminals"),
        ("terminals.npy", member((9,), "|b1", bytes([0] * 4 + [7] + [0] * 4))),
    ])  # fmt: skip
    refused(file, "'terminals', row 4: value 7 is neither 0 nor 1")


def test_a_million_keys_are_told_of_in_a_few(tmp_path):
    file = zipped(tmp_path / "log.npz", [(f"observatio{n}.npy", b"") for n in range(20_000)])
    with pytest.raises(DataError, match="and 19,960 more") as caught:
        load_dataset(file)
    assert len(str(caught.value)) < 2_000


# HDF5


@pytest.fixture
def hdf5(tmp_path):
    """A log in HDF5 without rewards, to be given some."""
    file = tmp_path / "log.hdf5"
    with h5py.File(file, "w") as container:
        for key, values in arrays().items():
            if key != "rewards":
                container[key] = values
    return file


def test_no_other_file_is_opened_to_tell_a_shape(hdf5, tmp_path):
    """HDF5 opens the source of an unlimited virtual array for its shape; of a pipe it would wait."""
    other = tmp_path / "other.hdf5"
    with h5py.File(other, "w") as container:
        container.create_dataset("rewards", data=np.ones(9, "f4"), maxshape=(None,))
    layout = h5py.VirtualLayout((9,), "f4", maxshape=(None,))
    source = h5py.VirtualSource(other, "rewards", (9,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    with h5py.File(hdf5, "a") as container:
        container.create_virtual_dataset("rewards", layout)
    other.unlink()
    os.mkfifo(other)
    # HDF5 would wait again after every signal, so that only the end of its process ends it.
    code = "import sys; from simtrust.data import load_dataset; load_dataset(sys.argv[1])"
    command = [sys.executable, "-c", code, str(hdf5)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "DataError: " in done.stderr and "'rewards': keeps its values in other files" in done.stderr


def test_no_link_is_followed_to_a_pipe(hdf5, pipe):
    with h5py.File(hdf5, "a") as container:
        container["rewards"] = h5py.ExternalLink(str(pipe), "/rewards")
        container["metadata"] = h5py.ExternalLink(str(pipe), "/")
    refused(hdf5, "'rewards': is a ExternalLink")
    with h5py.File(hdf5, "a") as container:
        del container["rewards"], container["metadata"]
        container["rewards"] = np.ones(9, np.float32)
        container.create_group("metadata")["simtrust_time"] = h5py.ExternalLink(str(pipe), "/x")
    refused(hdf5, "'metadata/simtrust_time': is a ExternalLink")


def test_no_other_file_is_read_for_values(hdf5):
    with h5py.File(hdf5, "a") as container:
        container.create_dataset("rewards", (9,), "f4", external=[("/etc/passwd", 0, 36)])
    refused(hdf5, "'rewards': keeps its values in other files")


@pytest.mark.parametrize("chunks", [None, (4,)])
def test_values_never_written_are_no_zeros(hdf5, chunks):
    with h5py.File(hdf5, "a") as container:
        container.create_dataset("rewards", (9,), "f4", chunks=chunks)
    refused(hdf5, "'rewards': has values that were never written.*zeros too")
    with h5py.File(hdf5, "a") as container:
        container["rewards"][:4] = 1
    if chunks is None:
        assert len(load_dataset(hdf5)) == 9
    else:
        refused(hdf5, "never written")


def test_a_chunk_larger_than_its_array_is_counted(hdf5, free):
    with h5py.File(hdf5, "a") as container:
        container.create_dataset("rewards", (9,), "f4", maxshape=(None,), chunks=(2**23,), compression="gzip")
        container["rewards"][:] = 1
    assert hdf5.stat().st_size < MIB
    free(1024 * MIB)
    assert len(load_dataset(hdf5)) == 9
    free(64 * MIB)
    refused(hdf5, r"'rewards': claims 0\.1 GiB to read")


def packed(container, prepare, chunk):
    """Rewards with one chunk as it is stored, and what HDF5 shall believe of its filters."""
    stored = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    stored.set_chunk((9,))
    prepare(stored)
    dataset = h5py.h5d.create(
        container.id, b"rewards", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((9,)), stored
    )
    dataset.write_direct_chunk((0,), chunk)


def test_a_chunk_that_unpacks_beyond_itself_is_not_unpacked(hdf5, free):
    with h5py.File(hdf5, "a") as container:
        packed(container, lambda stored: stored.set_deflate(9), zlib.compress(bytes(100 * MIB), 9))
    free(64 * MIB)
    refused(hdf5, "'rewards': has a chunk that unpacks to more than its 36 bytes")
    assert peak_of(lambda: load_dataset(hdf5)) < 10 * MIB


@pytest.mark.parametrize(("pieces", "told"), [(5_000, "in more than its 36 bytes"), (0, None)])
def test_lzf_is_not_unpacked_beyond_its_chunk(hdf5, free, pieces, told):
    """One byte that stands for itself 32 times, and then three for 264 more each."""
    chunk = bytes([31]) + bytes(32) + b"\xe0\xff\x00" * pieces if pieces else bytes(36)
    with h5py.File(hdf5, "a") as container:
        packed(container, lambda stored: stored.set_filter(h5py.h5z.FILTER_LZF, 0, (4, 0x0209, 36)), chunk)
    free(64 * MIB)
    if told:
        refused(hdf5, f"'rewards': has a chunk that is stored {told}")
        assert peak_of(lambda: load_dataset(hdf5)) < 10 * MIB
    else:
        check_packing_of(hdf5, "rewards")


def check_packing_of(path, name):
    with h5py.File(path) as container:
        hdf5_packing.check_packing(str(path), name, container[name])


def test_a_chunk_that_is_what_it_says_is_read_though_it_could_be_more(tmp_path, free):
    values = np.random.default_rng(0).integers(0, 256, (2**16, 1)).astype(np.float32)
    log = arrays(2**16) | {"actions": values}
    with h5py.File(tmp_path / "log.hdf5", "w") as container:
        for key, array in log.items():
            container.create_dataset(key, data=array, chunks=array.shape, compression="gzip")
        assert container["actions"].id.get_storage_size() > hdf5_packing.SMALL
    free(64 * MIB)
    np.testing.assert_array_equal(load_dataset(tmp_path / "log.hdf5").transitions.action, values)


@pytest.mark.parametrize("filters", ["gzip twice", "zstandard"])
def test_filters_that_multiply_or_load_libraries(hdf5, filters, monkeypatch):
    def prepare(stored):
        if filters == "gzip twice":
            stored.set_deflate(9)
            stored.set_deflate(9)
        else:
            stored.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)

    with h5py.File(hdf5, "a") as container:
        packed(container, prepare, zlib.compress(zlib.compress(bytes(36))))
    read = h5py.Dataset.__getitem__

    def listen(dataset, selection):
        assert dataset.name != "/rewards", "was read"
        return read(dataset, selection)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", listen)
    refused(hdf5, r"'rewards': is packed by HDF5's filters .+, and only.*h5repack -f GZIP=4")


@pytest.mark.parametrize(
    "dtype",
    [
        h5py.ref_dtype,
        h5py.string_dtype(),
        h5py.vlen_dtype("f4"),
        np.dtype([("a", "f4")]),
        np.dtype("V4"),
        "S4",
    ],
)
def test_types_that_are_no_numbers(hdf5, dtype):
    with h5py.File(hdf5, "a") as container:
        container.create_dataset("rewards", (9,), dtype)
    refused(hdf5, "'rewards': (has type|holds Python objects)")


def test_long_ids_are_counted(hdf5, free):
    with h5py.File(hdf5, "a") as container:
        for name in ("x", "u", "r"):
            container[name] = np.ones(9)
        container.create_dataset("ep", data=np.full(9, b"a", f"S{2 * MIB}"), compression="gzip")
    free(64 * MIB)
    refused(hdf5, r"'ep': claims 0\.1 GiB", columns=TABLE)


# CSV


def put(folder, text, name="log.csv"):
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize("beginning", ["x,u,r,ep\n1,1,1,", 'x,u,r,ep\n1,1,1,"', '"'])
def test_a_field_without_end_is_not_read(tmp_path, beginning):
    file = put(tmp_path, beginning)
    os.truncate(file, 500 * MIB)
    refused(file, "a line of", columns=TABLE)
    assert peak_of(lambda: load_dataset(file, columns=TABLE)) < 40 * MIB


def test_a_row_over_many_lines_is_not_gathered(tmp_path):
    file = put(tmp_path, 'x,u,r,ep\n1,1,1,"a' + '\n","b' * 2_000_000)
    refused(file, "a row within quotation marks of", columns=TABLE)
    assert peak_of(lambda: load_dataset(file, columns=TABLE)) < 80 * MIB


@pytest.mark.filterwarnings("ignore::simtrust.errors.DataWarning")
def test_long_rows_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "CHUNK_CHARACTERS", MIB)
    row = "1,1,1,a," + "y" * 100_000 + "\n"
    file = put(tmp_path, "x,u,r,ep,remark\n" + row * 300)
    assert len(load_dataset(file, columns=TABLE)) == 299
    assert peak_of(lambda: load_dataset(file, columns=TABLE)) < 12 * MIB


@pytest.mark.filterwarnings("ignore::simtrust.errors.DataWarning")
def test_a_formula_is_text(tmp_path):
    file = put(tmp_path, "x,u,r,ep\n1,1,1,=cmd|'/c calc'!A1\n2,1,1,=cmd|'/c calc'!A1\n")
    assert len(load_dataset(file, columns=TABLE)) == 1
    refused(put(tmp_path, "x,u,r,ep\n=1+1,1,1,a\n"), r"'=1\+1' is not a number", columns=TABLE)
    refused(put(tmp_path, "x,u,r,ep\n\01,1,1,a\n"), "is not a number", columns=TABLE)


def test_very_many_columns(tmp_path):
    file = put(tmp_path, ",".join(f"observatio{n:x}" for n in range(60_000)) + "\n")
    refused(file, "no column is recognised")
    refused(file, "'x': wanted for observation", columns=TABLE)
    refused(put(tmp_path, ",".join(map(str, range(1_000_000))) + "\n"), "a line of")


# Parquet


@pytest.fixture
def table():
    return {"x": np.ones(6), "u": np.ones(6), "r": np.ones(6), "ep": [1] * 3 + [2] * 3}


@pytest.mark.filterwarnings("ignore::simtrust.errors.DataWarning")
@pytest.mark.parametrize("as_dictionary", [True, False])
def test_an_id_is_unpacked_once_not_for_each_row(tmp_path, free, as_dictionary):
    rows, long = 60_000, "e" * MIB
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([long]))
    columns = dict.fromkeys(["x", "u", "r"], pa.array(np.ones(rows))) | {"ep": ids}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", store_schema=as_dictionary)
    assert (tmp_path / "log.parquet").stat().st_size < MIB
    free(1024 * MIB)
    before = pa.default_memory_pool().max_memory()
    assert len(load_dataset(tmp_path / "log.parquet", columns=TABLE)) == rows - 1
    assert pa.default_memory_pool().max_memory() - before < 64 * MIB, "it would be 60 GiB"


def test_ids_that_do_not_fit_are_refused(tmp_path, table, free):
    ids = [f"{n}" * MIB for n in range(6)]
    pq.write_table(pa.table(table | {"ep": ids}), tmp_path / "log.parquet")
    free(32 * MIB)
    refused(tmp_path / "log.parquet", "'ep': claims 0.0 GiB", columns=TABLE)


def varint(number):
    number, found = 2 * number, b""
    while number >= 128:
        found, number = found + bytes([number % 128 + 128]), number // 128
    return found + bytes([number])


def test_rows_that_a_parquet_file_only_claims(tmp_path):
    rows = 1_234_567
    columns = dict.fromkeys(["x", "u", "r", "ep"], pa.array(np.ones(rows, np.float32)))
    pq.write_table(pa.table(columns), tmp_path / "log.parquet", row_group_size=rows, write_statistics=False)
    content = (tmp_path / "log.parquet").read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - size : -8]
    for claimed, words in ((10**15, "claims .* GiB"), (rows + 1, "damaged|holds other than")):
        lying = footer.replace(varint(rows), varint(claimed))
        assert lying != footer
        file = put(
            tmp_path, content[: -8 - size] + lying + struct.pack("<I", len(lying)) + b"PAR1", "lie.parquet"
        )
        refused(file, words, columns=TABLE)


def test_a_pickled_type_of_arrow_is_not_opened(tmp_path, table):
    marker = tmp_path / "executed"
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Hostile(marker)),
    }
    fields = [pa.field(name, pa.float64(), metadata=metadata if name == "x" else None) for name in table]
    columns = [pa.array(np.asarray(values, float)) for values in table.values()]
    pq.write_table(pa.table(columns, schema=pa.schema(fields)), tmp_path / "log.parquet")
    assert b"arrow.py_extension_type" in base64.b64decode(
        pq.read_metadata(tmp_path / "log.parquet").metadata[b"ARROW:schema"]
    )
    with pytest.warns(Warning, match="terminated"):
        assert len(load_dataset(tmp_path / "log.parquet", columns=TABLE)) == 4
    assert not marker.exists()


@pytest.mark.parametrize("depth", [50, 300])
def test_deep_nesting(tmp_path, table, depth):
    kind = pa.int8()
    for _ in range(depth):
        kind = pa.struct([("a", kind)])
    schema = pa.schema([("n", kind), *((name, pa.float64()) for name in table)])
    pq.write_table(schema.empty_table(), tmp_path / "log.parquet")
    refused(tmp_path / "log.parquet", "has zero rows|too deeply nested", columns=TABLE)


# Folders

FRAMES = {
    "observation.state": [[1.0, 2.0]] * 6,
    "action": [[1.0]] * 6,
    "next.reward": [1.0] * 6,
    "next.done": [False] * 5 + [True],
    "episode_index": [0] * 6,
}


@pytest.fixture
def lerobot(tmp_path):
    folder = tmp_path / "robot"
    (folder / "meta").mkdir(parents=True)
    (folder / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(FRAMES), folder / "data/chunk-000/file-000.parquet")
    (folder / "meta/info.json").write_text(json.dumps({"codebase_version": "v3.0"}))
    return folder


@pytest.fixture
def minari(tmp_path):
    folder = tmp_path / "minari"
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for key, values in arrays().items():
            key = {"terminals": "terminations"}.get(key, key)
            file[f"episode_0/{key}"] = values if key != "observations" else np.ones((10, 2), np.float32)
        file["episode_0/truncations"] = np.zeros(9, bool)
    (folder / "data/metadata.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "template",
    [
        "../../../../etc/passwd",
        "/etc/passwd",
        "{0.__class__}",
        "{chunk_index.__class__.__mro__}",
        "{x!r:{y}}",
        "%s%n",
    ],
)
def test_paths_in_the_metadata_are_not_used(lerobot, template):
    info = {"codebase_version": "v3.0", "data_path": template, "video_path": template, "total_frames": 6}
    (lerobot / "meta/info.json").write_text(json.dumps(info))
    assert len(load_dataset(lerobot, dones_mean="terminated")) == 6
    (lerobot / "meta/info.json").write_text(json.dumps(info | {"codebase_version": template}))
    refused(lerobot, "says version .* where v3 is supported")


def test_a_link_given_by_the_user_is_followed(lerobot, minari, tmp_path):
    (tmp_path / "to-lerobot").symlink_to(lerobot)
    (tmp_path / "to-minari").symlink_to(minari)
    assert len(load_dataset(tmp_path / "to-lerobot", dones_mean="terminated")) == 6
    assert len(load_dataset(tmp_path / "to-minari")) == 9
    save_dataset(tmp_path / "log.hdf5", arrays())
    (tmp_path / "to-file.hdf5").symlink_to(tmp_path / "log.hdf5")
    assert len(load_dataset(tmp_path / "to-file.hdf5")) == 9


@pytest.mark.parametrize(
    "place", ["meta/info.json", "meta", "data/chunk-000/file-000.parquet", "data/chunk-000", "data"]
)
def test_a_link_that_leaves_a_lerobot_folder_is_not_followed(lerobot, tmp_path, place):
    (lerobot / place).rename(tmp_path / "elsewhere")
    (lerobot / place).symlink_to(tmp_path / "elsewhere")
    refused(lerobot, r"is a link that leads out of the folder.*cp -rL", dones_mean="terminated")
    (lerobot / place).unlink()
    (tmp_path / "elsewhere").rename(lerobot / "inside")
    (lerobot / place).symlink_to(lerobot / "inside")
    assert len(load_dataset(lerobot, dones_mean="terminated")) == 6


@pytest.mark.parametrize(("blobs", "inside"), [("repository/blobs", True), ("other/blobs", False)])
def test_a_snapshot_of_hugging_faces_cache_links_to_its_repositorys_files(lerobot, tmp_path, blobs, inside):
    snapshot, place = tmp_path / "repository/snapshots/0a1b", "meta/info.json"
    snapshot.parent.mkdir(parents=True)
    lerobot.rename(snapshot)
    (tmp_path / blobs).mkdir(parents=True)
    (snapshot / place).rename(tmp_path / blobs / "2c3d")
    (snapshot / place).symlink_to(tmp_path / blobs / "2c3d")
    if inside:
        assert len(load_dataset(snapshot, dones_mean="terminated")) == 6
    else:
        refused(snapshot, "is a link that leads out of the folder", dones_mean="terminated")


@pytest.mark.parametrize("place", ["data/main_data.hdf5", "data/metadata.json", "data"])
def test_a_link_that_leaves_a_minari_folder_is_not_followed(minari, tmp_path, place):
    (minari / place).rename(tmp_path / "elsewhere")
    (minari / place).symlink_to(tmp_path / "elsewhere")
    refused(minari, r"is a link that leads out of the folder")


@pytest.mark.parametrize("place", ["meta/info.json", "data/chunk-000/file-000.parquet"])
def test_a_pipe_in_a_folder(lerobot, place):
    (lerobot / place).unlink()
    os.mkfifo(lerobot / place)
    refused(lerobot, "is a directory or a device", dones_mean="terminated")


def test_names_that_no_file_can_hold(lerobot):
    names = {"observation.state": {"names": ["\ud800", "x"]}, "action": {"names": ["u"]}}
    (lerobot / "meta/info.json").write_text(json.dumps({"codebase_version": "v3.0", "features": names}))
    dataset = load_dataset(lerobot, dones_mean="terminated")
    assert (dataset.observation_names, dataset.action_names) == (None, ("u",))


# JSON of any origin


def checkpoints(folder):
    (folder / "file.json").rename(folder / "checkpoint-000000000100.json")
    return CheckpointStore(folder).latest()


def info(folder):
    (folder / "meta").mkdir()
    (folder / "file.json").rename(folder / "meta/info.json")
    return load_dataset(folder)


def metadata(folder):
    (folder / "data").mkdir()
    (folder / "file.json").rename(folder / "data/metadata.json")
    return load_dataset(folder)


def renamed(name, read):
    def after(folder):
        (folder / "file.json").rename(folder / name)
        return read(folder)

    return after


READERS = {
    "config.json": renamed("config.json", lambda folder: config_from_json(folder / "config.json")),
    "result.json": renamed("result.json", read_result),
    "gap_model.json": renamed(
        "gap_model.json", lambda f: load_gap_model(f, observation_size=2, action_size=1)
    ),
    "a checkpoint's manifest": checkpoints,
    "LeRobot's info.json": info,
    "Minari's metadata.json": metadata,
}
TEXTS = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a huge number": b'{"format": ' + b"9" * 100_000 + b', "steps": 1, "codebase_version": 1}',
    "a huge exponent": b'{"format": 1e999999999, "steps": 1e999, "runs": [{"seed": 1e999}]}',
    "NaN": b'{"format": NaN, "steps": Infinity, "runs": [{"seed": NaN}], "codebase_version": NaN}',
    "a key twice": b'{"format": 1, "format": 1}',
    "UTF-16": '{"format": 1}'.encode("utf-16"),
    "UTF-32": '{"format": 1}'.encode("utf-32"),
    "binary": bytes(range(256)),
    "a number": b"7",
    "null": b"null",
    "nothing": b"",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("reader", READERS)
def test_json_that_is_made_to_confuse(tmp_path, reader, text):
    (tmp_path / "file.json").write_bytes(TEXTS[text])
    with pytest.raises(SimtrustError):
        READERS[reader](tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_json_of_500_megabytes_is_not_read(tmp_path, reader):
    with (tmp_path / "file.json").open("wb") as file:
        file.write(b'{"format": "')
        file.truncate(500 * MIB)

    def read():
        with pytest.raises(SimtrustError):
            READERS[reader](tmp_path)

    assert peak_of(read) < 2 * BYTES_MAX


@pytest.mark.parametrize("reader", READERS)
def test_json_that_is_a_pipe_is_not_waited_for(tmp_path, reader):
    os.mkfifo(tmp_path / "file.json")
    with pytest.raises(SimtrustError):
        READERS[reader](tmp_path)


# safetensors


def tensors(header, values=bytes(24)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


ONE = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
TENSORS = {
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header longer than the file": struct.pack("<Q", 10**6) + b"{}",
    "no JSON": tensors(b"[" * 100_000),
    "beyond the file": tensors({"x": ONE | {"data_offsets": [0, 2**40]}}),
    "huge": tensors({"x": ONE | {"shape": [2**40], "data_offsets": [0, 2**42]}}),
    "a product that wraps": tensors({"x": ONE | {"shape": [2**32, 2**32, 6]}}),
    "overlapping": tensors({"x": ONE, "y": ONE}),
    "a hole": tensors({"x": ONE | {"shape": [4], "data_offsets": [8, 24]}}),
    "backwards": tensors({"x": ONE | {"data_offsets": [24, 0]}}),
    "a negative shape": tensors({"x": ONE | {"shape": [-6]}}),
    "another size": tensors({"x": ONE | {"shape": [7]}}),
    "a type that is none": tensors({"x": ONE | {"dtype": "PICKLE"}}),
    "a type that numpy lacks": tensors({"x": ONE | {"dtype": "F8_E4M3", "shape": [24]}}),
    "not all used": tensors({"x": ONE}, bytes(25)),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_lie(tmp_path, case):
    (tmp_path / "state.safetensors").write_bytes(TENSORS[case])
    file = StoredFile("state.safetensors", hashlib.sha256(TENSORS[case]).hexdigest())
    with pytest.raises(RunError, match=r"state\.safetensors is damaged"):
        read_tensors(tmp_path, file)


def test_tensors_that_are_no_file_or_too_large(tmp_path, pipe):
    with pytest.raises(RunError, match="is no file"):
        read_tensors(tmp_path, StoredFile("pipe", ""))
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**43)
    with pytest.raises(RunError, match="do not fit into memory"):
        read_tensors(tmp_path, StoredFile("large", ""))


# ONNX


def policy(tensor, *, inside=False):
    inputs = [helper.make_tensor_value_info("observation", 1, ["rows", 2])]
    outputs = [
        helper.make_tensor_value_info("action", 1, ["rows", 2]),
        helper.make_tensor_value_info("valid", 9, [2]),
    ]
    nodes = [
        helper.make_node("Constant", [], ["weight"], value=tensor),
        helper.make_node("MatMul", ["observation", "weight"], ["action"]),
        helper.make_node("Constant", [], ["valid"], value=helper.make_tensor("v", 9, [2], [True, True])),
    ]
    graph = helper.make_graph(
        nodes if inside else nodes[1:], "policy", inputs, outputs, [] if inside else [tensor],
    )  # fmt: skip
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()


@pytest.mark.parametrize("inside", [True, False])
def test_a_model_opens_no_other_file(tmp_path, monkeypatch, inside):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, so no model is opened at all")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(np.ones((2, 2), np.float32).tobytes())
    weight = helper.make_tensor("weight", TensorProto.FLOAT, [2, 2], [1, 0, 0, 1])
    session = open_session(policy(weight, inside=inside))
    assert session is not None
    np.testing.assert_array_equal(session(np.ones((1, 2), np.float32))[0], [[1, 1]])
    for place in ("secret", "/etc/passwd", "../../etc/passwd"):
        elsewhere = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[2, 2])
        elsewhere.data_location = TensorProto.EXTERNAL
        elsewhere.external_data.add(key="location", value=place)
        with pytest.raises(ExportError, match="'weight' in another file, which is not opened"):
            open_session(policy(elsewhere, inside=inside))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95", b"\x0a" * 1000, bytes(100)])
def test_what_is_no_model(content):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, so no model is opened at all")
    with pytest.raises(ExportError, match="the model"):
        open_session(content)
    assert onnx.ModelProto.FromString(b"").graph.name == ""


# The memory that is promised


@pytest.mark.parametrize("name", ["log.hdf5", "log.npz", "log.csv", "table.hdf5"])
@pytest.mark.parametrize("next_observations", [True, False])
def test_reading_takes_at_most_twice_what_was_announced(tmp_path, monkeypatch, name, next_observations):
    announced = []
    check = checks.check_memory

    def listen(source, needed):
        announced.append(sum(needed.values()))
        check(source, needed)

    for module in ("checks", "tables"):
        monkeypatch.setattr(f"simtrust.data.{module}.check_memory", listen)
    rows = 4_000 if name == "log.csv" else 40_000
    log = {key: np.ascontiguousarray(values) for key, values in arrays(rows, 20).items()}
    log["terminals"][::100] = True
    if next_observations:
        log["next_observations"] = log["observations"] + 1
    columns = None
    if name == "log.csv":
        header = [*(f"observation_{n}" for n in range(20)), "action_0", "reward", "terminated"]
        header += [f"next_observation_{n}" for n in range(20)] if next_observations else []
        text = ",".join(header) + "\n" + (",".join(["1"] * len(header)) + "\n") * rows
        file = put(tmp_path, text)
    elif name == "log.npz":
        np.savez(tmp_path / name, **log)
        file = tmp_path / name
    else:
        file = save_dataset(tmp_path / name, log)
    if name == "table.hdf5":
        columns = ["observation=observations", "action=actions", "reward=rewards", "terminated=terminals"]
        columns += ["next_observation=next_observations"] if next_observations else []
    load_dataset(file, columns=columns)
    announced.clear()
    peak = peak_of(lambda: load_dataset(file, columns=columns))
    assert peak > 1.5 * rows * 20 * 4, "nothing was read"
    # A table's texts are read by the hundred thousand, whatever the file's size.
    slack = 20 * MIB if name == "log.csv" else 2 * MIB
    assert peak < 2 * max(announced) + slack
