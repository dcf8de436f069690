"""The live screen of one run: four panes, the last events, and what can be asked of the run."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from textual.containers import Grid
from textual.widget import Widget

from profiles.quantities import duration_text
from profiles.runs import advice, notices
from profiles.runs.reading import words
from profiles.runs.rundir import read_json
from profiles.runs.state import State, status
from tui import keys, seen
from tui.feed import Feed
from tui.live import LiveRun
from tui.pace import PacedApp
from tui.pages import layers
from tui.pages.result import sentence
from tui.plain import wrap
from tui.screens import panes
from tui.screens.ask import Ask
from tui.screens.base import BaseScreen
from tui.screens.parts import Panel, Rows
from tui.terminal import clean
from tui.widgets.chart import Chart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from profiles.runs.rundir import RunDir
    from profiles.runs.state import Status
    from runner.checks.preflight import Resumable
    from tui.context import AppContext

_PANES = ("loss", "rate", "memory", "time")
_LAYER_ROWS = 2
_EVENT_ROWS = 1
_EVENT_ROWS_TALL = 6
_TALL = 36
_EARLY_SECONDS = 0.1
_LOOK_KEPT_SECONDS = 30.0
_SAID = {
    "stop": "asked to save and stop at the next step",
    "stop_now": "asked to stop at the next step, without saving",
    "pause": "asked to pause at the next step; p lets it go on",
    "unpause": "asked to go on",
    "checkpoint": "asked for a checkpoint at the next step",
}


class LiveScreen(BaseScreen):
    """Watches; leaving it never touches the run."""

    ACTIONS = keys.LIVE

    def __init__(self, context: AppContext, run: RunDir) -> None:
        super().__init__(context)
        self.run_dir = run
        self.live = LiveRun(run)
        self.feed = Feed(run)
        self._pane = 0
        self._state: State | None = None
        self._told = ""
        self._last_look = seen.last_look(run.id)

    def content(self) -> Iterable[Widget]:
        """Header, panes, events."""
        symbols = self.context.terminal.symbols
        yield Rows("header")
        with Grid(id="panes"):
            yield Chart("loss", symbols=symbols, id="loss", classes="pane")
            yield Chart("tokens/s", symbols=symbols, id="rate", classes="pane")
            with Widget(id="memory", classes="pane"):
                yield Chart("process memory, GiB", symbols=symbols, id="ram")
                yield Panel("GPU memory", symbols, id="vram")
            yield Panel("where the time goes", symbols, id="time")
        yield Rows("layers", most=_LAYER_ROWS)
        yield Rows("events", most=_EVENT_ROWS_TALL)

    def on_mount(self) -> None:
        """Begin to read."""
        self.query_one("#time").add_class("pane")
        self._show_pane()
        self.feed.start()
        self._look_early()
        # On a thread, for a home on a slow disk; a killed app has then lost half a minute at most.
        self.set_interval(
            _LOOK_KEPT_SECONDS,
            lambda: threading.Thread(target=self._keep_look, daemon=True, name="look").start(),
        )

    def _look_early(self) -> None:
        """Do not let the first frame wait for the clock."""
        self.tick()
        if self.live.status is None:
            self.set_timer(_EARLY_SECONDS, self._look_early)

    def on_unmount(self) -> None:
        """Read no more."""
        self.feed.close()
        self._keep_look()

    def _keep_look(self) -> None:
        if self.live.status is not None:
            seen.remember(self.run_dir.id, seen.Look(time.time(), self.live.step))

    def footer_actions(self) -> tuple[keys.Action, ...]:
        """Other keys matter when nobody is there to obey them."""
        is_over, done = self.live.is_over, self.live.is_finished
        actions = self.ACTIONS if self.live.obeys else keys.LIVE_OVER
        hidden = {"r"} if done or not is_over else set()
        one_pane = self.has_class("-narrow") or self.has_class("-low")
        hidden |= set() if one_pane else {"tab"}
        return tuple(action for action in actions if action.key not in hidden)

    def tick(self) -> None:
        """Take what the feed has, draw."""
        if (batch := self.feed.take()) is not None:
            self.live.apply(batch)
        self.draw()

    def draw(self) -> None:
        """Everything; widgets send only what differs."""
        live, symbols = self.live, self.context.terminal.symbols
        self.query_one("#header", Rows).show(live.headline(self.size.width))
        self.query_one("#loss", Chart).show(live.loss, panes.loss_caption(live))
        self.query_one("#rate", Chart).show(live.rate, panes.rate_caption(live))
        on_gpu = bool(panes.gpus_of(live))
        chart, panel = self.query_one("#ram", Chart), self.query_one("#vram", Panel)
        chart.display, panel.display = not on_gpu, on_gpu
        if on_gpu:
            panel.show(lambda width, height: panes.gpu_rows(live, width, height, symbols))
        else:
            chart.show(live.memory, panes.memory_caption(live))
        self.query_one("#time", Panel).show(
            lambda width, height: panes.time_rows(live, width, height, symbols)
        )
        self._draw_layers()
        self._draw_events()
        self._draw_words()

    def _draw_layers(self) -> None:
        """No row where nothing is known of them."""
        rows, told = self.query_one("#layers", Rows), layers.rows(self.live.layers)
        rows.display = bool(told)
        rows.show(*told)

    def _draw_events(self) -> None:
        num_rows = _EVENT_ROWS_TALL if self.size.height >= _TALL else _EVENT_ROWS
        newest = list(self.live.events)[-num_rows:]
        rows = [
            f"{time.strftime('%H:%M:%S', time.localtime(event.unix_seconds))} {event.text}"
            for event in newest
        ]
        rows = rows or ["no event yet"]
        # Always as many rows: panes that change their height are sent whole.
        self.query_one("#events", Rows).show(*rows, *[""] * (num_rows - len(rows)))

    def _draw_words(self) -> None:
        """Silence, absence and the end are told without being asked."""
        now = self.live.status
        if now is not None and now.state is not self._state:
            self._tell_state(now)
        text = self._urgent()
        if text != self._told:
            self._told = text
            ending = self._ending() if self.live.is_over else []
            self.say(*self._wrapped(text), *ending)

    def _tell_state(self, now: Status) -> None:
        is_first, self._state, self._told = self._state is None, now.state, ""
        self.write_footer()
        rows = self._ending() if now.state.is_over else []
        if is_first:
            until = now.since if now.state.is_over else time.time()
            away = seen.while_away(self._last_look, seen.Look(until, self.live.step))
            rows += [away] if away else []
        if rows or not is_first:  # what was asked for has happened, or no longer matters
            self.say(*rows)

    def _urgent(self) -> str:
        """What a person should know before anything else; empty if all is well."""
        if self.feed.fault:
            return f"cannot read the run: {clean(self.feed.fault)}"
        if self.live.status is not None and self.live.status.notice:
            return clean(self.live.status.notice)
        if (silent := self.live.silent_seconds(time.time())) is not None:
            return f"no event for {duration_text(silent)}"
        if isinstance(self.app, PacedApp) and self.app.pace.is_behind:
            return "this display is behind the run: the connection is slow"
        if not self.live.is_over and (worst := self.live.symptoms()):
            return f"{worst[0].title}: {worst[0].sentence}"
        urgent = self.live.slowness() or notices.passed_over(self.live.num_damaged)
        of_rows = () if self.live.is_over else self.live.of_rows
        return urgent or "; ".join(map(clean, of_rows))

    def _ending(self) -> list[str]:
        """How it ended and what can be done."""
        now = self.live.status
        assert now is not None
        if now.state is State.FINISHED:
            told = self._wrapped(f"FINISHED: {sentence(now.result)}")
            return [*told, "enter opens the report"]
        ended = read_json(self.run_dir.exit) or {}
        rows = [f"{now.state.upper()}: {clean(now.reason)}"]
        rows += [
            f"{part}: {clean(advice.told_here(self.run_dir, words(ended, part)))}"
            for part in ("why", "do")
            if words(ended, part)
        ]
        if now.state is State.DAMAGED:
            rows.append(advice.of_damaged(self.run_dir))
        else:
            saved = now.resumable_from
            from_step = f"r resumes from step {saved} if it verifies"
            resume = from_step if saved else "no checkpoint: r starts from step 0"
            rows.append(f"{resume}; enter opens the report")
        return [line for row in rows for line in self._wrapped(row)]

    def _wrapped(self, text: str) -> list[str]:
        """In the width of the screen; nothing for nothing."""
        return wrap(text, self.size.width, indent="  ", first="") if text else []

    def _ask_run(self, verb: str) -> None:
        """Leave a request for the run."""

        def send() -> None:
            from runner.supervision import control  # noqa: PLC0415  # only when something is asked for

            control.send(self.run_dir, verb)

        self.work("request", send, lambda _: self.say(_SAID[verb]))

    def action_pause(self) -> None:
        """Pause, or go on."""
        self._ask_run("unpause" if self._state is State.PAUSED else "pause")

    def action_checkpoint(self) -> None:
        """Save at the next step."""
        self._ask_run("checkpoint")

    def action_stop(self) -> None:
        """Ask how."""
        if self.live.is_over:
            self.say("the run is over already")
            return
        if not self.live.obeys:
            self._ask_run("stop")  # which says why it cannot be asked
            return

        def answered(verb: str | None) -> None:
            if verb:
                self._ask_run(verb)

        self.app.push_screen(Ask([f"Stop {self.live.name}?"], keys.STOP), answered)

    def action_resume(self) -> None:
        """Start the next attempt."""
        if not self.live.is_over:
            self.say("the run is not over; p lets a paused run go on")
            return
        if self.live.is_finished:
            self.say("the run is finished: there is nothing left to do")
            return

        def resume() -> Resumable:
            from runner.checks import preflight  # noqa: PLC0415  # only when it is asked for
            from runner.supervision import launch  # noqa: PLC0415

            launch.refuse_resume(self.run_dir, status(self.run_dir))
            ready = preflight.check_resume(self.run_dir)
            launch.resume(self.run_dir, ready.devices)
            return ready

        self.say("starting the next attempt")

        def tell(ready: Resumable) -> None:
            self.say(ready.start.what, *(f"! {warning}" for warning in ready.warnings))

        self.work("request", resume, tell)

    def action_report(self) -> None:
        """Where memory and time went."""
        self.context.open("report", self.run_dir, over_curves=True)

    def action_console(self) -> None:
        """Open the console log at its end."""
        self.context.open("console", self.run_dir)

    def action_copy(self) -> None:
        """Give the id to the clipboard and to the eye."""
        name = advice.name_of(self.run_dir)
        self.app.copy_to_clipboard(name)
        self.say(f"copied {name}")

    def action_next_pane(self) -> None:
        """On a narrow terminal one pane is seen at a time."""
        self._pane = (self._pane + 1) % len(_PANES)
        self._show_pane()

    def _show_pane(self) -> None:
        for name in _PANES:
            self.query_one(f"#{name}").set_class(name == _PANES[self._pane], "-chosen")


SCREEN = LiveScreen
