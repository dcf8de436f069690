"""The app: which screen comes first, the one clock, and how it ends. Wiring only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from profiles.errors import ExitCode
from profiles.runs import find_run
from tui import hangup, screens
from tui.context import AppContext
from tui.pace import PacedApp
from tui.screens.base import BaseScreen
from tui.screens.home import Home

if TYPE_CHECKING:
    from textual.binding import BindingType
    from textual.screen import Screen

    from tui.terminal import Terminal


class TunedeckApp(PacedApp, inherit_bindings=False):
    """Textual's own keys are left out: ctrl+q and ctrl+p belong to terminals and tmux."""

    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [("ctrl+c", "explain_leaving", "")]

    def __init__(self, terminal: Terminal, run_id: str | None = None) -> None:
        super().__init__()
        self.context = AppContext(terminal=terminal, open=self._open)
        self._run_id = run_id

    def get_default_screen(self) -> Screen[None]:
        """Home lies below everything."""
        return Home(self.context)

    def on_mount(self) -> None:
        """Theme, clock, and the run that was asked for."""
        terminal = self.context.terminal
        if self.theme != terminal.theme:
            self.theme = terminal.theme
        self.set_class(not terminal.unicode, "-ascii")
        if not self.is_headless:
            self._leave_on_hangup(asyncio.get_running_loop())
        self.start_clock(terminal.ticks_per_second, self._tick)
        if self._run_id is not None:
            self._open("live", find_run.find(self._run_id))

    def _open(self, name: str, *subject: Any, **options: Any) -> None:
        self.push_screen(screens.make(name, self.context, *subject, **options))

    def _tick(self) -> None:
        """Only the screen on top draws data; a question on top stops it."""
        # A beat may come between the push of a screen and its widgets.
        if isinstance(self.screen, BaseScreen) and self.screen.is_mounted:
            self.screen.tick()

    def _leave_on_hangup(self, loop: asyncio.AbstractEventLoop) -> None:
        def leave() -> None:
            loop.call_soon_threadsafe(self.exit, hangup.EXIT_CODE)

        hangup.watch(leave)

    def _fatal_error(self) -> None:
        """Keep the traceback and say that the run goes on; Textual's would print variables too."""
        from rich.text import Text  # noqa: PLC0415  # what breaks seldom is loaded seldom

        from tui import crash, plain  # noqa: PLC0415

        error = self._exception or RuntimeError("unknown")
        self._return_code = int(ExitCode.INTERNAL)
        self.panic(Text("\n".join(plain.error_lines(crash.told(error)))))

    def action_explain_leaving(self) -> None:
        """Say what ctrl+c would be pressed for."""
        if isinstance(self.screen, BaseScreen) and self.screen.is_mounted:
            self.screen.say("esc goes back, q leaves; training goes on either way")
