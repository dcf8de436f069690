"""Lines to read on a screen of their own: help, the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui import keys
from tui.screens.base import BaseScreen
from tui.screens.parts import MakeLines, Page, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from tui.context import AppContext


class Pager(BaseScreen):
    """A titled page."""

    ACTIONS = keys.PAGER

    def __init__(self, context: AppContext, title: str, make: MakeLines) -> None:
        super().__init__(context)
        self._title_text = title
        self._make = make

    def content(self) -> Iterable[Widget]:
        """Title and page."""
        yield Rows("title")
        yield Page()

    def on_mount(self) -> None:
        """Write the page."""
        self.query_one("#title", Rows).show(self._title_text)
        page = self.query_one(Page)
        page.show(self._make)
        page.focus()


SCREEN = Pager
