"""The recommendation for the draft: other answers answer at once; saved, or launched."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from advisor.choice import recommend as advice
from profiles import installation
from profiles.machines import machine
from profiles.quantities import bytes_text, duration_text
from tui import keys
from tui.commands.request import Asked
from tui.pages import recommendation as page
from tui.plain import error_lines, wrap
from tui.screens.ask import Ask, AskText
from tui.screens.base import BaseScreen
from tui.screens.parts import Page, Rows
from tui.terminal import clean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget

    from advisor.choice.answers import Complexity
    from advisor.choice.recommend import Recommendation
    from advisor.recipe import Recipe
    from profiles.errors import UserError
    from profiles.facts import Machine
    from profiles.runs.rundir import RunDir
    from runner.checks.preflight import Ready
    from tui.context import AppContext
    from tui.output import Target

_NEXT_COMPLEXITY: dict[Complexity, Complexity] = {
    "low": "medium",
    "medium": "high",
    "high": "low",
}
_MOST_WARNINGS = 3


class RecommendationScreen(BaseScreen):
    """The last question of a new run."""

    ACTIONS = keys.RECOMMENDATION

    def __init__(self, context: AppContext) -> None:
        super().__init__(context)
        self.asked = Asked(task=context.task)
        self.found: Recommendation | None = None
        self._machine: Machine | None = None
        self._explain = False

    def content(self) -> Iterable[Widget]:
        """Keep the answers in sight above the page."""
        yield Rows("title")
        yield Rows("answers")
        yield Page()

    def on_mount(self) -> None:
        """Look at the machine afresh: free memory changes."""
        self.query_one("#title", Rows).show("new run, 3 of 3: what to do")
        page_widget = self.query_one(Page)
        page_widget.focus()
        page_widget.show(lambda _width: ["looking at the machine"])
        self.work("machine", lambda: machine.probe(installation.home()), self._take_machine)

    def _take_machine(self, found: Machine) -> None:
        self._machine = found
        self._recommend()

    def _recommend(self) -> None:
        """Pure arithmetic, but a few hundred milliseconds of it where many GPUs are searched."""
        model, here, data = self.context.model, self._machine, self.context.data
        if model is None or here is None:
            return
        answers = self.asked.answers(data)
        self.work("advise", lambda: advice.recommend(model, here, data, answers), self._take)

    def _take(self, found: Recommendation) -> None:
        self.found = found
        self._write()
        self.say(page.headline(found))

    def _write(self) -> None:
        if (found := self.found) is None:
            return
        symbols = self.context.terminal.symbols
        shown = page.Shown(explained=self._explain, other_task="--task NAME in f3 of the data step")
        self.query_one(Page).show(lambda width: page.lines(found, width, symbols, shown))
        answers, yes_no = found.answers, {True: "yes", False: "no"}
        self.query_one("#answers", Rows).show(
            f"1 complexity {answers.complexity.value}   2 critical {yes_no[answers.critical.value]}"
            f"   3 value {yes_no[answers.value.value]}   4 quality {yes_no[answers.quality.value]}"
        )

    def tell(self, error: UserError) -> None:
        """Tell why there is nothing to recommend where it would be."""
        if self.found is not None:
            super().tell(error)
            return
        self.query_one(Page).show(lambda width: error_lines(error, width))
        self.say("there is no recommendation; esc goes back")

    def _ask_for(self, asked: Asked) -> None:
        self.asked = asked
        self._recommend()

    def action_complexity(self) -> None:
        """Low, medium, high."""
        now = self.asked.answers().complexity.value
        self._ask_for(replace(self.asked, complexity=_NEXT_COMPLEXITY[now]))

    def action_critical(self) -> None:
        """Yes or no."""
        self._ask_for(replace(self.asked, critical=not self.asked.answers().critical.value))

    def action_value(self) -> None:
        """Yes or no."""
        self._ask_for(replace(self.asked, value=not self.asked.answers().value.value))

    def action_quality(self) -> None:
        """Yes or no."""
        self._ask_for(replace(self.asked, quality=not self.asked.answers().quality.value))

    def action_explain(self) -> None:
        """More or less."""
        self._explain = not self._explain
        self._write()

    def _runnable(self) -> Recommendation | None:
        if self.found is None:
            self.say("there is no recommendation yet")
        elif self.found.runnable is None:
            self.say(
                "nothing that this version runs fits here: there is no recipe to save or start"
            )
        else:
            return self.found
        return None

    def action_save(self) -> None:
        """Ask for a place, write the recipe."""
        if (found := self._runnable()) is None:
            return

        def place(answer: str) -> Target:
            from tui import output  # noqa: PLC0415

            return output.target(answer, output.Kind.RECIPE, force=True)

        def answered(answer: str | None) -> None:
            if answer:
                self.work("save", lambda: place(answer), lambda at: self._write_to(found, at))

        self.app.push_screen(AskText(["Save the recipe as:"], "recipe.toml"), answered)

    def _write_to(self, found: Recommendation, place: Target) -> None:
        """Write the recipe, over another one only after a question."""

        def write() -> list[str]:
            from tui.commands import save  # noqa: PLC0415  # pydantic

            save.write(found, place)
            return save.told(found, place)

        def answered(answer: str | None) -> None:
            if answer:
                self.work("save", write, self._say_all)
            else:
                self.say("nothing was written")

        if place.replaces:
            name = clean(str(place.path), 400)
            question = wrap(f"{name} exists already. Replace it?", self.size.width)
            self.app.push_screen(Ask(question, keys.REPLACE), answered)
        else:
            answered("write")

    def _say_all(self, lines: list[str]) -> None:
        width = self.size.width
        self.say(*[part for line in lines for part in wrap(clean(line, 1000), width)])

    def action_launch(self) -> None:
        """Check everything that can be found wrong before, then ask."""
        if (found := self._runnable()) is None or "launch" in self.busy:
            return
        base_dir = self.context.base_dir

        def check() -> tuple[Recipe, Ready]:
            from runner.checks import preflight  # noqa: PLC0415  # pydantic, only when a run is started
            from tui.commands import save  # noqa: PLC0415

            save.download_first(found.model, base_dir)
            save.make_first(found, base_dir)
            recipe = save.draft(found, base_dir)
            return recipe, preflight.check(recipe, base_dir)

        self.say("checking packages, model, data and memory; esc cancels")
        self.work("launch", check, lambda checked: self._confirm(found, *checked))

    def _confirm(self, found: Recommendation, recipe: Recipe, ready: Ready) -> None:
        width, choice = self.size.width, found.runnable
        assert choice is not None
        took = f", about {duration_text(ready.duration.seconds)}" if ready.duration else ""
        memory = bytes_text(ready.fit.memory.expected_bytes)
        free = bytes_text(ready.fit.budget_bytes)
        question = wrap(
            f"Start {recipe.name}{took}, {memory} of {free} free? "
            "It goes on without this terminal.",
            width,
        )
        question += wrap(ready.rows, width)
        question += wrap(f"! {choice.why}", width, indent="  ", first="") if choice.why else []
        for warning in ready.warnings[:_MOST_WARNINGS]:
            question += [clean(f"! {warning}", width)]
        self.say("checked; nothing was started yet")

        def answered(answer: str | None) -> None:
            if answer:
                self._start(recipe, ready)

        self.app.push_screen(Ask(question, keys.LAUNCH), answered)

    def _start(self, recipe: Recipe, ready: Ready) -> None:
        base_dir = self.context.base_dir

        def start() -> RunDir:
            from runner.supervision import launch  # noqa: PLC0415

            return launch.start(
                recipe.to_toml().encode(),
                name=recipe.name,
                base_dir=base_dir,
                **ready.for_launch,
            )

        self.say("starting")
        self.work("launch", start, self._watch)

    def _watch(self, run: RunDir) -> None:
        """To the live screen; behind it lies home, not the form."""
        app, context = self.app, self.context
        for _ in app.screen_stack[1:]:
            app.pop_screen()
        context.open("live", run)


SCREEN = RecommendationScreen
