"""Reads the rows of a plain text file: each block of lines between blank lines is a row `text`.

Holds one block in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.data.datafile import MAX_RECORD_BYTES
from profiles.data.dataset_errors import too_big

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiles.data.datafile import DataFile
    from profiles.data.formats.spec import NumberedRow


def text_rows(file: DataFile) -> Iterator[NumberedRow]:
    """The blocks of an open file, without the line break at their end."""
    file.detail = "a row is a block of lines between blank lines"
    for row_number, (begin, block) in enumerate(_blocks(file), 1):
        yield begin, row_number, {"text": block}


def _blocks(file: DataFile) -> Iterator[tuple[int, str]]:
    """Each block with the number of its first line."""
    lines: list[str] = []
    begin = num_bytes = 0
    for number, raw in file.lines(MAX_RECORD_BYTES + 1):
        line = file.text(number, raw).replace("\r\n", "\n")
        if line.isspace() or not line:
            if lines:
                yield begin, "".join(lines).removesuffix("\n")
            lines, num_bytes = [], 0
            continue
        begin = begin if lines else number
        lines.append(line)
        num_bytes += len(raw)
        if num_bytes > MAX_RECORD_BYTES:
            raise too_big(f"{file.path}:{begin}", MAX_RECORD_BYTES)
    if lines:
        yield begin, "".join(lines).removesuffix("\n")
