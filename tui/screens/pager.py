"""Lines to read on a screen of their own: help, the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui import keys
from tui.screens.layer import Layer
from tui.screens.parts import MakeLines, Page, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from tui.desk import Desk


class Pager(Layer):
    """A titled page."""

    ACTIONS = keys.PAGER

    def __init__(self, desk: Desk, title: str, make: MakeLines) -> None:
        super().__init__(desk)
        self._title_text = title
        self._make = make

    def content(self) -> Iterable[Widget]:
        """Title and page."""
        yield Rows("title")
        yield Page("page")

    def on_mount(self) -> None:
        """Write the page."""
        self.query_one("#title", Rows).show(self._title_text)
        page = self.query_one(Page)
        page.show(self._make)
        page.focus()
