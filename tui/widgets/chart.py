"""A line chart in one colour, drawn with text characters.

Each column shows min to max as a vertical run and the mean as the line, so a spike stays visible
however many steps share the column. The x axis ends a little right of the newest point and moves
only when that room is used up: between moves a new point repaints a few cells, not the pane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiles.quantities import short_text, value_text
from tui.terminal import Symbols, clean
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui.store import Column, Series

_HEADROOM = 1 / 8
"""Part of the x axis kept free for the points to come."""
_LEAST_PLOT_WIDTH = 12
"""Under this many columns the labels go, not the curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A symbol set: a cell holds `wide` x `high` dots."""

    wide: int
    high: int
    line: str
    """Character by the bits of its line dots; bit = column * high + row from the top."""
    run: str
    """Character of a cell that only a min-max run passes, or "" to draw runs as dots."""
    frame: str
    """Top left, top right, bottom left, bottom right, horizontal, vertical."""


def _braille_characters() -> str:
    # Unicode numbers the dots down the left column, down the right, then the fourth row.
    weights = (0x01, 0x02, 0x04, 0x40, 0x08, 0x10, 0x20, 0x80)
    return " " + "".join(
        chr(0x2800 + sum(weight for bit, weight in enumerate(weights) if bits >> bit & 1))
        for bits in range(1, 256)
    )


DRAWINGS = {
    Symbols.BRAILLE: Drawing(wide=2, high=4, line=_braille_characters(), run="", frame="┌┐└┘─│"),
    Symbols.BLOCK: Drawing(wide=1, high=2, line=" ▀▄█", run="│", frame="┌┐└┘─│"),
    Symbols.ASCII: Drawing(wide=1, high=2, line=" '.:", run="|", frame="++++-|"),
}


class Chart(Lines):
    """A titled curve. It draws only when `show` is called or its size changes."""

    DEFAULT_CSS = "Chart { color: $primary; min-width: 10; min-height: 3; }"
    _x_end: float
    """Of the axis of the series that is shown."""

    def __init__(
        self,
        title: str,
        *,
        symbols: Symbols = Symbols.BRAILLE,
        log_y: bool = False,
        num_recent: int = 100,
        id: str | None = None,  # noqa: A002
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._title = clean(title)
        self._drawing = DRAWINGS[symbols]
        self._log_y = log_y
        self._num_recent = num_recent
        self._series: Series | None = None
        self._caption = ""

    def show(self, series: Series, caption: str = "", *, log_y: bool | None = None) -> None:
        """Draw the series as it is now; `caption` says what the x axis covers."""
        if log_y is not None:
            self._log_y = log_y
        if series is not self._series:
            self._x_end = -math.inf
        self._series = series
        self._caption = clean(caption)
        self._settle_x_end(series)
        self.redraw()

    def _settle_x_end(self, series: Series) -> None:
        if series.x_range is None:
            return
        first, last = series.x_range
        used, room = last - first, self._x_end - first
        # Less than half used: the run was resumed from an earlier step.
        if used > room or used < room / 2:
            self._x_end = last + used * _HEADROOM

    def build_rows(self, width: int, height: int) -> list[str]:
        """Write the frame, the labels and the curve."""
        if width < 3 or height < 3:  # No room for a frame
            return [self._headline(width)]
        top_left, top_right, bottom_left, bottom_right, dash, bar = tuple(self._drawing.frame)
        inner = width - 2
        rows = [top_left + _on_border(self._headline(inner - 2), inner, dash) + top_right]
        rows += [bar + row.ljust(inner) + bar for row in self._body(inner, height - 2)]
        caption = _on_border(self._caption, inner, dash, right=True)
        return [*rows, bottom_left + caption + bottom_right]

    def _headline(self, room: int) -> str:
        """Title, value now, recent mean and lost values, as far as there is room."""
        series = self._series
        if series is None or series.last is None:
            return self._title[:room]
        now = value_text(series.last)
        num_recent = min(self._num_recent, series.num_recent)
        mean = f"{value_text(series.mean_of_last(num_recent))} mean of {num_recent}"
        lost = f"  {series.num_not_finite} not finite" if series.num_not_finite else ""
        choices = (
            f"{self._title}  {now} now  {mean}{lost}",
            f"{self._title}  {now} now{lost}",
            f"{self._title} {now}",
        )
        return next((words for words in choices if len(words) <= room), now[:room])

    def _body(self, width: int, height: int) -> list[str]:
        if self._series is None or self._series.x_range is None:
            return ["no data yet"[:width].center(width), *[""] * (height - 1)]
        # One pass at full width finds the limits, and with them the labels' width.
        limits = _limits(self._columns(width))
        if limits is None:
            words = "no positive values" if self._log_y else "no finite values"
            return [words[:width].center(width), *[""] * (height - 1)]
        labels = [short_text(10**limit if self._log_y else limit) for limit in limits]
        label_width = max(map(len, labels)) + 1
        if height < 2 or width - label_width < _LEAST_PLOT_WIDTH:
            return draw(self._columns(width), height, self._drawing)
        plot = draw(self._columns(width - label_width), height, self._drawing)
        left = [labels[1], *[""] * (height - 2), labels[0]]
        if limits[0] == limits[1]:
            left = [labels[0] if y == height // 2 else "" for y in range(height)]
        return [f"{label:>{label_width - 1}} {row}" for label, row in zip(left, plot, strict=True)]

    def _columns(self, width: int) -> list[Column | None]:
        assert self._series is not None
        num_columns = width * self._drawing.wide
        return self._series.columns(num_columns, x_end=self._x_end, log=self._log_y)


def _on_border(words: str, width: int, dash: str, *, right: bool = False) -> str:
    """Set words into a border line, or leave the line plain if nothing fits."""
    words = f" {words[: width - 2]} " if words and width > 2 else ""
    return words.rjust(width, dash) if right else words.ljust(width, dash)


def _limits(columns: Sequence[Column | None]) -> tuple[float, float] | None:
    shown = [column for column in columns if column is not None]
    if not shown:
        return None
    return min(column.low for column in shown), max(column.high for column in shown)


def draw(columns: Sequence[Column | None], height: int, drawing: Drawing) -> list[str]:
    """Draw dot columns, `drawing.wide` of them to a cell, into rows of text."""
    num_dots = height * drawing.high
    line = [0] * len(columns)
    run = [0] * len(columns)
    limits = _limits(columns)
    before: int | None = None
    for x, column in enumerate(columns):
        if column is None or limits is None:
            before = None
            continue
        low, high, mean = (_dot(value, limits, num_dots) for value in column)
        # Bits count from the top; the line reaches to the mean of the column before.
        start = mean if before is None else before + (mean > before) - (mean < before)
        line[x] = _bits(min(start, mean), max(start, mean))
        run[x] = _bits(high, low)
        if not drawing.run:
            # Every other dot, so that the line stays visible inside a band of noise.
            run[x] &= _bits(0, num_dots) // 3 << (x & 1) | 1 << high | 1 << low
        before = mean
    return [_row(line, run, y, drawing) for y in range(height)]


def _dot(value: float, limits: tuple[float, float], num_dots: int) -> int:
    """Row of a value in dots from the top; a constant series lies in the middle."""
    low, high = limits
    if high <= low:
        return num_dots // 2
    return round((high - value) / (high - low) * (num_dots - 1))


def _bits(first: int, last: int) -> int:
    return (1 << last + 1) - (1 << first)


def _row(line: list[int], run: list[int], y: int, drawing: Drawing) -> str:
    """Turn one row of cells into characters."""
    mask = (1 << drawing.high) - 1
    shift = y * drawing.high
    characters = []
    for x in range(0, len(line), drawing.wide):
        line_bits = run_bits = 0
        for column in range(drawing.wide):
            line_bits |= (line[x + column] >> shift & mask) << column * drawing.high
            run_bits |= (run[x + column] >> shift & mask) << column * drawing.high
        if drawing.run:
            character = drawing.line[line_bits]
            characters.append(drawing.run if run_bits and not line_bits else character)
        else:
            characters.append(drawing.line[line_bits | run_bits])
    return "".join(characters)
