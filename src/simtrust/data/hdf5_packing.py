"""What unpacking an HDF5 array takes, checked before any of its values: HDF5 believes what the file says.

An array is stored in chunks, each packed by a chain of filters. HDF5 makes room for a chunk as large as the
file says, and unpacks gzip to wherever it leads, so that a small file could fill the memory; and for a filter
that it does not know, it loads libraries from its plugin folder.
"""

import math
import zlib
from typing import Any

import h5py

from simtrust.data.checks import MEMORY_SHARE, check_memory
from simtrust.data.dataset import defect
from simtrust.limits import available_memory

GZIP_RATIO = 1032
"""So many bytes at most does a byte of a deflated stream become (zlib's documentation)."""
BUFFERS = 3
"""Copies of a chunk while it is unpacked: gzip doubles its room as it goes, then bytes are unshuffled."""
SMALL = 2**16
"""Bytes of a stored chunk that never matter: 64 MiB when unpacked."""
SLICE = 2**20
CHECKSUM_BYTES = 4
LZF_RATIO = 88
"""Three bytes of LZF stand for at most 264."""
LARGE_CHUNK = 2**24
"""Bytes of a chunk below which its copies are lost in what is announced for all values."""
PACKERS = (h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF)
FILTERS = (*PACKERS, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SCALEOFFSET)
"""Those that h5py always has, and whose room is bounded, or counted here."""


def check_packing(source: str, name: str, dataset: h5py.Dataset) -> None:
    """Refuses an array that has other filters than h5py's own, was never written, or is too large to unpack.

    A chunk that was never written is refused too; of what was written in part HDF5 does not say which part.
    Reading takes the values and three chunks, which must fit into half of the free memory, as must what gzip
    or LZF could unpack a chunk to; where that could be too much, gzip's is counted without being kept.

    Raises:
        DataError: names file, key and remedy.
    """
    stored = dataset.id.get_create_plist()
    filters = [stored.get_filter(index)[0] for index in range(stored.get_nfilters())]
    if set(filters) - set(FILTERS) or sum(one in PACKERS for one in filters) > 1:
        named = [
            stored.get_filter(place)[3].decode(errors="replace") or f"number {code}"
            for place, code in enumerate(filters)
        ]
        raise defect(
            source,
            f"is packed by HDF5's filters {', '.join(named)}, and only one of gzip and lzf is read, with"
            " shuffle, scale-offset and checksums",
            "read it with h5py and write it anew with compression='gzip', or: h5repack -f GZIP=4 OLD NEW",
            key=name,
        )
    chunk = 0
    if dataset.chunks is None:
        written = dataset.id.get_storage_size() >= dataset.nbytes
    else:
        chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
        grid = zip(dataset.shape, dataset.chunks, strict=True)
        written = dataset.id.get_num_chunks() >= math.prod(-(-rows // step) for rows, step in grid)
    # HDF5 would make up zeros, and nobody could tell them from a recording.
    if not written:
        raise defect(
            source,
            "has values that were never written",
            "store them, zeros too; if the recorder was stopped early, cut every key to the rows it wrote",
            key=name,
        )
    if chunk and BUFFERS * chunk > LARGE_CHUNK:
        check_memory(source, {name: dataset.nbytes + BUFFERS * chunk})
    if h5py.h5z.FILTER_DEFLATE in filters:
        _check_streams(source, name, dataset, chunk, filters.index(h5py.h5z.FILTER_DEFLATE))
    if h5py.h5z.FILTER_LZF in filters:
        _check_lzf(source, name, dataset, chunk)


def _check_lzf(source: str, name: str, dataset: h5py.Dataset, chunk: int) -> None:
    """Refuses chunks stored in more than themselves: LZF stores as it is what it cannot pack."""
    sizes: list[int] = []
    dataset.id.chunk_iter(lambda info: sizes.append(info.size))
    largest = max(sizes, default=0)
    if largest > chunk + CHECKSUM_BYTES:
        raise defect(
            source,
            f"has a chunk that is stored in more than its {chunk:,} bytes",
            "record it again",
            key=name,
        )
    if largest > SMALL:
        check_memory(source, {name: dataset.nbytes + BUFFERS * chunk + LZF_RATIO * largest})


def _check_streams(source: str, name: str, dataset: h5py.Dataset, chunk: int, place: int) -> None:
    """Refuses chunks that would unpack to more than themselves, where that could fill half of the memory.

    ``place`` is gzip's in the chain of filters.
    """
    stored: list[tuple[int, tuple[int, ...]]] = []

    def note(info: Any) -> None:
        if info.size > SMALL:
            stored.append((info.size, info.chunk_offset))

    dataset.id.chunk_iter(note)
    harmless = MEMORY_SHARE * available_memory() / GZIP_RATIO if stored else 0
    doubtful = [offset for size, offset in stored if size > harmless]
    for offset in doubtful:
        left_out, packed = dataset.id.read_direct_chunk(offset)
        stored_as_it_is = left_out >> place & 1
        if not stored_as_it_is and not _unpacks_to_at_most(packed, chunk):
            raise defect(
                source,
                f"has a chunk that unpacks to more than its {chunk:,} bytes",
                "record it again",
                key=name,
            )


def _unpacks_to_at_most(packed: bytes, most: int) -> bool:
    """Counted by the slice, none of which is kept."""
    stream, found, rest = zlib.decompressobj(), 0, packed
    while not stream.eof and found <= most:
        piece = stream.decompress(rest, SLICE)
        found, rest = found + len(piece), stream.unconsumed_tail
        if not piece and not rest:
            break
    return found <= most
