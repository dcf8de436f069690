"""The app by its keys alone, at the sizes people have."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import on_disk
import pytest
from driven_app import DATA, HERE, MODEL, drive, install, press, settle, text, until
from known import RECIPE
from textual.widgets import Input

import tui
from profiles.facts import Model
from profiles.machines import machine, planned
from profiles.models import find_model, written
from profiles.quantities import duration_text
from profiles.runs.journal import Journal
from profiles.runs.planned import Planned
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.worker import Paused, Unpaused
from profiles.runs.state import State
from runner.checks import preflight
from runner.resume import Start
from runner.supervision import control, launch
from tests.canned_run import add_sample, add_steps, canned_run, finish, gpu
from tui import keys
from tui.app import TunedeckApp
from tui.screens import live as live_screen
from tui.screens.ask import Ask
from tui.screens.base import BaseScreen
from tui.screens.console import ConsoleScreen, tail
from tui.screens.data import DataScreen
from tui.screens.home import Home
from tui.screens.live import LiveScreen
from tui.screens.model import ModelScreen
from tui.screens.pager import Pager
from tui.screens.parts import Page, Rows
from tui.screens.path_form import complete
from tui.screens.recommendation import RecommendationScreen
from tui.screens.report import ReportScreen
from tui.terminal import decide

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from profiles.runs.rundir import RunDir

SIZES = [(60, 16), (80, 24), (120, 40)]


@pytest.fixture(autouse=True)
def _world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a home, and a machine that is the same everywhere."""
    install(tmp_path, monkeypatch)


def outside(app: TunedeckApp) -> list[str]:
    """Find displayed widgets that do not lie inside the screen, but for what scrolls."""
    inside = app.screen.region
    return [
        repr(widget)
        for widget in app.screen.query("*")
        if widget.display
        and widget.is_on_screen
        and not isinstance(widget.parent, Page)
        and widget.region not in inside
    ]


@pytest.mark.parametrize("size", [*SIZES, (59, 16), (60, 15), (20, 3)])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_everything_lies_inside_the_screen(size: tuple[int, int], *, on_gpu: bool) -> None:
    """On every screen of the way, with and without room."""
    run = canned_run(done=20, end="failed")
    add_sample(run, *([gpu(n) for n in range(8)] if on_gpu else []))
    seen: list[str] = []

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await settle(app, pilot)
        screens: list[BaseScreen] = [
            ModelScreen(app.context),
            LiveScreen(app.context, run),
            ConsoleScreen(app.context, run),
        ]
        seen.extend(outside(app))
        for screen in screens:
            await app.push_screen(screen)
            await settle(app, pilot)
            if isinstance(screen, LiveScreen) and min(size[0] - 59, size[1] - 15) > 0:
                await until(app, pilot, "FAILED")
            seen.extend(outside(app))

    drive(script, size=size)

    assert [] == seen


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_way_by_keys(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Home, model, data, recommendation, launch, live."""
    started: dict[str, Any] = {}

    def start(
        text: bytes,
        *,
        name: str,
        base_dir: Path,
        devices: tuple[str, ...],
        kept: dict[str, Any],
    ) -> RunDir:
        assert "processors" in kept["surroundings"]
        assert MODEL == written.from_dict(kept["model"])
        predicted = Planned(**kept["planned"])
        started.update(text=text, name=name, base_dir=base_dir, predicted=predicted)
        return canned_run(name=name, done=7)

    def check(recipe: Any, base_dir: Path) -> preflight.Ready:
        found = app_state[0].screen.found
        return preflight.Ready(
            model=MODEL,
            machine=HERE,
            dataset=DATA,
            rows="91 rows of alpaca data: 72 to train on",
            fit=found.fit,
            duration=found.duration,
            devices=(),
            warnings=("look out",),
        )

    monkeypatch.setattr(machine, "probe", lambda _path: planned.plan_machine("T4"))
    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr(preflight, "check", check)
    app_state: list[Any] = []
    pages: list[str] = []

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        app_state.append(app)
        await settle(app, pilot)
        await press(app, pilot, "n", *"tiny", "enter")
        pages.append(text(app))
        await press(app, pilot, "enter", *"rows", "enter")
        pages.append(text(app))
        await press(app, pilot, "enter")
        pages.append(text(app))
        await press(app, pilot, "2")
        pages.append(text(app))
        await press(app, pilot, "l")
        pages.append(text(app))
        await press(app, pilot, "enter")
        await until(app, pilot, "step 7 of 40")
        pages.append(text(app))
        pages.append(" ".join(type(screen).__name__ for screen in app.screen_stack))

    app = drive(script, size=size)
    model_page, data_page, before, after, question, live, stack = pages

    assert "3 148 224" in model_page
    assert "enter goes on: the data" in model_page
    assert "91 usable" in data_page
    assert "critical no" in before
    assert "LoRA" in before
    assert "critical yes" in after
    assert "recommended  full fine-tuning" in after
    assert "It goes on without this terminal." in " ".join(question.split())
    assert "! look out" in question
    assert b'name = "full"' in started["text"]
    assert app.context.base_dir == started["base_dir"]
    assert 0 < started["predicted"].until_first_step < started["predicted"].seconds
    assert f"about {duration_text(started['predicted'].seconds)}" in " ".join(question.split())
    assert "RUNNING" in live
    assert "Home LiveScreen" == stack


def test_a_wrong_path_is_told_in_place_and_nothing_is_lost() -> None:
    """The four parts below the input, which keeps its text."""

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await press(app, pilot, "n", *"wrong", "enter")
        assert "error: no model there" in text(app)
        assert "do:    name a folder" in text(app)
        assert "wrong" == app.screen.query_one(Input).value
        await press(app, pilot, "enter")
        assert isinstance(app.screen, ModelScreen)
        await press(app, pilot, *["backspace"] * 5, *"good", "enter", "enter")
        assert isinstance(app.screen, DataScreen)
        await press(app, pilot, "escape", "escape", "n")
        assert "good" == app.screen.query_one(Input).value

    drive(script)


def test_a_check_is_cancelled_by_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its late result is not taken."""

    def slow(path: str) -> Model:
        time.sleep(0.3)
        return replace(MODEL, path=path)

    monkeypatch.setattr(find_model, "resolve", slow)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await press(app, pilot, "n")
        await pilot.press(*"tiny", "enter")
        assert "esc cancels" in text(app)
        await pilot.press("escape")
        await pilot.pause(0.5)
        assert isinstance(app.screen, ModelScreen)
        assert "cancelled; nothing was changed" in text(app)
        assert app.screen.found is None

    drive(script)


def test_our_own_mistake_in_a_check_keeps_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called ours, with its place."""
    monkeypatch.setattr(find_model, "resolve", lambda _path: 1 // 0)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await press(app, pilot, "n", *"tiny", "enter")
        assert "this should not happen: ZeroDivisionError" in text(app)
        assert "tiny" == app.screen.query_one(Input).value

    drive(script)


def test_the_recipe_is_saved_where_asked(tmp_path: Path) -> None:
    """A place that cannot be written is an error in place, and so is a file of another kind."""
    (tmp_path / "report.md").write_text("# Bottleneck report\n")

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        app.context.model, app.context.data = MODEL, DATA
        await app.push_screen(RecommendationScreen(app.context))
        await settle(app, pilot)
        await press(app, pilot, "s", "enter")
        assert "wrote recipe.toml; start it with: advisor run recipe.toml" in text(app)
        await press(app, pilot, "s")
        app.screen.query_one(Input).value = "no/such/folder.toml"
        await press(app, pilot, "enter")
        assert "error: cannot write folder.toml" in text(app)
        await press(app, pilot, "s")
        app.screen.query_one(Input).value = "report.md"
        await press(app, pilot, "enter")
        assert "error: report.md exists already" in text(app)
        assert isinstance(app.screen, RecommendationScreen)
        await press(app, pilot, "s", "escape")
        assert isinstance(app.screen, RecommendationScreen)

    drive(script)

    assert "schema = 1" in (tmp_path / "recipe.toml").read_text()
    assert (tmp_path / "report.md").read_text() == "# Bottleneck report\n"


def test_a_recipe_that_is_there_is_replaced_only_after_a_question(tmp_path: Path) -> None:
    """Escape keeps it."""
    recipe = tmp_path / "recipe.toml"

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        app.context.model, app.context.data = MODEL, DATA
        await app.push_screen(RecommendationScreen(app.context))
        await settle(app, pilot)
        await press(app, pilot, "s", "enter")
        edited = "# edited by hand\n" + recipe.read_text()
        recipe.write_text(edited)
        await press(app, pilot, "s", "enter")
        assert "recipe.toml exists already. Replace it?" in text(app)
        await press(app, pilot, "escape")
        assert "nothing was written" in text(app)
        assert recipe.read_text() == edited
        await press(app, pilot, "s", "enter", "enter")
        assert "replaced recipe.toml; start it with: advisor run recipe.toml" in text(app)
        assert "edited" not in recipe.read_text()

    drive(script)


HUB_MODEL = replace(MODEL, id="org/tiny", path=None)


def test_a_model_that_is_not_here_is_downloaded_before_it_is_launched(tmp_path: Path) -> None:
    """Its recipe is saved with the command for that; a launch says so."""

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        app.context.model, app.context.data = HUB_MODEL, DATA
        await app.push_screen(RecommendationScreen(app.context))
        await settle(app, pilot)
        await press(app, pilot, "s", "enter")
        assert "hf download org/tiny --local-dir org/tiny" in text(app)
        assert "then start it with: advisor run recipe.toml" in text(app)
        await press(app, pilot, "l")
        assert "error: org/tiny is not on this disk" in text(app)
        assert "hf download org/tiny" in text(app)
        assert isinstance(app.screen, RecommendationScreen)

    drive(script)

    assert 'id = "org/tiny"' in (tmp_path / "recipe.toml").read_text()


def test_a_model_that_no_formula_holds_for_is_refused_in_place() -> None:
    """On the page, in four parts; nothing can be saved or started."""

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        app.context.model, app.context.data = replace(MODEL, unmodelled="some layers are odd"), DATA
        await app.push_screen(RecommendationScreen(app.context))
        await settle(app, pilot)
        assert "error: no estimate holds for tiny" in text(app)
        assert "some layers are odd" in " ".join(text(app).split())
        await press(app, pilot, "s")
        assert "there is no recommendation yet" in text(app)
        await press(app, pilot, "1", "e")
        assert "error: no estimate holds for tiny" in text(app)

    drive(script)


def test_names_of_the_catalog_are_completed() -> None:
    """Where no path begins so; in any case."""
    screen = ModelScreen(TunedeckApp(decide({}, is_tty=True, encoding="utf-8")).context)

    assert "meta-llama/Llama-3.1-8B-Instruct" == screen.complete("meta-llama/llama-3.1-8b-")
    assert screen.complete("no such name") is None


def test_the_live_screen_says_it_all_in_words() -> None:
    """State, progress, evaluation, shares, memory, the last event."""
    run = canned_run(done=20)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "step 20 of 40")
        shown = text(app)
        for words in (
            "RUNNING",
            "50 %",
            "eta ",
            "better 3.83 -> 3.61",
            "800 now",
            "100 % of planned 800",
            "GiB RAM",
            "0.5 s a step",
            "backward",
            "step 4: evaluation loss 3.6100",
            "q leave (run goes on)",
        ):
            assert words in shown, words

    drive(script, run_id=run.id)


def test_gpus_have_a_meter_each() -> None:
    """Eight of them in eight rows, told by number."""
    run = canned_run(done=20)
    add_sample(run, *[gpu(n, used_gib=10.0 * n) for n in range(8)])

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "GPU memory")
        assert "7 70.0/80 GiB" in text(app)
        assert "88 %" in text(app)
        assert "process memory" not in text(app)

    drive(script, run_id=run.id)


def test_one_pane_at_a_time_on_a_narrow_terminal() -> None:
    """Tab shows the next."""
    run = canned_run(done=20)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "step 20 of 40")
        titles = []
        for _ in range(5):
            shown = text(app)
            names = ("loss  ", "tokens/s  ", "process memory", "where the time")
            titles.append([name for name in names if f" {name}" in shown])
            await press(app, pilot, "tab")
        assert [["loss  "], ["tokens/s  "], ["process memory"], ["where the time"], ["loss  "]] == (
            titles
        )

    drive(script, size=(60, 16), run_id=run.id)


def test_what_is_asked_of_a_run_is_sent() -> None:
    """Pause and checkpoint at once, stop after one question."""
    run = canned_run(done=20)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "RUNNING")
        await press(app, pilot, "p", "c")
        assert "asked for a checkpoint" in text(app)
        await press(app, pilot, "s", "q")
        assert isinstance(app.screen, Ask)
        await press(app, pilot, "escape", "s", "x", "s", "enter")
        assert "asked to save and stop" in text(app)

    drive(script, run_id=run.id)

    assert ["pause", "checkpoint", "stop_now", "stop"] == [r.verb for r in control.pending(run)]


def test_a_request_that_nobody_would_obey_is_an_error_in_place() -> None:
    """The run is over."""
    run = canned_run(done=20, end="stopped")

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "STOPPED")
        await press(app, pilot, "c")
        assert "error: cannot checkpoint: the run is stopped" in text(app)
        await press(app, pilot, "s")
        assert "the run is over already" in text(app)

    drive(script, run_id=run.id)


def test_the_end_is_told_with_what_can_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """How it ended, why, and r to go on."""
    run = canned_run(done=20)
    resumed: list[RunDir] = []
    start = Start(what="going on from step 4")
    ready = preflight.Resumable(start=start, devices=(), warnings=("other GPU",))
    monkeypatch.setattr(preflight, "check_resume", lambda _run: ready)
    monkeypatch.setattr(launch, "resume", lambda run, _devices: resumed.append(run))

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "RUNNING")
        assert "r resume" not in text(app)
        await press(app, pilot, "r")
        assert "the run is not over" in text(app)
        finish(run, "failed", 20)
        await until(app, pilot, "FAILED: it failed")
        assert "why: because of a test" in text(app)
        assert "enter report" in text(app)
        assert "r resume" in text(app)
        await press(app, pilot, "r")
        assert "going on from step 4" in text(app)
        assert "! other GPU" in text(app)

    drive(script, run_id=run.id)

    assert [run] == resumed


def test_a_finished_run_keeps_its_result_in_sight() -> None:
    """Though its curves say that it could have gone on."""
    run = canned_run(done=20)
    events = Journal(run.worker_events, attempt=1)
    for step, loss in ((8, 3.2), (20, 2.8)):
        events.append(Evaluated(step=step, loss=loss, seconds=0.1, rows=9, gain=(0.1, 0.2, 0.3)))
    run.recipe.write_text(RECIPE)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "RUNNING")
        finish(run, "finished", 20)
        await until(app, pilot, "FINISHED: better than the base model")
        assert isinstance(app.screen, LiveScreen)
        assert [one.id for one in app.screen.live.symptoms()] == ["Q04"]
        await pilot.pause(1.5)
        assert "FINISHED: better than the base model" in text(app)
        assert "enter opens the report" in text(app)
        assert "r resume" not in text(app)
        await press(app, pilot, "r")
        assert "nothing left to do" in text(app)

    drive(script, run_id=run.id)


def test_silence_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled run looks stalled."""
    run = canned_run(done=20)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "RUNNING")
        assert isinstance(app.screen, LiveScreen)
        monkeypatch.setattr(live_screen.time, "time", lambda: app.screen.live._newest + 42)
        await until(app, pilot, "no event for 42 s")

    drive(script, run_id=run.id)


def test_what_a_person_should_know_of_a_run_is_shown_until_it_no_longer_holds() -> None:
    """A run that waits for room on the disk says so, and goes on without a word."""
    run = canned_run(done=20)
    events = Journal(run.worker_events, attempt=1)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "RUNNING")
        lacking = "1.2 GB free, 3.4 GB needed"
        events.append(Paused(step=20, reason="disk_full", what=lacking))
        await until(app, pilot, lacking)
        events.append(Unpaused(step=20))
        await until(app, pilot, "RUNNING")
        assert "3.4 GB needed" not in app.screen.query_one("#words", Rows).text

    drive(script, run_id=run.id)


def test_damaged_records_are_told_on_the_live_screen() -> None:
    """The curve may have holes; what matters more comes first."""
    run = canned_run(done=20)
    on_disk.write(run.metrics, "step", step=21)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "1 damaged record passed over")
        Journal(run.worker_events, attempt=1).append(Paused(step=20, what="no room"))
        await until(app, pilot, "no room")
        assert "damaged" not in app.screen.query_one("#words", Rows).text

    drive(script, run_id=run.id)


def test_enter_on_home_watches_or_reports() -> None:
    """A run that works opens live; one that is over opens its report, or says why not."""
    over = canned_run(name="old", done=0, end="failed")

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "FAILED")
        await press(app, pilot, "enter")
        assert isinstance(app.screen, ReportScreen)
        assert "error: there is nothing to report yet" in text(app)
        await press(app, pilot, "w")
        assert isinstance(app.screen, LiveScreen)
        await press(app, pilot, "enter", "w", "escape", "escape")
        assert isinstance(app.screen, Home)
        run = canned_run(name="new", done=3)
        app.screen._looked_at = -100.0
        await until(app, pilot, run.id.rsplit("_", maxsplit=1)[-1])
        await press(app, pilot, "up", "enter")
        assert isinstance(app.screen, LiveScreen)
        assert run == app.screen.run_dir

    drive(script)
    assert over.exit.exists()


def test_escape_goes_back_and_q_says_that_training_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Help, console and machine are one layer each."""
    run = canned_run(done=20)
    run.console.write_text("first\n\x1b[31mred\rbar 100%\n")

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        for key, words in (("question_mark", "Training never depends"), ("l", "bar 100%")):
            await press(app, pilot, key)
            assert words in text(app)
            await press(app, pilot, "escape")
            assert isinstance(app.screen, LiveScreen)
        await press(app, pilot, "escape", "m")
        assert isinstance(app.screen, Pager)
        assert "a processor" in text(app)
        await press(app, pilot, "q")
        assert isinstance(app.screen, Home)
        await press(app, pilot, "q")

    app = drive(script, run_id=run.id)
    end = run.id.rsplit("_", maxsplit=1)[-1]

    assert 0 == app.return_value
    message = f"training goes on; watch it with: advisor watch {end}"
    assert message in capsys.readouterr().err


def test_the_id_is_copied_and_shown() -> None:
    """OSC 52 may be refused silently, so the eye gets it too."""
    run = canned_run(done=20)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await press(app, pilot, "y")
        assert run.id == app.clipboard
        assert f"copied {run.id}" in text(app)

    drive(script, run_id=run.id)


@pytest.mark.parametrize("symbols", ["ascii", "block", "braille"])
def test_ascii_means_ascii(symbols: str) -> None:
    """The whole live screen, if the terminal can no more."""
    run = canned_run(done=20)
    add_sample(run, gpu())

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "step 20 of 40")
        assert text(app).isascii() == (symbols == "ascii")

    drive(script, run_id=run.id, symbols=symbols)


def test_escape_codes_in_names_do_not_reach_the_screen() -> None:
    """A run's name, an error and a log line are strings from outside."""
    run = canned_run(name="evil", done=2, end="failed")
    manifest = json.loads(run.manifest.read_text()) | {"name": "evil\x1b[2J[b]name"}
    run.manifest.write_text(json.dumps(manifest))
    ended = json.loads(run.exit.read_text()) | {"what": "bad \x1b]0;title\x07[red]thing"}
    run.exit.write_text(json.dumps(ended))

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "FAILED: bad [red]thing")
        assert "evil[b]name" in text(app)
        assert "\x1b" not in text(app)

    drive(script, run_id=run.id)


def test_a_small_terminal_is_told_the_size_it_needs() -> None:
    """And the screen comes back when it grows."""

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await settle(app, pilot)
        await pilot.resize_terminal(50, 12)
        await pilot.pause()
        assert "50x12" in text(app)
        assert "60x16" in text(app)
        assert not app.screen.query_one("#body").display
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert app.screen.query_one("#body").display

    drive(script)


def test_no_key_belongs_to_tmux_screen_or_flow_control() -> None:
    """Of the app, and of every screen."""
    taken = {"ctrl+a", "ctrl+b", "ctrl+s", "ctrl+q", "ctrl+p"}
    used = {"ctrl+c"}
    for actions in (keys.HOME, keys.FORM, keys.RECOMMENDATION, keys.LIVE, keys.REPORT, keys.PAGER):
        used |= {action.key for action in actions}

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        used.update(app._bindings.key_to_bindings)
        used.update(app.screen._bindings.key_to_bindings)

    drive(script)

    assert set() == taken & used


@pytest.mark.parametrize(
    "actions", [keys.HOME, keys.FORM, keys.RECOMMENDATION, keys.LIVE, keys.LIVE_OVER, keys.REPORT]
)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_footer_fits_and_names_the_way_out(
    actions: tuple[keys.Action, ...], width: int
) -> None:
    """However narrow, help and a way back or out are told."""
    line = keys.footer(actions, width)

    assert len(line) <= width
    assert "help" in line
    assert "q leave" in line or "esc back" in line


def opened_by_name() -> list[type[BaseScreen]]:
    """The screens that others open, each by its module."""
    folder = Path(tui.__file__).parent / "screens"
    modules = [import_module(f"tui.screens.{path.stem}") for path in sorted(folder.glob("*.py"))]
    return [module.SCREEN for module in modules if hasattr(module, "SCREEN")]


def test_every_screen_that_is_opened_by_name_is_there() -> None:
    """By the texts that open one: a misspelt name would be found by the person at the key."""
    texts = [path.read_text() for path in Path(tui.__file__).parent.rglob("*.py")]
    calls = r"context\.open\(\"(\w+)\"|\"open\('(\w+)'\)\""
    named = {one or other for text in texts for one, other in re.findall(calls, text)}

    assert named >= {"console", "data", "live", "model", "pager", "recommendation", "report"}
    for name in named:
        assert issubclass(import_module(f"tui.screens.{name}").SCREEN, BaseScreen)


def test_every_bound_action_exists() -> None:
    """A registry entry without a method would be a dead key."""
    missing = [
        f"{screen.__name__}.{action.name}"
        for screen in (Home, *opened_by_name())
        for action in screen.ACTIONS
        if action.name and not hasattr(screen, f"action_{action.name.partition('(')[0]}")
    ]

    assert [] == missing


def test_a_path_is_completed_from_its_folder(tmp_path: Path) -> None:
    """Folders end in a slash; what is not there is not completed."""
    (tmp_path / "models" / "llama").mkdir(parents=True)
    (tmp_path / "models" / "rows.json").touch()

    assert f"{tmp_path}/models/" == complete(f"{tmp_path}/mo")
    assert f"{tmp_path}/models/rows.json" == complete(f"{tmp_path}/models/r")
    assert "models/" == complete("mod")
    assert complete(f"{tmp_path}/x") is None
    assert complete(f"{tmp_path}/models/") is None


def test_the_log_shows_the_last_state_of_a_progress_bar(tmp_path: Path) -> None:
    """And no escape codes."""
    log = tmp_path / "log"
    log.write_bytes(b"10%\r50%\r100%\n\x1b[1mdone\x1b[0m \xff\n\n")

    assert ["100%", "done \ufffd"] == tail(log)
    assert ["cannot read the log: No such file or directory"] == tail(tmp_path / "none")


@pytest.mark.parametrize("how", ["hangup", "gone"])
def test_a_terminal_that_goes_away_ends_the_app(how: str) -> None:
    """Within five seconds, by signal or, where the signal is ignored, by looking."""
    run = canned_run(done=20)
    code = f"import sys; sys.argv=['advisor','watch','{run.id}']; from tui.main import main; main()"
    if how == "gone":
        code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); " + code
    leader, follower = pty.openpty()
    app = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env=os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
    )
    os.close(follower)
    shown = b""
    while b"RUNNING" not in shown:
        shown += os.read(leader, 65536)
    if how == "hangup":
        app.send_signal(signal.SIGHUP)
    os.close(leader)
    code_of_app = app.wait(timeout=5)

    assert 129 == code_of_app
    assert run.metrics.exists()


def test_a_resumed_run_and_new_steps_reach_the_screen() -> None:
    """What the files gain is drawn at the next tick."""
    run = canned_run(done=20)

    async def script(app: TunedeckApp, pilot: Pilot[int]) -> None:
        await until(app, pilot, "step 20 of 40")
        add_steps(run, 21, 25)
        await until(app, pilot, "step 25 of 40")
        assert isinstance(app.screen, LiveScreen)
        assert State.RUNNING is app.screen.live.status.state

    drive(script, run_id=run.id)


def test_a_beat_before_a_screen_is_built_draws_nothing() -> None:
    """The clock does not wait for screens."""
    run = canned_run(done=2)

    async def script(app: TunedeckApp, _pilot: Pilot[int]) -> None:
        pushed = app.push_screen(LiveScreen(app.context, run))
        app._tick()
        await pushed
        app._tick()
        assert "step 4 of 40" in app.screen.query_one("#header", Rows).text

    drive(script)
