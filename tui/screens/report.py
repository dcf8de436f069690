"""The bottleneck report of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiles.runs import advice
from tui import keys
from tui.plain import error_lines
from tui.screens.base import BaseScreen
from tui.screens.parts import Page, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from advisor.findings import Report
    from profiles.errors import UserError
    from profiles.runs.rundir import RunDir
    from tui.context import AppContext


class ReportScreen(BaseScreen):
    """Lines to scroll; the same as `advisor profile` prints.

    `over_curves`: the run's live screen lies right below, and is gone back to rather than opened.
    """

    ACTIONS = keys.REPORT

    def __init__(self, context: AppContext, run: RunDir, *, over_curves: bool = False) -> None:
        super().__init__(context)
        self.run_dir = run
        self._over_curves = over_curves

    def content(self) -> Iterable[Widget]:
        """Title and page."""
        yield Rows("title")
        yield Page()

    def on_mount(self) -> None:
        """Read the run, which may take seconds."""
        self.query_one("#title", Rows).show(f"report of {self.run_dir.id}")
        page = self.query_one(Page)
        page.focus()
        page.show(lambda _width: ["reading the run; esc cancels"])

        def load() -> Report:
            from tui.commands import profile  # noqa: PLC0415  # the rules, when a report is read

            return profile.load(self.run_dir)

        self.work("report", load, self._show)

    def _show(self, report: Report) -> None:
        from tui import report as report_page  # noqa: PLC0415

        symbols = self.context.terminal.symbols
        self.query_one(Page).show(lambda width: report_page.lines(report, width, symbols))
        self.say(f"to a file: {advice.line('profile', self.run_dir, '--md', 'report.md')}")

    def tell(self, error: UserError) -> None:
        """Tell the four parts where the report would be."""
        self.query_one(Page).show(lambda width: error_lines(error, width))

    def cancel(self) -> bool:
        """Leave an unread report at once rather than keep an empty page."""
        super().cancel()
        return False

    def action_watch(self) -> None:
        """Open the curves of this run."""
        if self._over_curves:
            self.app.pop_screen()
        else:
            self.context.open("live", self.run_dir)

    def action_console(self) -> None:
        """Open the console log at its end."""
        self.context.open("console", self.run_dir)

    def action_copy(self) -> None:
        """Give the id to the clipboard and to the eye."""
        name = advice.name_of(self.run_dir)
        self.app.copy_to_clipboard(name)
        self.say(f"copied {name}")


SCREEN = ReportScreen
