"""Parquet, one file or several that go on one after another, read in batches with pyarrow."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simtrust.data.containers import told_as_damage
from simtrust.data.dataset import defect
from simtrust.data.tables import EpisodeCodes, Kind, Read, Table, check_table_memory, check_unique
from simtrust.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

BATCH_ROWS = 65_536


@contextmanager
def open_parquet(
    source: str, files: Sequence[Path], entry_names: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[Table]:
    """A table of scalar columns, and of lists of numbers of equal length.

    ``entry_names`` names the lists' entries where somebody knows them. Raises DataError if pyarrow is
    missing, a file is damaged, or the files' columns differ.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        problem = f"is Parquet, which needs pyarrow ({error})"
        raise defect(source, problem, "pip install 'simtrust[tables]', or export the log as CSV") from error
    with ExitStack() as stack:
        handles = []
        for file in files:
            with told_as_damage(source, f"{file.name}"):
                handles.append(stack.enter_context(pyarrow.parquet.ParquetFile(file)))
        with told_as_damage(source):
            schemas = [handle.schema_arrow for handle in handles]
        for file, schema in zip(files, schemas, strict=True):
            if not schema.equals(schemas[0]):
                problem = f"'{file.name}' has other columns than '{files[0].name}'"
                raise defect(source, problem, "record all files of a log alike")
        names = list(schemas[0].names)
        check_unique(source, names)
        yield Table(names, lambda wanted: _read(source, files, handles, wanted), entry_names or {})


def _read(
    source: str, files: Sequence[Path], handles: Sequence["ParquetFile"], wanted: Mapping[str, Kind]
) -> Read:
    schema = handles[0].schema_arrow
    for name, kind in wanted.items():
        _check_type(source, name, kind, schema.field(name).type)
    claimed = sum(handle.metadata.num_rows for handle in handles)
    if claimed <= 0:
        raise defect(source, "has zero rows", "record at least one transition")
    with told_as_damage(source):
        places = {name: schema.names.index(name) for name in wanted}
        numbers = {name: max(_claimed_values(handles, place), claimed) for name, place in places.items()}
        text = {name: _claimed_bytes(handles, place) for name, place in places.items()}
    check_table_memory(source, wanted, numbers, text)
    codes = EpisodeCodes()
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    rows = 0
    for batch in _batches(source, files, wanted):
        for name, kind in wanted.items():
            width = chunks[name][0].shape[-1] if chunks[name] else None
            chunks[name].append(_convert(source, name, kind, batch.column(name), rows, width, codes))
        rows += len(batch)
        # What the metadata claim was checked; a file that holds more would take more.
        if rows > claimed:
            break
    if rows != claimed:
        raise defect(
            source, f"holds other than the {claimed:,} rows that it claims", "copy or record the file again"
        )
    values = {name: np.concatenate(parts) for name, parts in chunks.items()}
    return Read(values, lambda row: {"row": row}, codes.ids)


def _check_type(source: str, name: str, kind: Kind, type_: "pa.DataType") -> None:
    import pyarrow.types as types

    is_number = types.is_boolean(type_) or types.is_integer(type_) or types.is_floating(type_)
    if kind == "number" and _is_list(type_):
        element = type_.value_type
        is_number = types.is_integer(element) or types.is_floating(element)
    elif kind == "episode":
        plain = type_.value_type if types.is_dictionary(type_) else type_
        is_number = is_number or types.is_string(plain) or types.is_large_string(plain) or plain != type_
    if not is_number:
        remedy = "map another column, or store it as numbers" + (
            "; time in seconds" if types.is_temporal(type_) else ""
        )
        raise defect(source, f"has type {type_}, which is no number", remedy, column=name)


def _is_list(type_: "pa.DataType") -> bool:
    import pyarrow.types as types

    return types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)


def _claimed_values(handles: Sequence["ParquetFile"], index: int) -> int:
    """How many values the files claim to hold in one column of their schema, the entries of lists counted."""
    return sum(chunk.num_values for chunk in _column_chunks(handles, index))


def _claimed_bytes(handles: Sequence["ParquetFile"], index: int) -> int:
    """The same in bytes, unpacked, a text that stands for many rows counted once."""
    return sum(chunk.total_uncompressed_size for chunk in _column_chunks(handles, index))


def _column_chunks(handles: Sequence["ParquetFile"], index: int) -> Iterator[Any]:
    schema = handles[0].schema_arrow
    leaf = sum(_leaves(field.type) for field in list(schema)[:index])
    for handle in handles:
        for group in range(handle.num_row_groups):
            yield handle.metadata.row_group(group).column(leaf)


def _leaves(type_: "pa.DataType") -> int:
    """Parquet stores nested columns as one column for each leaf."""
    type_ = getattr(type_, "storage_type", type_)
    return sum(_leaves(type_.field(i).type) for i in range(type_.num_fields)) if type_.num_fields else 1


def _batches(source: str, files: Sequence[Path], wanted: Mapping[str, Kind]) -> Iterator["pa.RecordBatch"]:
    import pyarrow.parquet

    # An id that stands once in the file would otherwise be unpacked for each of its rows.
    ids = [name for name, kind in wanted.items() if kind == "episode"]
    with told_as_damage(source):
        for file in files:
            with pyarrow.parquet.ParquetFile(file, read_dictionary=ids) as handle:
                yield from handle.iter_batches(batch_size=BATCH_ROWS, columns=list(wanted))


def _convert(
    source: str, name: str, kind: Kind, array: Any, first_row: int, width: int | None, codes: EpisodeCodes
) -> np.ndarray:
    """The values of one batch; ``width`` is how long its lists must be, None if it is the first."""
    if array.null_count:
        raise _missing(source, name, first_row + int(np.argmax(array.is_null())))
    if kind == "episode":
        coded = array if hasattr(array, "dictionary") else array.dictionary_encode()
        ids, index = coded.dictionary.to_pylist(), coded.indices.to_numpy()
        # What pandas makes of a missing integer: a number that equals no other, nor itself.
        unknown = np.isin(index, [place for place, one in enumerate(ids) if one is None or one != one])
        if unknown.any():
            raise _missing(source, name, first_row + int(np.argmax(unknown)))
        return codes.encode_coded(ids, index)
    if not _is_list(array.type):
        return array.to_numpy(zero_copy_only=False)
    lengths = np.asarray(array.value_lengths())
    width = int(lengths[0]) if width is None else width
    if (lengths != width).any():
        raise _unequal(source, name, first_row + int(np.argmax(lengths != width)))
    if width == 0:
        raise defect(source, "holds an empty list", "store at least one number per row", column=name)
    entries = array.flatten()
    if entries.null_count:
        raise _missing(source, name, first_row + int(np.argmax(entries.is_null())) // width)
    return entries.to_numpy(zero_copy_only=False).reshape(len(array), -1)


def _missing(source: str, name: str, row: int) -> DataError:
    return defect(
        source,
        "the value is missing (null)",
        "drop the episode that holds it, or repair the recording",
        column=name,
        row=row,
    )


def _unequal(source: str, name: str, row: int) -> DataError:
    return defect(
        source, "holds lists of unequal lengths", "store as many numbers in each row", column=name, row=row
    )
