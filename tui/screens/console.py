"""The end of a run's console log, made harmless for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.runs import reading
from tui import keys
from tui.screens.base import BaseScreen
from tui.screens.parts import Page, Rows
from tui.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from textual.widget import Widget

    from profiles.runs.rundir import RunDir
    from tui.context import AppContext

_END_BYTES = 128 << 10
_MOST_LINES = 400
_LINE_CELLS = 400


class ConsoleScreen(BaseScreen):
    """Follows the log while its end is in sight."""

    ACTIONS = keys.PAGER

    def __init__(self, context: AppContext, run: RunDir) -> None:
        super().__init__(context)
        self._run_dir = run
        self._size_read: int | None = None
        self._end = 0
        """Row that the page was scrolled to."""

    def content(self) -> Iterable[Widget]:
        """Title and page."""
        yield Rows("title")
        yield Page()

    def on_mount(self) -> None:
        """Read, and show the end."""
        self.query_one("#title", Rows).show(f"console log of {self._run_dir.id}")
        self.query_one(Page).focus()
        self.call_after_refresh(self.tick)

    def tick(self) -> None:
        """Read anew when the log has grown; stay at the end unless somebody scrolled back."""
        page, size = self.query_one(Page), _size(self._run_dir.console)
        follows = page.scroll_offset.y >= self._end
        if size != self._size_read:
            self._size_read = size
            lines = tail(self._run_dir.console)
            page.show(lambda width: [part for line in lines for part in folded(line, width)])
        if follows:
            self.call_after_refresh(self._go_to_end)

    def _go_to_end(self) -> None:
        """As far as the page is laid out by now; the next tick goes on."""
        page = self.query_one(Page)
        self._end = page.max_scroll_y
        page.scroll_end(animate=False, immediate=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def tail(path: Path) -> list[str]:
    """Read the last lines; of a bar that redraws itself only its last state."""
    try:
        text = reading.end_of(path, _END_BYTES).decode(errors="replace")
    except OSError as error:
        return [f"cannot read the log: {reading.reason(error)}"]
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
    shown = [clean(line, _LINE_CELLS) for line in lines[-_MOST_LINES:]]
    return [line for line in shown if line] or ["the log is empty"]


def folded(line: str, width: int) -> list[str]:
    """Cut into rows: a log is read for its details."""
    return [line[start : start + width] for start in range(0, len(line), width)]


SCREEN = ConsoleScreen
