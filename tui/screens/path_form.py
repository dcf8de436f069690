"""A question for a path: typed, completed, checked on a thread, and what was found below it."""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from textual.suggester import Suggester
from textual.widgets import Input

from tui import keys
from tui.plain import error_lines
from tui.screens.base import BaseScreen
from tui.screens.parts import Page, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from textual.widget import Widget

    from profiles.errors import UserError
    from tui.context import AppContext

T = TypeVar("T")
_MOST_ENTRIES = 10_000


class PathForm(BaseScreen, Generic[T]):
    """Enter checks the path; enter again goes on with what was found."""

    ACTIONS: ClassVar[tuple[keys.Action, ...]] = keys.FORM
    TITLE_TEXT: ClassVar[str]
    PLACEHOLDER: ClassVar[str]
    NEXT: ClassVar[str]

    def __init__(self, context: AppContext, path: str) -> None:
        super().__init__(context)
        self._path = path
        self._checked: str | None = None
        self.found: T | None = None

    def content(self) -> Iterable[Widget]:
        """Title, input, what was found."""
        yield Rows("title")
        yield Input(
            self._path,
            placeholder=self.PLACEHOLDER,
            suggester=PathSuggester(self.complete),
            select_on_focus=False,
            compact=True,
        )
        page = Page("found")
        page.can_focus = False
        yield page

    def on_mount(self) -> None:
        """Ready to type."""
        self.query_one("#title", Rows).show(self.TITLE_TEXT)
        self.query_one(Input).focus()

    def complete(self, value: str) -> str | None:
        """Complete what is typed; runs on a thread."""
        return complete(value)

    @abstractmethod
    def look(self, path: str) -> T:
        """Check the path; runs on a thread."""

    @abstractmethod
    def lines(self, found: T, width: int) -> list[str]:
        """Write what was found, for people."""

    @abstractmethod
    def keep(self, path: str, found: T) -> None:
        """Keep what was found for the screens to come."""

    @abstractmethod
    def go_on(self) -> None:
        """Open the next screen."""

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Check, or go on if this very path was found sound."""
        typed = event.value.strip()
        if not typed:
            self.say(self.PLACEHOLDER)
        elif self.found is not None and typed == self._checked:
            self.go_on()
        else:
            self._check(typed)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Another path is another question."""
        if self.found is not None and event.value.strip() != self._checked:
            self.found = None
            self.say("enter checks it")

    def _check(self, typed: str) -> None:
        self._checked, self.found = typed, None
        self.query_one("#found", Page).show(lambda _width: [f"checking {typed}"])
        self.say("esc cancels")
        self.work("check", lambda: self.look(expanded(typed)), self._take)

    def _take(self, found: T) -> None:
        self.found = found
        assert self._checked is not None
        self.keep(expanded(self._checked), found)
        self.query_one("#found", Page).show(lambda width: self.lines(found, width))
        self.say(f"enter goes on: {self.NEXT}")

    def tell(self, error: UserError) -> None:
        """Tell the four parts where the facts would be; the input keeps its text."""
        self.query_one("#found", Page).show(lambda width: error_lines(error, width))
        self.say("correct it, then enter")

    def cancel(self) -> bool:
        """Forget the check too."""
        was_busy = super().cancel()
        if was_busy:
            self.query_one("#found", Page).show(lambda _width: [])
        return was_busy

    def action_clear(self) -> None:
        """Empty the input at once: the input's own ctrl+u would also take what was typed next."""
        self.query_one(Input).value = ""

    def action_page_down(self) -> None:
        """Read on."""
        self.query_one("#found", Page).scroll_page_down(animate=False)

    def action_page_up(self) -> None:
        """Read back."""
        self.query_one("#found", Page).scroll_page_up(animate=False)

    def action_line_down(self) -> None:
        """Read on by a line."""
        self.query_one("#found", Page).scroll_down(animate=False)

    def action_line_up(self) -> None:
        """Read back by a line."""
        self.query_one("#found", Page).scroll_up(animate=False)


def expanded(typed: str) -> str:
    """With ~ as a shell would read it."""
    return str(Path(typed).expanduser()) if typed.startswith("~") else typed


class PathSuggester(Suggester):
    """Completes the last part of a path from its folder."""

    def __init__(self, complete: Callable[[str], str | None]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        """Find the first entry that begins so; a folder ends in a slash."""
        return await asyncio.to_thread(self._complete, value) if value else None


def complete(value: str) -> str | None:
    """Complete a path with its first fitting entry, if there is one."""
    folder, begun = os.path.split(value)
    if not begun:
        return None
    try:
        with os.scandir(expanded(folder) or ".") as entries:
            fitting = [
                entry
                for _, entry in zip(range(_MOST_ENTRIES), entries, strict=False)
                if entry.name.startswith(begun) and entry.name.isprintable()
            ]
    except OSError:
        return None
    if not fitting:
        return None
    first = min(fitting, key=lambda entry: entry.name)
    return str(Path(folder) / first.name if folder else first.name) + "/" * first.is_dir()
