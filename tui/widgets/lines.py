"""A widget made of plain text rows in one style, which repaints only what changed.

Textual sends regions, not differences: a refreshed pane goes over the wire whole. This base class
compares the new rows with those on the screen and refreshes the changed span of each row, which is
what keeps the live screen inside its byte budget. What the rows say is decided by subclasses.
"""

from __future__ import annotations

from abc import abstractmethod

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Lines(Widget):
    """Rows of text. Subclasses give them in `build_rows` and call `redraw` when facts change."""

    _rows: tuple[str, ...] = ()
    _rows_size: tuple[int, int] = (-1, -1)

    @abstractmethod
    def build_rows(self, width: int, height: int) -> list[str]:
        """Write the rows for this size; longer ones are cropped, missing ones are blank."""

    def redraw(self) -> None:
        """Write the rows anew and repaint the spans that differ."""
        old = self._rows
        if self._rows_size != tuple(self.size):
            self.refresh()
            return
        self._write_rows()
        regions = [
            span
            for y, (before, after) in enumerate(zip(old, self._rows, strict=True))
            if (span := changed_span(before, after, y)) is not None
        ]
        # Without a region, refresh() would mean the whole widget.
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        """Give a row to Textual."""
        if self._rows_size != tuple(self.size):
            self._write_rows()
        style = self.rich_style
        row = self._rows[y] if y < len(self._rows) else ""
        strip = Strip([Segment(row, style)])
        return strip.adjust_cell_length(self.size.width, style)

    def _write_rows(self) -> None:
        width, height = self.size
        rows = [row.ljust(width) for row in self.build_rows(width, height)[:height]]
        rows += [" " * width] * (height - len(rows))
        self._rows = tuple(rows)
        self._rows_size = (width, height)


def changed_span(before: str, after: str, y: int) -> Region | None:
    """Find the part of a row to repaint, if any."""
    if before == after:
        return None
    # Wide characters shift columns, so such a row is repainted whole.
    if len(before) != len(after) or not (_is_narrow(before) and _is_narrow(after)):
        return Region(0, y, max(2 * len(before), 2 * len(after), 1), 1)
    differing = [x for x, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
    return Region(differing[0], y, differing[-1] - differing[0] + 1, 1)


def _is_narrow(text: str) -> bool:
    # Everything our own bars and charts draw with lies below the first wide characters.
    return text.isascii() or all(
        char < "\u0300"
        or "\u2010" <= char < "\u231a"
        or "\u2500" <= char < "\u25fd"
        or "\u2800" <= char < "\u2900"
        for char in text
    )
