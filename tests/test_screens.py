"""What each key of each screen does, and what the screens keep in sight."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from driven_app import DATA, HERE, MODEL, ImmediateFeed, drive, install, press, settle, until
from small_model import small_model
from textual.widgets import Input, OptionList

from profiles.errors import ExitCode, UserError
from profiles.machines import machine
from profiles.run_facts import Result, Verdict
from profiles.runs import listing, rundir
from profiles.runs.journal import Journal
from profiles.runs.records.worker import Paused
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, Status, status
from runner.checks import preflight
from runner.supervision import control, launch
from tests.canned_run import add_steps, canned_run, finish
from tui import seen
from tui.commands import profile, save
from tui.context import working_runs
from tui.screens import home as home_screen
from tui.screens import live as live_screen
from tui.screens.ask import Ask, AskText
from tui.screens.console import ConsoleScreen, folded, tail
from tui.screens.home import Home
from tui.screens.live import LiveScreen
from tui.screens.model import ModelScreen
from tui.screens.pager import Pager
from tui.screens.parts import Page, Panel, Rows, fitting
from tui.screens.path_form import complete
from tui.screens.recommendation import RecommendationScreen
from tui.screens.report import ReportScreen
from tui.terminal import Symbols

FINISHED = next((Path(__file__).parent / "fixtures" / "v1").iterdir())


@pytest.fixture(autouse=True)
def _world(tmp_path, monkeypatch):
    """A home, and a machine that is the same everywhere."""
    install(tmp_path, monkeypatch)


def words(app):
    """What is told above the footer."""
    return app.screen.query_one("#words", Rows).text


def shown(app):
    """The page."""
    return app.screen.query_one(Page)


@pytest.fixture
def _unanimated(monkeypatch):
    """What is animated does not move: a slow link would get every frame between."""
    monkeypatch.setattr(Page, "animate", lambda *_, **__: None)


async def refreshed(app):
    """What was put off until after a refresh has happened, and what that put off."""
    for _ in range(4):
        done = asyncio.Event()
        shown(app).call_after_refresh(done.set)
        await asyncio.wait_for(done.wait(), 10)


async def opened(app, pilot, screen):
    """A screen on top, with its first work done."""
    await app.push_screen(screen)
    await settle(app, pilot)
    return screen


# --- the recommendation ---


def test_each_question_of_the_recommendation_has_its_key():
    """Answers are in sight, and another one is answered at once; round and round."""
    asked = []

    async def script(app, pilot):
        app.context.model, app.context.data = MODEL, DATA
        await opened(app, pilot, RecommendationScreen(app.context))
        for key in ("", *"1112233", "4", "4"):
            await press(app, pilot, *key)
            asked.append(app.screen.query_one("#answers", Rows).text)

    drive(script)

    rows = [
        f"1 complexity {complexity}   2 critical {critical}   3 value {value}   4 quality {quality}"
        for complexity, critical, value, quality in (
            ("medium", "no", "yes", "yes"),
            ("high", "no", "yes", "yes"),
            ("low", "no", "yes", "yes"),
            ("medium", "no", "yes", "yes"),
            ("medium", "yes", "yes", "yes"),
            ("medium", "no", "yes", "yes"),
            ("medium", "no", "no", "yes"),
            ("medium", "no", "yes", "yes"),
            ("medium", "no", "yes", "no"),
            ("medium", "no", "yes", "yes"),
        )
    ]
    assert asked == rows


def test_the_terms_of_the_estimate_come_and_go_by_a_key():
    """Below the page's own; the method stands above the footer."""

    async def script(app, pilot):
        app.context.model, app.context.data = MODEL, DATA
        await opened(app, pilot, RecommendationScreen(app.context))
        assert "at the peak" in words(app)
        for expected in (False, True, False):
            assert ("the estimate, term by term" in shown(app).text) == expected
            await press(app, pilot, "e")
        await press(app, pilot, "pagedown")
        assert shown(app).scroll_offset.y > 0

    drive(script)


def test_another_answer_before_the_machine_is_known_counts_once_it_is(monkeypatch):
    """Nothing can be saved or started until then."""
    go_on = threading.Event()
    monkeypatch.setattr(machine, "probe", lambda _path: go_on.wait(10) and HERE)

    async def script(app, pilot):
        app.context.model, app.context.data = MODEL, DATA
        await app.push_screen(RecommendationScreen(app.context))
        assert app.screen.query_one("#title", Rows).text == "new run, 3 of 3: what to do"
        await pilot.press(*"2se")
        assert shown(app).text == "looking at the machine"
        assert words(app) == "there is no recommendation yet"
        go_on.set()
        await settle(app, pilot)
        assert "2 critical yes" in app.screen.query_one("#answers", Rows).text
        assert "the estimate, term by term" in shown(app).text

    drive(script)


def test_on_too_small_a_machine_there_is_nothing_to_start(monkeypatch):
    """Neither saved nor launched, and the reason is told."""
    ram = 10 * 2**20
    monkeypatch.setattr(
        machine, "probe", lambda _path: replace(HERE, ram_bytes=ram, ram_free_bytes=ram)
    )

    async def script(app, pilot):
        app.context.model, app.context.data = MODEL, DATA
        await opened(app, pilot, RecommendationScreen(app.context))
        assert words(app) == "nothing fits on this machine"
        for key in "sl":
            app.screen.say()
            await press(app, pilot, key)
            assert words(app).startswith("nothing that this version runs fits here")
            assert isinstance(app.screen, RecommendationScreen)

    drive(script)


def test_a_launch_asks_and_starts_nothing_unless_told(monkeypatch):
    """Warnings are told, three of them; esc goes back to the recommendation."""
    ready = SimpleNamespace(
        duration=None,
        fit=SimpleNamespace(memory=SimpleNamespace(expected_bytes=2**30), budget_bytes=2**31),
        rows="91 rows",
        warnings=tuple(f"look {n}" for n in range(5)),
    )
    checked, go_on = [], threading.Event()

    def check(_recipe, where):
        checked.append(where)
        go_on.wait(10)
        return ready

    monkeypatch.setattr(preflight, "check", check)
    monkeypatch.setattr(launch, "start", lambda *_, **__: pytest.fail("started"))

    async def script(app, pilot):
        app.context.model, app.context.data = MODEL, DATA
        await opened(app, pilot, RecommendationScreen(app.context))
        await pilot.press("l", "l")
        assert words(app) == "checking packages, model, data and memory; esc cancels"
        go_on.set()
        await settle(app, pilot)
        question = " ".join(app.screen.query_one("#question", Rows).text.split())
        assert "1.0 GiB of 2.0 GiB free? It goes on without this terminal. 91 rows" in question
        assert question.endswith("! look 0 ! look 1 ! look 2")
        assert app.screen.query_one("#choices", Rows).text == "enter start   esc do not"
        await press(app, pilot, "x", "escape")
        assert isinstance(app.screen, RecommendationScreen)
        assert words(app) == "checked; nothing was started yet"
        assert checked == [app.context.base_dir]

    drive(script)


def test_a_place_to_save_may_be_written_with_a_tilde(tmp_path, monkeypatch):
    """An empty answer saves nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    written = []
    monkeypatch.setattr(save, "write", lambda _found, to: written.append(to.path) or to.wrote)

    async def script(app, pilot):
        app.context.model, app.context.data = MODEL, DATA
        await opened(app, pilot, RecommendationScreen(app.context))
        for answer in ("", "  ~/r.toml "):
            await press(app, pilot, "s")
            await press(app, pilot, "x")
            assert app.screen.query_one(Input).value == "recipe.tomlx"
            assert app.screen.query_one("#choices", Rows).text == "enter save   esc do not"
            app.screen.query_one(Input).value = answer
            await press(app, pilot, "enter")

    drive(script)
    assert written == [tmp_path / "r.toml"]


# --- a form ---


@pytest.mark.usefixtures("_unanimated")
def test_a_form_is_scrolled_cleared_and_explained_by_keys(monkeypatch):
    """The input keeps every letter, so the keys are others than on the screens to read."""
    places = []
    monkeypatch.setattr(ModelScreen, "lines", lambda *_: list(map(str, range(60))))

    async def script(app, pilot):
        await opened(app, pilot, ModelScreen(app.context))
        assert app.screen.query_one("#title", Rows).text == "new run, 1 of 3: the model"
        await press(app, pilot, "enter")
        assert words(app).startswith("folder with config.json")
        await press(app, pilot, *"tiny", "enter")
        for key in ("down", "up", "down", "down", "pagedown", "pageup", "pagedown", "pageup"):
            await press(app, pilot, key)
            await refreshed(app)
            places.append(shown(app).scroll_offset.y)
        await press(app, pilot, "f1")
        assert isinstance(app.screen, Pager)
        assert "empty the input" in shown(app).text
        await press(app, pilot, "escape")
        assert words(app) == "enter goes on: the data"
        await press(app, pilot, "ctrl+u")
        await settle(app, pilot)
        assert app.screen.query_one(Input).value == ""
        assert (app.screen.found, words(app)) == (None, "enter checks it")

    drive(script, size=(60, 16))

    page = places[4] - 2
    assert page > 5
    assert places == [1, 0, 1, 2, 2 + page, 2, 2 + page, 2]


def test_the_completion_is_taken_by_a_key_and_follows_the_disk(tmp_path):
    """Letters count as they are typed, and what is there by now is found."""

    async def script(app, pilot):
        await opened(app, pilot, ModelScreen(app.context))
        line = app.screen.query_one(Input)
        await press(app, pilot, *"Zo")
        await pilot.pause()
        assert line._suggestion == ""
        (tmp_path / "Zoo").mkdir()
        await press(app, pilot, "backspace", *"o")
        await until(app, pilot, "Zoo/")
        await press(app, pilot, "right")
        assert line.value == "Zoo/"
        await press(app, pilot, "right")
        assert line.value == "Zoo/"

    drive(script)


def test_only_names_that_can_be_typed_are_completed(tmp_path, monkeypatch):
    """The first of them by name; in the home too, where it is written with a tilde."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "me" / "sub").mkdir(parents=True)
    for name in ("rows\x1b.json", "rows2.json", "rows1.json"):
        (tmp_path / "me" / name).touch()

    assert complete("~/ro") == "~/rows1.json"
    assert complete("~/s") == "~/sub/"
    assert complete("~/me") is None


def test_an_input_stands_free_in_a_form_and_tight_in_a_question():
    """A question takes as few rows from the screen below as it can."""
    margins = []

    async def script(app, pilot):
        await opened(app, pilot, ModelScreen(app.context))
        margins.append(app.screen.query_one(Input).styles.margin)
        await app.push_screen(AskText(["where?"], "here"))
        margins.append(app.screen.query_one(Input).styles.margin)

    drive(script)
    assert margins == [(1, 0, 1, 0), (0, 0, 0, 0)]


# --- a run ---

REQUESTS = [
    ("p", "pause", "asked to pause at the next step; p lets it go on"),
    ("c", "checkpoint", "asked for a checkpoint at the next step"),
    ("s x", "stop_now", "asked to stop at the next step, without saving"),
    ("s enter", "stop", "asked to save and stop at the next step"),
]


def test_each_request_to_a_run_has_its_key_and_its_words():
    """Nothing is asked for by escape; a paused run goes on by the key that paused it."""
    run = canned_run(done=20)

    async def script(app, pilot):
        await until(app, pilot, "RUNNING")
        for typed, verb, said in REQUESTS:
            await press(app, pilot, *typed.split())
            assert (words(app), control.pending(run)[-1].verb) == (said, verb)
        await press(app, pilot, "s")
        name = app.screen_stack[-2].live.name
        assert app.screen.query_one("#question", Rows).text == f"Stop {name}?"
        await press(app, pilot, "escape")
        Journal(run.worker_events, attempt=1).append(Paused(step=20, reason="asked", what="asked"))
        await until(app, pilot, "PAUSED")
        await press(app, pilot, "p")
        assert words(app) == "asked to go on"

    drive(script, run_id=run.id)

    asked = [request.verb for request in control.pending(run)]
    assert asked == [*(verb for _, verb, _ in REQUESTS), "unpause"]


def test_keys_that_mean_nothing_yet_or_any_more_say_why():
    """A run that goes on is not resumed, one that is over is not stopped."""
    run = canned_run(done=20)

    async def script(app, pilot):
        await until(app, pilot, "RUNNING")
        await press(app, pilot, "r")
        assert words(app) == "the run is not over; p lets a paused run go on"
        finish(run, "stopped", 20)
        await until(app, pilot, "STOPPED")
        assert words(app).splitlines() == [
            "STOPPED: it stopped",
            "why: because of a test",
            "do: nothing",
            "no checkpoint: r starts from step 0; enter opens the report",
        ]
        await press(app, pilot, "s")
        assert words(app) == "the run is over already"

    drive(script, run_id=run.id)


def test_the_footer_of_a_run_follows_its_state_and_the_room():
    """The next pane is offered where only one is seen; other keys matter when it is over."""
    run = canned_run(done=20)
    footers = []

    async def script(app, pilot):
        def footer():
            footers.append(app.screen.query_one("#footer", Rows).text)

        await until(app, pilot, "RUNNING")
        footer()
        for size in ((79, 24), (200, 23)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            footer()
        finish(run, "stopped", 20)
        await until(app, pilot, "STOPPED")
        footer()

    drive(script, size=(200, 24), run_id=run.id)

    wide, narrow, low, over = footers
    assert "p pause  s stop  l log  c checkpoint  enter report" in wide
    assert "tab pane" not in wide
    assert "p pause  s stop  tab pane  l log" in narrow
    assert "p pause  s stop  tab pane  l log" in low
    assert over == ("? help  enter report  r resume  l log  y copy id  esc back  tab pane  q leave")


PANES = ["loss", "rate", "memory", "time"]


@pytest.mark.parametrize(
    ("size", "places"),
    [
        ((80, 24), [(0, 0), (1, 0), (0, 1), (1, 1)]),
        ((79, 24), [(0, 0), None, None, None]),
        ((80, 23), [(0, 0), None, None, None]),
    ],
)
def test_the_panes_stand_two_by_two_where_there_is_room(size, places):
    """Each where hands and eyes have learnt it; elsewhere one at a time fills the room."""
    run = canned_run(done=20)
    found = []

    async def script(app, pilot):
        await until(app, pilot, "RUNNING")
        whole = app.screen.query_one("#panes").region
        for name in PANES:
            here = app.screen.query_one(f"#{name}").region
            if not here.area:
                found.append(None)
                continue
            found.append((int(here.x > whole.x), int(here.y > whole.y)))
            assert 1.8 < whole.width / here.width < 2.2 or here.width == whole.width
        assert app.screen.query_one("#footer").region.bottom == size[1]

    drive(script, size=size, run_id=run.id)
    assert found == places


@pytest.mark.parametrize(("height", "num_rows"), [(35, 1), (36, 6)])
def test_events_have_as_many_rows_as_there_is_room_for(height, num_rows):
    """The newest last, each with its time; rows without one stay blank, so that nothing moves."""
    run = canned_run(done=20)

    async def script(app, pilot):
        await until(app, pilot, "RUNNING")
        events = app.screen.query_one("#events", Rows)
        rows = events.text.split("\n")
        at = time.strftime("%H:%M:%S", time.localtime(app.screen.live.events[-1].unix_seconds))
        told = [row for row in rows if row]
        assert told[-1].startswith(f"{at} step 4: evaluation loss 3.6100")
        assert (len(rows), events.size.height) == (num_rows, num_rows)
        assert len(told) == min(num_rows, len(app.screen.live.events))

    drive(script, size=(80, height), run_id=run.id)


def test_what_happened_while_nobody_looked_is_told_at_the_next_look():
    """Once; the look is kept when the screen is left."""
    run = canned_run(done=7)
    seen.remember(run.id, seen.Look(time.time() - 3600, 3))

    async def script(app, pilot):
        await until(app, pilot, "kept running while you were away (1 h 0 m, steps 3 -> 7)")
        await press(app, pilot, "escape")

    drive(script, run_id=run.id)
    assert seen.last_look(run.id).step == 7


def test_the_look_is_kept_while_the_screen_is_open(monkeypatch):
    """On a thread that keeps nobody from leaving; the first frame does not wait for a beat."""
    run = canned_run(done=7)
    monkeypatch.setattr(live_screen, "_LOOK_KEPT_SECONDS", 0.01)
    late, threads = [None, None], []
    take, remember = ImmediateFeed.take, seen.remember

    def noted(*look):
        threads.append(threading.current_thread())
        remember(*look)

    monkeypatch.setattr(seen, "remember", noted)
    monkeypatch.setattr(ImmediateFeed, "take", lambda feed: late.pop() if late else take(feed))

    async def script(app, pilot):
        deadline = time.monotonic() + 10
        while seen.last_look(run.id) is None and time.monotonic() < deadline:
            await pilot.pause(0.01)
        assert "step 7 of 40" in app.screen.query_one("#header", Rows).text
        feed = app.screen.feed
        assert not feed.closed
        assert (threads[0].name, threads[0].daemon) == ("look", True)
        await press(app, pilot, "escape")
        assert feed.closed

    drive(script, run_id=run.id)
    assert seen.last_look(run.id).step == 7


def test_of_a_run_that_is_over_the_absence_counts_to_its_end(monkeypatch):
    """Its end comes first; a long one goes on further in."""
    run = canned_run(done=20, end="finished")
    end = status(run).since
    seen.remember(run.id, seen.Look(end - 7200, 3))
    monkeypatch.setattr(live_screen.time, "time", lambda: end + 9999)

    async def script(app, pilot):
        await until(app, pilot, "FINISHED: better")
        assert words(app).split("\n") == [
            "FINISHED: better than the base model: evaluation loss 3.8300",
            "  -> 3.6100 at step 4",
            "enter opens the report",
            "kept running while you were away (2 h 0 m, steps 3 -> 20)",
        ]

    drive(script, size=(60, 24), run_id=run.id)


def test_a_run_that_cannot_be_read_says_so(monkeypatch):
    """Before anything else, cleaned."""
    run = canned_run(done=20)

    async def script(app, pilot):
        await until(app, pilot, "RUNNING")
        app.screen.feed.fault = "OSError: \x1b[2Jgone"
        await until(app, pilot, "cannot read the run: OSError: gone")
        app.screen.feed.fault = ""
        app.screen.tick()
        assert words(app) == ""
        app.pace.is_behind = True
        await until(app, pilot, "this display is behind the run: the connection is slow")

    drive(script, run_id=run.id)


# --- its report and its log ---


@pytest.fixture
def finished(tmp_path):
    """A run that is over, with what its report is made from."""
    small_model(tmp_path / "base" / "model")
    run = RunDir(Path(shutil.copytree(FINISHED, tmp_path / "home" / "runs" / FINISHED.name)))
    manifest = json.loads(run.manifest.read_text()) | {"base_dir": str(tmp_path / "base")}
    run.manifest.write_text(json.dumps(manifest))
    return run


def test_what_is_known_of_the_directory_does_not_hide_how_a_run_ended(tmp_path):
    """A copy of a run that is over: its way to go on is told too, in the width of the screen."""
    run = canned_run(end="failed")
    manifest = json.loads(run.manifest.read_text()) | {"path": str(run.path), "id": run.id}
    run.manifest.write_text(json.dumps(manifest))
    copy = run.path.with_name("copied-with-a-long-name-as-people-give-them-to-what-they-keep")
    shutil.copytree(run.path, copy)

    async def script(app, pilot):
        await until(app, pilot, "FAILED")
        await until(app, pilot, "copy of")
        told = words(app)
        assert f"copy of {run.id}" in told
        assert "FAILED" in told
        assert "r starts from step 0" in told
        assert max(map(len, told.splitlines())) <= 80

    drive(script, size=(80, 24), run_id=str(copy))


def test_each_key_of_a_report_is_about_its_run(finished):
    """Its curves, its log, its id; and how to have the report in a file."""

    async def script(app, pilot):
        await opened(app, pilot, ReportScreen(app.context, finished))
        assert app.screen.query_one("#title", Rows).text == f"report of {finished.id}"
        assert "where the time goes" not in shown(app).text
        assert f"run       {finished.id}" in shown(app).text
        assert words(app) == f"to a file: advisor profile --md report.md {finished.id}"
        for key, kind in (("w", LiveScreen), ("l", ConsoleScreen), ("question_mark", Pager)):
            await press(app, pilot, key)
            assert isinstance(app.screen, kind)
            await press(app, pilot, "escape")
            assert isinstance(app.screen, ReportScreen)
        await press(app, pilot, "y")
        assert (app.clipboard, words(app)) == (finished.id, f"copied {finished.id}")
        await press(app, pilot, "pagedown")
        assert shown(app).scroll_offset.y > 0
        await press(app, pilot, "q")

    assert drive(script).return_value == 0


def test_a_report_that_is_being_read_is_left_at_once(finished, monkeypatch):
    """Its result is wanted by nobody any more; an empty page would be of no use."""
    go_on = threading.Event()
    monkeypatch.setattr(profile, "load", lambda _run: go_on.wait(10))

    async def script(app, pilot):
        await app.push_screen(ReportScreen(app.context, finished))
        assert shown(app).text == "reading the run; esc cancels"
        await pilot.press("escape")
        assert isinstance(app.screen, Home)
        go_on.set()

    drive(script)


@pytest.mark.usefixtures("_unanimated")
def test_the_end_of_a_log_stays_in_sight_while_it_grows():
    """Unless a person has scrolled back to read."""
    run = canned_run(done=2)
    run.console.write_text("".join(f"line {n}\n" for n in range(50)))

    def grow(name):
        with run.console.open("a") as file:
            file.write("".join(f"{name} {n}\n" for n in range(9)))

    async def look(app):
        app.screen.tick()
        await refreshed(app)
        page = shown(app)
        return page.scroll_offset.y, page.max_scroll_y, page.text.split("\n")[-1]

    async def script(app, pilot):
        await opened(app, pilot, ConsoleScreen(app.context, run))
        assert app.screen.query_one("#title", Rows).text == f"console log of {run.id}"
        assert app.focused is shown(app)
        y, end, last = await look(app)
        assert (y, last) == (end, "line 49")
        assert end > 20
        grow("more")
        assert await look(app) == (end + 9, end + 9, "more 8")
        shown(app).scroll_to(y=9, animate=False, immediate=True)
        before = 9
        grow("unseen")
        assert await look(app) == (before, end + 18, "unseen 8")

    drive(script)


def test_a_log_is_read_from_its_end(tmp_path):
    """128 kB of it and 400 lines; a long line is folded, an empty log says so."""
    log = tmp_path / "log"
    log.write_text("x" * 200_000 + "\nthe end\n")
    assert [len(line) for line in tail(log)] == [400, 7]
    log.write_text("".join(f"{n}\n" for n in range(1000)))
    assert tail(log)[0] == "601"  # what follows the last line break is the 400th
    log.write_text("\n\n")
    assert tail(log) == ["the log is empty"]

    assert folded("abcdefg", 3) == ["abc", "def", "g"]


# --- home ---


def test_home_says_what_it_has_not_got_yet(monkeypatch):
    """Runs, and a machine that is still being looked at."""
    go_on = threading.Event()
    monkeypatch.setattr(machine, "probe", lambda _path: go_on.wait(10) and HERE)

    async def script(app, pilot):
        runs = app.screen.query_one(OptionList)
        assert shown(app).text == "looking at the machine"
        await pilot.press("m")
        await pilot.pause()
        assert words(app) == "still looking at the machine"
        app.screen.tick()
        while "runs" in app.screen.busy:
            await pilot.pause(0.005)
        await pilot.press("w")
        await pilot.pause()
        assert words(app) == "there is no run to watch; n makes one"
        (row,) = runs.options
        assert (row.prompt, row.disabled) == ("no runs yet; n makes one", True)
        go_on.set()
        await settle(app, pilot)
        assert "a processor" in shown(app).text
        await press(app, pilot, "question_mark")
        assert "choose model and data, see what fits, start" in shown(app).text

    drive(script)


def test_home_keeps_the_chosen_run_while_others_come_and_go_on(monkeypatch):
    """Watch opens its curves even when it is over; a row is written anew where it changed."""
    for name in ("old", "older"):
        canned_run(name=name, done=3, end="stopped")

    async def script(app, pilot):
        async def look():
            app.screen._looked_at = -100.0
            app.screen.tick()
            await settle(app, pilot)
            runs = app.screen.query_one(OptionList)
            return [str(option.prompt) for option in runs.options], app.screen._chosen()

        rows, _ = await look()
        assert len(rows) == 2
        app.screen.query_one(OptionList).highlighted = 1
        chosen = app.screen._chosen()
        newest = canned_run(name="newest", done=4)
        rows, still = await look()
        assert (len(rows), still) == (3, chosen)
        (row,) = (row for row in rows if newest.id.rsplit("_")[-1] in row)
        assert " 4/40 " in row
        add_steps(newest, 5, 6)
        rows, still = await look()
        assert still == chosen
        assert any(" 6/40 " in row for row in rows)
        await press(app, pilot, "w")
        assert isinstance(app.screen, LiveScreen)
        assert app.screen.run_dir.id == chosen
        await press(app, pilot, "escape")
        app.screen.tick()
        assert app.screen.busy == {"runs"}  # what may be old is looked at again at once
        await settle(app, pilot)
        app.screen.tick()
        assert app.screen.busy == set()
        shutil.rmtree(newest.path.parent)
        rows, _ = await look()
        assert rows == ["no runs yet; n makes one"]

    drive(script)


def test_home_looks_at_the_newest_runs_every_three_seconds(monkeypatch):
    """Two hundred of them; those that still work are sought among twenty."""
    now, begun = [100.0], []
    monkeypatch.setattr(home_screen, "monotonic", lambda: now[0])
    monkeypatch.setattr(Home, "work", lambda _home, name, *_: begun.append((name, now[0])))
    run = canned_run(done=1)
    monkeypatch.setattr(listing, "all_runs", lambda: [run] * 300)

    async def script(app, pilot):
        begun.clear()
        for seconds in (0.0, 2.9, 3.0, 5.9, 6.0):
            now[0] = 100.0 + seconds
            app.screen.tick()

    drive(script)
    assert begun == [("runs", 100.0), ("runs", 103.0), ("runs", 106.0)]
    assert len(home_screen.look_at_runs()) == 200
    assert len(working_runs()) == 20


@pytest.mark.parametrize(
    ("seconds", "age"), [(-50, "now"), (20, "now"), (200, "3 m"), (9000, "2 h"), (3 * 86400, "3 d")]
)
def test_a_row_of_home_says_what_a_run_is_and_when_it_was_heard_of(seconds, age):
    """In whole units: what changes every second would be sent every second."""
    run = rundir.RunDir(Path("2026-11-22_0450_tiny-lora_rwdxs"))
    now = Status(
        state=State.FINISHED,
        attempt=1,
        step=40,
        num_steps=40,
        resumable_from=None,
        reason="",
        exit_code=0,
        since=time.time() - seconds,
        result=Result(verdict=Verdict.BETTER, base_loss=3.8312, loss=3.6149),
    )

    row = home_screen.row(run, now)

    assert row == (
        f"FINISHED            40/40  {age:>6}  better 3.83 -> 3.61   rwdxs  tiny-lora  2026-11-22"
    )
    renamed = home_screen.row(rundir.RunDir(Path("my_best run")), now)
    assert renamed.rstrip().endswith("better 3.83 -> 3.61   my_best run")


# --- what they are built from ---


def test_a_panel_is_framed_exactly():
    """Missing rows are blank, longer and more ones are cut; without room there is no frame."""
    panel = Panel("a title", Symbols.ASCII)
    assert panel.build_rows(11, 3) == ["+ a title +", "|         |", "+---------+"]
    panel.show(lambda width, height: [f"{width} {height}", "b" * 20, "c", "d"])

    assert panel.build_rows(14, 5) == [
        *("+ a title ---+", "|12 3        |", f"|{'b' * 12}|", "|c           |"),
        "+------------+",
    ]
    assert panel.build_rows(8, 7)[4:] == ["|d     |", "|      |", "+------+"]
    assert panel.build_rows(3, 3) == ["+ +", "|1|", "+-+"]
    assert panel.build_rows(2, 3) == ["2 3", "b" * 20, "c", "d"]
    assert panel.build_rows(9, 2) == ["9 2", "b" * 20, "c", "d"]


def test_rows_show_as_many_as_they_may():
    """They take the room of one at least, and are cut to the width."""
    rows = Rows(most=2)
    heights = []
    for told in ((), ("one",), ("one", "two", "three")):
        rows.show(*told)
        heights.append(rows.styles.height.value)

    assert heights == [1, 1, 2]
    assert rows.text == "one\ntwo"
    assert rows.build_rows(2, 2) == ["on", "tw"]
    assert rows.build_rows(3, 2) == ["one", "two"]


def test_a_line_that_is_too_long_wraps_under_its_own_beginning():
    """Two blanks further in; one that fits is left as it is."""
    line = "    a word and another word"

    assert fitting(line, len(line)) == [line]
    assert fitting(line, len(line) - 1) == ["    a word and another", "      word"]


def test_a_page_is_written_anew_for_another_width():
    """As wide as it is then; the scroll bar has its column."""
    widths = []

    async def script(app, pilot):
        await opened(app, pilot, Pager(app.context, "a title", lambda w: [widths.append(w) or "x"]))
        assert app.screen.query_one("#title", Rows).text == "a title"
        await pilot.resize_terminal(70, 24)
        await pilot.pause()
        await pilot.resize_terminal(70, 30)
        await pilot.pause()

    drive(script)
    assert list(dict.fromkeys(widths)) == [79, 69]
    assert len(widths) <= 3


def test_what_is_told_has_six_rows_and_a_question_eight():
    """An error in place gets those, cut at the width under its own beginning."""

    async def script(app, pilot):
        app.screen.say(*"abcdefgh")
        assert words(app) == "\n".join("abcdef")
        app.screen.tell(UserError("w " * 60, why="y", do="d", where="x", code=ExitCode.USAGE))
        rows = words(app).split("\n")
        assert [row[:7] for row in rows] == ["error: ", "       ", "why:   ", "do:    ", "where: "]
        await app.push_screen(Ask([str(n) for n in range(12)], ()))
        assert app.screen.query_one("#question", Rows).text == "\n".join("01234567")

    drive(script)


def test_only_the_newest_piece_of_work_of_a_name_is_wanted():
    """An older one that ends later is not taken, nor one that was cancelled; none keeps the app."""
    events = [threading.Event() for _ in range(3)]
    taken = []

    async def script(app, pilot):
        await settle(app, pilot)
        screen = app.screen
        for number, event in enumerate(events[:2]):
            screen.work("w", lambda n=number, e=event: e.wait(10) and n, taken.append)
        screen.work("other", lambda: "o", taken.append)
        events[1].set()
        await settle(app, pilot)
        events[0].set()
        await settle(app, pilot)
        assert screen.busy == set()
        screen.work("w", lambda: events[2].wait(10) and 2, taken.append)
        assert screen.busy == {"w"}
        assert {one.daemon for one in threading.enumerate() if one.name == "work w"} == {True}
        assert screen.cancel()
        assert not screen.cancel()
        events[2].set()
        await settle(app, pilot)

    drive(script)
    assert sorted(map(str, taken)) == ["1", "o"]
