"""The recommendation for the draft: other wishes answer at once; saved, or launched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from advisor import recommend as advice
from profiles import machine, rundir
from tui import keys
from tui.commands import recommend as command
from tui.commands.recommend import Asked
from tui.pages import recommendation as page
from tui.plain import wrap
from tui.screens.ask import Ask, AskText
from tui.screens.layer import Layer
from tui.screens.parts import Page, Rows
from tui.terminal import bytes_text, clean, duration_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from advisor.recipe import Recipe
    from advisor.recommend import Recommendation
    from advisor.wishes import Complexity
    from profiles.facts import Machine
    from profiles.rundir import RunDir
    from runner.preflight import Ready
    from tui.desk import Desk

_NEXT_COMPLEXITY: dict[Complexity, Complexity] = {
    "low": "medium",
    "medium": "high",
    "high": "low",
}
_MOST_WARNINGS = 3


class RecommendationScreen(Layer):
    """The last question of a new run."""

    ACTIONS = keys.RECOMMENDATION

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.asked = Asked()
        self.found: Recommendation | None = None
        self._machine: Machine | None = None
        self._explain = False

    def content(self) -> Iterable[Widget]:
        """Keep the wishes in sight above the page."""
        yield Rows("title")
        yield Rows("wishes", most=2)
        yield Page("page")

    def on_mount(self) -> None:
        """Look at the machine afresh: free memory changes."""
        self.query_one("#title", Rows).show("new run, 3 of 3: what to do")
        page_widget = self.query_one(Page)
        page_widget.focus()
        page_widget.show(lambda _width: ["looking at the machine"])
        self.work("machine", lambda: machine.probe(rundir.home()), self._take_machine)

    def _take_machine(self, found: Machine) -> None:
        self._machine = found
        self._recommend()

    def _recommend(self) -> None:
        """Pure arithmetic, milliseconds."""
        model, here = self.desk.model, self._machine
        if model is None or here is None:
            return
        wishes = self.asked.wishes()
        self.found = found = advice.recommend(model, here, self.desk.data, wishes)
        symbols, explain = self.desk.terminal.symbols, self._explain
        self.query_one(Page).show(lambda width: page.lines(found, width, symbols, explain=explain))
        yes_no = {True: "yes", False: "no"}
        self.query_one("#wishes", Rows).show(
            f"1 complexity {wishes.complexity.value}   2 critical {yes_no[wishes.critical.value]}"
            f"   3 value {yes_no[wishes.value.value]}   4 quality {yes_no[wishes.quality.value]}"
        )
        self.say(page.headline(found))

    def _ask_for(self, asked: Asked) -> None:
        self.asked = asked
        self._recommend()

    def action_complexity(self) -> None:
        """Low, medium, high."""
        now = self.asked.wishes().complexity.value
        self._ask_for(replace(self.asked, complexity=_NEXT_COMPLEXITY[now]))

    def action_critical(self) -> None:
        """Yes or no."""
        self._ask_for(replace(self.asked, critical=not self.asked.wishes().critical.value))

    def action_value(self) -> None:
        """Yes or no."""
        self._ask_for(replace(self.asked, value=not self.asked.wishes().value.value))

    def action_quality(self) -> None:
        """Yes or no."""
        self._ask_for(replace(self.asked, quality=not self.asked.wishes().quality.value))

    def action_explain(self) -> None:
        """More or less."""
        self._explain = not self._explain
        self._recommend()

    def _runnable(self) -> Recommendation | None:
        if self.found is None:
            self.say("still looking at the machine")
        elif self.found.rung is None:
            self.say("nothing fits on this machine, so there is no recipe to save or start")
        else:
            return self.found
        return None

    def action_save(self) -> None:
        """Ask for a place, write the recipe."""
        if (found := self._runnable()) is None:
            return

        def save(answer: str | None) -> None:
            if answer:
                path = Path(answer).expanduser()
                self.work("save", lambda: command.write(found, path), lambda _: self._saved(path))

        question = ["Save the recipe as (a file of that name is replaced):"]
        self.app.push_screen(AskText(question, "recipe.toml"), save)

    def _saved(self, path: Path) -> None:
        self.say(f"wrote {clean(str(path))}; start it with: advisor run {clean(str(path))}")

    def action_launch(self) -> None:
        """Check everything that can be found wrong before, then ask."""
        if (found := self._runnable()) is None or "launch" in self.busy:
            return
        base_dir = self.desk.base_dir

        def check() -> tuple[Recipe, Ready]:
            from runner import preflight  # noqa: PLC0415  # pydantic, only when a run is started

            recipe = command.draft(found, base_dir)
            return recipe, preflight.check(recipe, base_dir)

        self.say("checking packages, model, data and memory; esc cancels")
        self.work("launch", check, lambda checked: self._confirm(found, *checked))

    def _confirm(self, found: Recommendation, recipe: Recipe, ready: Ready) -> None:
        width = self.size.width
        took = f", about {duration_text(found.hours * 3600)}" if found.hours is not None else ""
        memory = bytes_text(ready.fit.memory.expected_bytes)
        free = bytes_text(ready.fit.budget_bytes)
        question = wrap(
            f"Start {recipe.name}{took}, {memory} of {free} free? "
            "It goes on without this terminal.",
            width,
        )
        for warning in ready.warnings[:_MOST_WARNINGS]:
            question += [clean(f"! {warning}", width)]
        self.say("checked; nothing was started yet")

        def answered(answer: str | None) -> None:
            if answer:
                self._start(recipe, ready.devices)

        self.app.push_screen(Ask(question, keys.LAUNCH), answered)

    def _start(self, recipe: Recipe, devices: tuple[str, ...]) -> None:
        base_dir = self.desk.base_dir

        def start() -> RunDir:
            from runner import launch  # noqa: PLC0415

            text = recipe.to_toml().encode()
            return launch.start(text, name=recipe.name, base_dir=base_dir, devices=devices)

        self.say("starting")
        self.work("launch", start, self._watch)

    def _watch(self, run: RunDir) -> None:
        """To the live screen; behind it lies home, not the form."""
        from tui.screens.live import LiveScreen  # noqa: PLC0415  # screens load when used

        app, desk = self.app, self.desk
        for _ in app.screen_stack[1:]:
            app.pop_screen()
        app.push_screen(LiveScreen(desk, run))
