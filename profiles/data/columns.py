r"""Which columns of a file make the parts of a row: `[data.columns]` of a recipe, `--column`.

A part is what formats call it, such as `prompt`, `completion`, `text`, `messages`. It is the column
that is named, or a template with columns in braces: "{topic}\n{instruction}". A line of a template
whose columns are all empty is left out; {{ and }} stand for braces, and {} for nothing, by which a
fixed text is told from a name. Only parts that are named are read. Rows are mapped before a format
reads them.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from profiles.data import formats
from profiles.data.formats.spec import RowError
from profiles.data.words import printable, type_name
from profiles.errors import ExitCode, UserError
from profiles.quantities import some_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from profiles.data.formats.spec import Row

_PIECES: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")
_OF_CHATS: Final = ("system", "tools")
"""Parts that make turns of a prompt and its completion: plain texts have no place for them."""


class _Piece(NamedTuple):
    """Of a line of a template: a text, or a column."""

    text: str
    is_column: bool


_Line = tuple[_Piece, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """How the parts of a row are made."""

    _named: dict[str, str]
    """Part: column, taken as it is."""
    _templates: dict[str, tuple[_Line, ...]]
    """Part: lines, written as a text."""

    @classmethod
    def of(cls, columns: Mapping[str, str]) -> Self:
        """From parts with a column's name or a template each; ValueError for what is neither."""
        there_are = parts()
        for part in columns:
            if part not in there_are:
                near = difflib.get_close_matches(part, there_are, n=1)
                do = f"did you mean {near[0]}?" if near else f"there are {', '.join(there_are)}"
                raise ValueError(f"no format has a part {part[:40]!r}; {do}")
        named = {part: text for part, text in columns.items() if not {"{", "}"} & set(text)}
        if "" in named.values():
            raise ValueError("a column without a name")
        templates = {part: _lines(text) for part, text in columns.items() if part not in named}
        return cls(named, templates)

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that are used."""
        used = [
            piece.text
            for lines in self._templates.values()
            for line in lines
            for piece in line
            if piece.is_column
        ]
        return tuple(dict.fromkeys([*self._named.values(), *used]))

    def cell_kinds(self) -> dict[str, str]:
        """What a table's cell holds, by column, as formats.cell_kinds says of their parts."""
        kinds = formats.cell_kinds()
        of_named = {column: kinds.get(part, "text") for part, column in self._named.items()}
        return dict.fromkeys(self.sources, "text") | of_named

    def apply(self, row: Row) -> Row:
        """The parts of a row; RowError where a template holds a column that is no text."""
        found = {part: row[column] for part, column in self._named.items() if column in row}
        for part, lines in self._templates.items():
            text = _filled(lines, row, part)
            if text is not None:
                found[part] = text
        if found.keys() >= {"prompt", "completion"} and any(found.get(key) for key in _OF_CHATS):
            for part, role in (("prompt", "user"), ("completion", "assistant")):
                if isinstance(found[part], str):
                    found[part] = [{"role": role, "content": found[part]}]
        return found

    def applied(self, rows: Iterable[Row]) -> list[Row]:
        """The parts of those rows that have them, by which the format is found."""
        found = []
        for row in rows:
            try:
                found.append(self.apply(row))
            except RowError:
                found.append(dict.fromkeys([*self._named, *self._templates]))
        return found

    def unknown(self, missing: Collection[str], keys: Collection[str], where: str) -> UserError:
        """The error for columns that no row has; `keys` are those that rows have."""
        said = ", ".join(f"`{printable(name, 40)}`" for name in missing)
        have = some_of([f"`{printable(key, 40)}`" for key in keys], 12)
        near = [
            f"`{found[0]}` for `{printable(name, 40)}`"
            for name in missing
            if (found := difflib.get_close_matches(name, keys, n=1))
        ]
        return UserError(
            f"no row has the column {said}",
            why=f"data.columns (--column) names it; the columns are {have}",
            do=f"did you mean {', '.join(near)}?" if near else "name one of these columns",
            where=where,
            code=ExitCode.BAD_DATA,
        )


def parts() -> tuple[str, ...]:
    """The parts of rows, as the formats name them."""
    return tuple(dict.fromkeys(field.name for fmt in formats.FORMATS for field in fmt.fields))


def _lines(template: str) -> tuple[_Line, ...]:
    return tuple(tuple(_pieces(line)) for line in template.split("\n"))


def _pieces(line: str) -> Iterable[_Piece]:
    for found in _PIECES.finditer(line):
        text = found[0]
        if text in ("{", "}"):
            raise ValueError(f"a brace that is not closed in {line[:60]!r}; {{{{ stands for {{")
        if found[1] is None:
            yield _Piece({"{{": "{", "}}": "}"}.get(text, text), False)
        elif found[1]:
            yield _Piece(found[1], True)


def _filled(lines: tuple[_Line, ...], row: Row, part: str) -> str | None:
    """The text; None where columns are named and none of them is in the row."""
    written, is_any, has_columns = [], False, False
    for line in lines:
        values = [
            _text(row.get(piece.text), piece.text, part) if piece.is_column else piece.text
            for piece in line
        ]
        own = [value for value, piece in zip(values, line, strict=True) if piece.is_column]
        has_columns = has_columns or bool(own)
        is_any = is_any or any(row.get(piece.text) is not None for piece in line if piece.is_column)
        if not own or any(own):
            written.append("".join(values))
    return "\n".join(written) if is_any or not has_columns else None


def _text(value: Any, column: str, part: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float):
        return json.dumps(value)
    kind = type_name(type(value))
    raise RowError(f"have {kind} in `{printable(column, 40)}`, of which `{part}` is to be a text")
