"""The building blocks of the screens: rows, a framed panel, a page that scrolls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.text import Text
from textual.containers import VerticalScroll
from textual.widgets import Static

from tui.plain import wrap
from tui.terminal import Symbols, clean, harmless, num_cells
from tui.tones import Line
from tui.widgets.chart import DRAWINGS
from tui.widgets.lines import Lines

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

MakeLines = Callable[[int], Iterable[str | Line]]
"""Writes lines for a width."""


def fitting(line: str, width: int) -> list[str]:
    """Wrap a line that is too long for the screen under its own beginning."""
    if num_cells(line) <= width:
        return [line]
    margin = line[: len(line) - len(line.lstrip())]
    return wrap(line.strip(), width, indent=f"{margin}  ", first=margin)


class Rows(Lines):
    """A few lines of text, as many rows as it was given."""

    DEFAULT_CSS = "Rows { height: 1; color: $foreground; }"

    def __init__(self, id: str | None = None, *, most: int = 1) -> None:  # noqa: A002
        super().__init__(id=id)
        self._most = most
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """What is shown."""
        return "\n".join(self._texts)

    def show(self, *texts: str) -> None:
        """Show these lines; more rows than allowed are left out."""
        self._texts = [harmless(text) for text in texts][: self._most]
        num_rows = max(1, len(self._texts))
        if self.styles.height is None or self.styles.height.value != num_rows:
            self.styles.height = num_rows
        self.redraw()

    def build_rows(self, width: int, height: int) -> list[str]:  # noqa: ARG002
        """Cut the lines to the width."""
        return [text if len(text) <= width else text[:width] for text in self._texts]


class Panel(Lines):
    """A frame with a title around rows that are written for its size."""

    DEFAULT_CSS = "Panel { color: $primary; min-width: 10; min-height: 3; }"

    def __init__(self, title: str, symbols: Symbols, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._title = clean(title)
        self._frame = DRAWINGS[symbols].frame
        self._make: Callable[[int, int], list[str]] = lambda _width, _height: []

    def show(self, make: Callable[[int, int], list[str]]) -> None:
        """Write the rows for the width and height inside the frame."""
        self._make = make
        self.redraw()

    def build_rows(self, width: int, height: int) -> list[str]:
        """Put the frame around."""
        inner = width - 2
        if inner < 1 or height < 3:  # no room for a frame
            return self._make(width, height)
        top_left, top_right, bottom_left, bottom_right, dash, bar = tuple(self._frame)
        title = f" {self._title} "[:inner].ljust(inner, dash)
        made = [harmless(row) for row in self._make(inner, height - 2)][: height - 2]
        made += [""] * (height - 2 - len(made))
        rows = [f"{bar}{row[:inner].ljust(inner)}{bar}" for row in made]
        return [
            f"{top_left}{title}{top_right}",
            *rows,
            f"{bottom_left}{dash * inner}{bottom_right}",
        ]


class Page(VerticalScroll):
    """Lines to read, written anew when the width changes."""

    DEFAULT_CSS = """
    Page { scrollbar-size-vertical: 1; scrollbar-gutter: stable; overflow-x: hidden; }
    Page > Static { width: 100%; height: auto; text-wrap: nowrap; text-overflow: clip; }
    """

    def __init__(self, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._make: MakeLines = lambda _width: []
        self._width = -1
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        """What is written on the page, seen or not."""
        return "\n".join(self._lines)

    def compose(self) -> ComposeResult:
        """One text."""
        yield Static("", markup=False)

    def show(self, make: MakeLines) -> None:
        """Write the page for its width, now and after every resize."""
        self._make = make
        self._write()

    def _write(self) -> None:
        self._width = self.scrollable_content_region.width
        if self._width < 1:
            return
        made = [line if isinstance(line, Line) else Line(line) for line in self._make(self._width)]
        fitted = [
            Line(part, line.tone)
            for line in made
            for part in fitting(harmless(line.text), self._width)
        ]
        self._lines = [line.text for line in fitted]
        toned = [Text(line.text, line.tone.rich) for line in fitted]
        self.query_one(Static).update(Text("\n").join(toned))

    def on_resize(self, _event: events.Resize) -> None:
        """Wrap anew."""
        if self.scrollable_content_region.width != self._width:
            self._write()
