"""Reads the rows of a data file one by one, whatever holds them.

Decides which reader takes a file. Does not know which keys a row should have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.csv_rows import csv_rows
from profiles.data.datafile import Container, open_data
from profiles.data.dataset_errors import bad_row
from profiles.data.formats.spec import Row, RowError
from profiles.data.json_rows import json_rows
from profiles.data.parquet_rows import arrow_rows, parquet_rows
from profiles.data.text_rows import text_rows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from profiles.data.datafile import DataFile
    from profiles.data.formats.spec import NumberedRow


def read_rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, int, Row]]:
    """Every row of a data file, in order, in constant memory; UserError on the first bad one."""
    with open_data(path) as file:
        for line, row_number, row in stream_rows(file):
            if isinstance(row, RowError):
                raise bad_row(f"{file.path}:{line}", str(row))
            yield line, row_number, row


def stream_rows(
    file: DataFile, *, skip_bad: bool = False, cell_kinds: Mapping[str, str] | None = None
) -> Iterator[NumberedRow]:
    """Rows of an open file. With `skip_bad` what cannot be parsed is a RowError, else it raises.

    `cell_kinds`: what the cells of a table hold, by column; None if that is what formats say.
    """
    if file.container is Container.CSV:
        return csv_rows(file, skip_bad=skip_bad, cell_kinds=cell_kinds)
    if file.container is Container.TEXT:
        return text_rows(file)
    if file.container is Container.PARQUET:
        return parquet_rows(file)
    if file.container is Container.ARROW:
        return arrow_rows(file)
    return json_rows(file, skip_bad=skip_bad)
