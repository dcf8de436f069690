"""Lines of text for people: tables, wrapped paragraphs, errors, JSON. Readable without colour."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from profiles.errors import ExitCode, UserError
from tui.terminal import clean, harmless, harmless_lines, num_cells
from tui.tones import Line

if TYPE_CHECKING:
    from profiles.runs.rundir import RunDir

DEFAULT_WIDTH = 80
MOST_WIDTH = 120
"""Longer lines are hard to read."""
_LEAST_WIDTH = 40
_GAP = "  "
_COMMAND = re.compile(r"`advisor [^`]*`")
"""To be copied, so it stays on one line."""
_GLUE = "\0"
"""Instead of its spaces: no text that was cleaned holds it."""


def page_width() -> int:
    """Of the terminal, as far as that reads well; 80 where there is none."""
    asked = os.environ.get("COLUMNS", "")
    columns = int(asked) if asked.isdecimal() else 0
    if not columns:
        try:  # not shutil's: that loads all archive formats
            columns = os.get_terminal_size(sys.stdout.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = DEFAULT_WIDTH
    return min(max(columns or DEFAULT_WIDTH, _LEAST_WIDTH), MOST_WIDTH)


def table(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str] = (),
    indent: str = "",
    width: int | None = None,
    right: Collection[int] = (),
) -> list[str]:
    """Columns aligned to their widest cell; the last one wraps under itself within `width`.

    Columns whose numbers are in `right` are aligned there, with their heads.
    """
    cells = [[clean(c, 300) for c in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return []
    num_last = len(cells[0]) - 1
    widths = [max(num_cells(row[i]) for row in cells) for i in range(num_last + 1)]
    lines = []
    for row in cells:
        padded = [_padded(row[i], widths[i], right=i in right) for i in range(num_last + 1)]
        start = indent + "".join(cell + _GAP for cell in padded[:-1])
        if num_last in right:
            lines.append((start + padded[-1]).rstrip())
        elif width is None:
            lines.append((start + row[-1]).rstrip())
        else:
            lines += wrap(row[-1], width, indent=" " * num_cells(start), first=start)
    return lines


def _padded(cell: str, width: int, *, right: bool) -> str:
    room = " " * (width - num_cells(cell))
    return room + cell if right else cell + room


def wrap(text: str, width: int, *, indent: str = "", first: str | None = None) -> list[str]:
    """A paragraph; `first` replaces the indent of its first line. A `command` stays on one line."""
    start = indent if first is None else first
    lines = textwrap.wrap(
        _COMMAND.sub(lambda found: found[0].replace(" ", _GLUE), text),
        max(20, width),
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_GLUE, " ") for line in lines] or [start.rstrip()]


def facts(pairs: Iterable[tuple[str, str]], width: int) -> list[str]:
    """Names and values, one below the other; long values wrap under themselves."""
    known = [(name, value) for name, value in pairs if value]
    column = max((len(name) for name, _ in known), default=0) + len(_GAP)
    lines: list[str] = []
    for name, value in known:
        lines += wrap(value, width, indent=" " * column, first=name.ljust(column))
    return lines


def error_lines(error: UserError, width: int = DEFAULT_WIDTH) -> list[str]:
    """The four parts of an error: what, why, do, where."""
    lines = [*wrap(clean(error.what, 400), width, indent=" " * 7, first="error: "), ""]
    for name, text in (("why", error.why), ("do", error.do), ("where", error.where)):
        for number, part in enumerate(text.splitlines()):
            label = f"{name}:" if number == 0 else ""
            lines += wrap(clean(part, 1000), width, indent=" " * 7, first=f"{label:<7}")
    return lines


def say(text: str = "") -> None:
    """A message for the person, on stderr; stdout is for data."""
    print(harmless_lines(text), file=sys.stderr)


def starting(run: RunDir) -> None:
    """Which run is about to work, told before it does; where nobody reads it, it works as well."""
    with contextlib.suppress(OSError):
        say(f"starting {run.id}")


def show(lines: Iterable[str], *, aside: bool = False) -> None:
    """Data, on stdout; what this encoding cannot say is replaced.

    `aside`: on stderr, where stdout has been asked for something else.
    """
    if aside:
        say("\n".join(lines))
        return
    encoding = sys.stdout.encoding or "utf-8"
    text = harmless_lines("\n".join(lines))
    _print(text.encode(encoding, errors="replace").decode(encoding))


def show_toned(lines: Iterable[Line], *, coloured: bool) -> None:
    """Data on stdout, each line in its colour where colours are wanted."""
    encoding = sys.stdout.encoding or "utf-8"
    found = []
    for text, tone in lines:
        said = harmless(text).encode(encoding, errors="replace").decode(encoding)
        found.append(tone.painted(said) if coloured else said)
    _print("\n".join(found))


def put(text: str) -> None:
    """The text of a file, on stdout: as the file would be, and harmless where it is a terminal."""
    if sys.stdout.isatty() or not isinstance(sys.stdout, io.TextIOWrapper):
        show(text.splitlines())
        return
    sys.stdout.reconfigure(encoding="utf-8")
    _print(text.removesuffix("\n"))


def show_json(value: Any) -> None:
    """Facts as JSON, on stdout; escaped where the encoding or a terminal cannot take them."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False)
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    if not is_utf8 or harmless_lines(text) != text:
        text = json.dumps(jsonable(value), indent=2).replace("\x7f", "\\u007f")
    _print(text)


def _print(text: str) -> None:
    """To stdout at once, so that a disk which takes no more is told and not only seen at exit."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader has gone: nothing is wrong
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed
        raise UserError(
            f"the output cannot be written: {error.strerror or error}",
            why="standard output leads to a place that takes no more",
            do="make room there, or send the output elsewhere",
            where="standard output",
            code=ExitCode.IO_ERROR,
        ) from error


def jsonable(value: Any) -> Any:
    """Dataclasses, enums and tuples as what JSON knows; a number that is none becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
