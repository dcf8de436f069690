"""The values of the column by which rows are divided: `data.split_by`."""

from __future__ import annotations

import difflib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from profiles.data.dataset_errors import not_to_be_divided_by
from profiles.data.formats.spec import RowError
from profiles.data.words import printable, type_name
from profiles.quantities import some_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from profiles.data.formats.spec import Row

MOST_VALUES: Final = 1000
"""Told apart; who has more divides by something else, such as an id."""


@dataclass(slots=True)
class Values:
    """How many usable rows have each value."""

    column: str
    counts: Counter[str] = field(default_factory=Counter)
    """In order of appearance; "" stands for rows without one."""

    def settle(self, columns: Collection[str], path: str) -> None:
        """UserError with the nearest name if the first rows have no such column."""
        if self.column in columns:
            return
        near = difflib.get_close_matches(self.column, columns, n=1)
        shown = some_of([f"`{printable(name, 40)}`" for name in columns], 12)
        raise not_to_be_divided_by(
            path,
            self.column,
            why=f"no row at the beginning of the file has it; there are {shown}",
            do=f"set data.split_by to {near[0]!r}" if near else "name one of these in its place",
        )

    def of(self, row: Row) -> str:
        """The value of a row; RowError for one that is no text, number or truth."""
        value = row.get(self.column)
        if value is None:
            return ""
        if not isinstance(value, str | int | float):
            kind = type_name(type(value))
            raise RowError(f"have {kind} in `{printable(self.column, 40)}`, to divide rows by")
        return str(value)

    def add(self, row: Row, path: str) -> str:
        """Count a usable row, and return its value; UserError for one value too many."""
        value = self.of(row)
        self.counts[value] += 1
        if len(self.counts) > MOST_VALUES:
            raise not_to_be_divided_by(
                path,
                self.column,
                why=f"it has more than {MOST_VALUES} values, so most have too few rows",
                do="name a column with few values, such as the label, the task or the source",
            )
        return value
