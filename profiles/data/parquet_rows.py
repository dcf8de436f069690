"""Reads the rows of Parquet and Arrow files one by one, in batches of a few megabytes.

Decides how much is decoded at once and what a damaged file is told as. The library is loaded only
when a file asks for it, for it comes with the packages for training. Nothing is unpickled, and
pandas is never used. A row's line is its number: the files have no lines.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from profiles.data.datafile import MAX_RECORD_BYTES
from profiles.data.dataset_errors import bad_header, damaged_columns, too_big, too_deep
from profiles.data.json_values import MAX_DEPTH
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from profiles.data.datafile import DataFile
    from profiles.data.formats.spec import NumberedRow, Row

BATCH_BYTES: Final = 8 << 20
MAX_BATCH_ROWS: Final = 1024
HASHED_BYTES: Final = 1 << 20
MIN_VERSION: Final = 15
"""Up to 14.0.0 a file could make the library unpickle what is in it (CVE-2023-47248)."""

_Batches = Callable[[Any, BinaryIO, str], Iterator[tuple[Any, float]]]


def parquet_rows(file: DataFile) -> Iterator[NumberedRow]:
    """Rows of an open file, or of all files of a folder; what the library refuses is damage."""
    _library(file.path)
    return _numbered(file, importlib.import_module("pyarrow.parquet"), _parquet_batches)


def arrow_rows(file: DataFile) -> Iterator[NumberedRow]:
    """The same of Arrow streams, as `datasets` saves them."""
    return _numbered(file, _library(file.path), _arrow_batches)


def _numbered(file: DataFile, library: Any, batches: _Batches) -> Iterator[NumberedRow]:
    several = f"{len(file.files)} files, " if len(file.files) > 1 else ""
    file.detail = f"{several}a row counts as a line"
    number = 0
    for batch in _lists(library, file, batches):
        for row in batch:
            number += 1
            yield number, number, row
    while file.read(HASHED_BYTES):  # the library reads here and there; the hash is of all bytes
        pass


def _library(path: str) -> Any:
    """UserError where it is missing, or too old."""
    try:
        library = importlib.import_module("pyarrow")
        version = str(library.__version__)
        if int(version.split(".", maxsplit=1)[0]) >= MIN_VERSION:
            return library
        found = f"pyarrow {version} is installed, which is too old to be safe"
    except ImportError:
        found = "pyarrow is not installed"
    raise UserError(
        "Parquet and Arrow files need a package that is not here",
        why=f"{found}; it comes with the packages for training",
        do="pip install 'tunedeck[train]'",
        where=path,
        code=ExitCode.DRIVER,
    )


def _lists(library: Any, file: DataFile, batches: _Batches) -> Iterator[list[Row]]:
    """Lists of rows; whatever the library raises on content becomes a UserError."""
    num_rows, part = 0, file.files[0]
    try:
        for number, part in enumerate(file.files):
            with part.open("rb") as source:
                for batch, share in batches(library, source, file.path):
                    _check_size(batch, num_rows, file.path)
                    num_rows += batch.num_rows
                    file.share_of_rows = (number + share) / len(file.files)
                    yield _rows(batch)
    except UserError:
        raise
    except MemoryError:
        raise too_big(file.path, MAX_RECORD_BYTES) from None
    except Exception as error:  # the library raises some ten types, OSError among them
        reason = str(error) or type(error).__name__
        kind, changed = file.container.value, file.has_changed()
        raise damaged_columns(str(part), kind, reason, has_changed=changed) from error


def _parquet_batches(parquet: Any, source: BinaryIO, path: str) -> Iterator[tuple[Any, float]]:
    """Batches, each with the share of the file that is read with it."""
    table = parquet.ParquetFile(source, pre_buffer=False)
    _check_schema(table.schema_arrow, path)
    num_rows = 0
    for batch in table.iter_batches(batch_size=_batch_rows(table.metadata)):
        num_rows += batch.num_rows
        yield batch, num_rows / table.metadata.num_rows


def _arrow_batches(arrow: Any, source: BinaryIO, path: str) -> Iterator[tuple[Any, float]]:
    """The same; what is said to be in the file is held against what is there."""
    size = os.fstat(source.fileno()).st_size
    with arrow.memory_map(source.name) as mapped, arrow.ipc.open_stream(mapped) as stream:
        _check_schema(stream.schema, path)
        for whole in stream:
            whole.validate(full=True)
            rows = max(1, BATCH_BYTES * whole.num_rows // max(1, whole.nbytes))
            for start in range(0, whole.num_rows, min(rows, MAX_BATCH_ROWS)):
                yield whole.slice(start, min(rows, MAX_BATCH_ROWS)), mapped.tell() / size


def _rows(batch: Any) -> list[Row]:
    rows: list[Row] = batch.to_pylist()
    nested = [one.name for one in batch.schema if one.type.num_fields]
    for row, name in product(rows, nested):
        row[name] = _without_nulls(row[name])
    return rows


def _without_nulls(value: Any) -> Any:
    """The value without keys that are null in its objects.

    All objects of a column have the same keys there, so that a tool would have the arguments of
    every other one.
    """
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return value


def _batch_rows(metadata: Any) -> int:
    """Rows that are near BATCH_BYTES by the sizes that the file states."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(max(0, group.total_byte_size) for group in groups)
    mean = int(size) // max(1, int(metadata.num_rows))
    return min(MAX_BATCH_ROWS, max(1, BATCH_BYTES // max(1, mean)))


def _check_schema(schema: Any, path: str) -> None:
    names = schema.names
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise bad_header(path, f"two columns are named `{printable(twice, 40)}`")
    level = [field.type for field in schema]
    for _ in range(MAX_DEPTH):
        level = [one.field(index).type for one in level for index in range(one.num_fields)]
    if level:
        raise too_deep(path, MAX_DEPTH)


def _check_size(batch: Any, num_before: int, path: str) -> None:
    if batch.nbytes <= MAX_RECORD_BYTES:
        return
    for index in range(batch.num_rows):
        if batch.slice(index, 1).nbytes > MAX_RECORD_BYTES:
            raise too_big(f"{path}:{num_before + index + 1}", MAX_RECORD_BYTES)
