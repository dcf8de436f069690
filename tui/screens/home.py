"""The first screen: this machine, and the runs on it."""

from __future__ import annotations

import math
import time
from time import monotonic
from typing import TYPE_CHECKING

from textual.widgets import OptionList
from textual.widgets.option_list import Option

from profiles import installation
from profiles.machines import machine
from profiles.quantities import duration_text
from profiles.runs import listing, rundir
from profiles.runs.state import Status, status
from tui import keys
from tui.pages import machine as machine_page
from tui.pages import status as status_page
from tui.pages.result import short
from tui.screens.base import BaseScreen
from tui.screens.parts import Page, Rows
from tui.terminal import harmless

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from profiles.facts import Machine
    from profiles.runs.rundir import RunDir
    from tui.context import AppContext

_LOOK_SECONDS = 3.0
_MOST_RUNS = 200
_NO_RUNS = "no runs yet; n makes one"
Found = list[tuple["RunDir", Status]]


class Home(BaseScreen):
    """Where everything starts."""

    ACTIONS = keys.HOME

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self._machine: Machine | None = None
        self._rows: dict[str, str] | None = None
        self._looked_at = -math.inf

    def content(self) -> Iterable[Widget]:
        """Mount the machine above the runs."""
        yield Rows("title")
        yield Page("machine")
        yield Rows("runs-title")
        yield OptionList(id="runs", markup=False, compact=True)

    def on_mount(self) -> None:
        """Look at the machine, which may take seconds."""
        self.query_one("#title", Rows).show(f"tunedeck {installation.version()}")
        self.query_one("#runs-title", Rows).show("runs, newest first")
        self.query_one("#machine", Page).show(lambda _width: ["looking at the machine"])
        self.work("machine", lambda: machine.probe(installation.home()), self._show_machine)
        self.query_one(OptionList).focus()

    def tick(self) -> None:
        """Look at the runs every few seconds."""
        if monotonic() - self._looked_at >= _LOOK_SECONDS and "runs" not in self.busy:
            self._looked_at = monotonic()
            self.work("runs", look_at_runs, self._show_runs)

    def on_screen_resume(self) -> None:
        """Look at once when this screen comes back."""
        self._looked_at = -math.inf

    def _show_machine(self, found: Machine) -> None:
        self._machine = found
        self.query_one("#machine", Page).show(lambda width: machine_page.lines(found, width))

    def _show_runs(self, found: Found) -> None:
        rows = {run.id: row(run, now) for run, now in found}
        runs = self.query_one(OptionList)
        if self._rows is not None and list(rows) == list(self._rows):
            for run_id, text in rows.items():
                if text != self._rows[run_id]:
                    runs.replace_option_prompt(run_id, text)
        else:
            chosen = self._chosen()
            options = [Option(text, id=run_id) for run_id, text in rows.items()]
            runs.set_options(options or [Option(_NO_RUNS, disabled=True)])
            if rows:
                runs.highlighted = list(rows).index(chosen) if chosen in rows else 0
        self._rows = rows

    def _chosen(self) -> str | None:
        option = self.query_one(OptionList).highlighted_option
        return option.id if option is not None else None

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Open a run: live while it works, else its report."""
        if event.option_id is None:
            return
        run = rundir.RunDir(rundir.run_root() / event.option_id)
        if status(run).state.is_over:
            self.context.open("report", run)
        else:
            self.context.open("live", run)

    def action_watch(self) -> None:
        """Open the live screen of the highlighted run, in whatever state."""
        chosen = self._chosen()
        if chosen is None:
            self.say("there is no run to watch; n makes one")
        else:
            self.context.open("live", rundir.RunDir(rundir.run_root() / chosen))

    def action_new(self) -> None:
        """Begin with the model."""
        self.context.open("model")

    def action_machine(self) -> None:
        """Open the machine's page, all of it."""
        found = self._machine
        if found is None:
            self.say("still looking at the machine")
            return
        self.context.open("pager", "this machine", lambda width: machine_page.lines(found, width))


def look_at_runs() -> Found:
    """Find the newest runs with their states."""
    return [(run, status(run)) for run in listing.all_runs()[:_MOST_RUNS]]


def row(run: RunDir, now: Status) -> str:
    """Write state, progress, age of the newest sign, result; the end of the id names the run."""
    # Whole units only: a list that changes every second would be sent every second.
    parts = duration_text(max(0.0, time.time() - now.since)).split()[:2]
    age = "now" if parts[1] == "s" else " ".join(parts)
    date, slug = "", ""
    if run.end != run.id:  # else it is a name of one's own
        date, _, slug = run.id.removesuffix(f"_{run.end}").split("_")
    progress = status_page.progress(now)
    state = now.state.upper()
    model = short(now.result)
    return harmless(
        f"{state:<13} {progress:>11}  {age:>6}  {model:<20}  {run.end:<5}  {slug}  {date}"
    )
