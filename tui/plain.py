"""Lines of text for people: tables, wrapped paragraphs, errors, JSON. Readable without colour."""

from __future__ import annotations

import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from profiles.errors import UserError
from tui.terminal import clean, num_cells

DEFAULT_WIDTH = 80
_GAP = "  "


def table(
    rows: Sequence[Sequence[str]],
    *,
    header: Sequence[str] = (),
    indent: str = "",
    width: int | None = None,
) -> list[str]:
    """Columns aligned to their widest cell; the last one wraps under itself within `width`."""
    cells = [[clean(c, 300) for c in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return []
    widths = [max(num_cells(row[i]) for row in cells) for i in range(len(cells[0]) - 1)]
    lines = []
    for row in cells:
        padded = [c + " " * (w - num_cells(c)) for c, w in zip(row, widths, strict=False)]
        start = indent + "".join(c + _GAP for c in padded)
        if width is None:
            lines.append((start + row[-1]).rstrip())
        else:
            lines += wrap(row[-1], width, indent=" " * num_cells(start), first=start)
    return lines


def wrap(text: str, width: int, *, indent: str = "", first: str | None = None) -> list[str]:
    """A paragraph; `first` replaces the indent of its first line."""
    start = indent if first is None else first
    return textwrap.wrap(
        text,
        max(20, width),
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]


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
    print(text, file=sys.stderr)


def show(lines: Iterable[str]) -> None:
    """Data, on stdout; what this encoding cannot say is replaced."""
    encoding = sys.stdout.encoding or "utf-8"
    text = "\n".join(lines)
    print(text.encode(encoding, errors="replace").decode(encoding))


def show_json(value: Any) -> None:
    """Facts as JSON, on stdout."""
    print(json.dumps(jsonable(value), indent=2, ensure_ascii=False))


def jsonable(value: Any) -> Any:
    """Dataclasses, enums and tuples as what JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    return value
