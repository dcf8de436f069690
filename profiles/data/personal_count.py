"""Rows with personal data or keys, by kind; the data themselves are neither kept nor shown."""

from __future__ import annotations

from collections import Counter
from typing import Final

from profiles import personal

NUM_LINES: Final = 5
"""Lines that are named."""


class PersonalCount:
    """Counts over all usable rows of a file."""

    def __init__(self) -> None:
        self._num_rows = Counter[str]()
        self._lines: dict[str, list[int]] = {}

    def add(self, text: str, signs: bytes, line: int) -> None:
        """Take all texts of a row, and their `personal.signs_of`."""
        for kind in personal.kinds_in(text, signs=signs):
            self._num_rows[kind] += 1
            lines = self._lines.setdefault(kind, [])
            if len(lines) < NUM_LINES:
                lines.append(line)

    def counts(self) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        """Kind, number of rows and their first lines."""
        ranked = self._num_rows.most_common()
        return tuple((kind, number, tuple(self._lines[kind])) for kind, number in ranked)

    def sentences(self, total: int) -> list[str]:
        """One sentence; none if there is nothing of the kind."""
        parts = []
        for kind, number, lines in self.counts():
            places = f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"
            more = ", ..." if number > len(lines) else ""
            parts.append(f"{personal.BY_NAME[kind].title} in {number} ({places}{more})")
        if not parts:
            return []
        advice = "what is learnt can be told again: data.mask = true writes marks in their place"
        return [f"of {total} rows some hold personal data: {'; '.join(parts)}; {advice}"]
