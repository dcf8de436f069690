"""Terminals that are missing, tiny, odd, frozen or gone: the app copes, the run never notices."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import psutil
import pytest
from on_disk import read_all
from textual.events import Resize
from textual.geometry import Size

from profiles.errors import ExitCode
from profiles.runs import durable, rundir
from runner.supervision import worker_command
from tests.canned_run import add_sample, add_steps, canned_run, finish, gpu
from tests.support.pseudo_terminal import at_terminal
from tui import seen
from tui.app import TunedeckApp
from tui.screens.console import ConsoleScreen
from tui.screens.live import LiveScreen
from tui.screens.model import ModelScreen
from tui.screens.parts import Page, Panel, Rows
from tui.screens.recommendation import RecommendationScreen
from tui.screens.report import ReportScreen
from tui.seen import Look
from tui.terminal import decide

DOUBLE = Path(__file__).parent / "support" / "double_worker.py"
HOUR = 3600.0
BREAK = """
import tui.live
def broken(*_):
    raise ZeroDivisionError("hf_abcdefghijklmnopqrstuvwxyz012345 a-value-of-mine")
tui.live.LiveRun.shares = broken
"""
UNDER_NOHUP = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
SCREEN_LEFT = b"\x1b[?1049l"
CURSOR_SHOWN = b"\x1b[?25h"


def test_without_a_terminal_the_app_is_refused_and_the_way_is_named(advisor):
    """`ssh host advisor`, cron, CI: exit code 2 and the commands that need no screen."""
    done = advisor()

    assert done.returncode == ExitCode.USAGE
    assert "the app needs a terminal" in done.stderr
    assert "`advisor watch --json`" in done.stderr


def test_the_status_of_a_run_needs_no_terminal(advisor):
    """What the refusal names works there."""
    run = canned_run(done=20)

    done = advisor("watch", "--json")

    assert json.loads(done.stdout)["id"] == run.id
    assert json.loads(done.stdout)["state"] == "running"


def test_a_screen_that_breaks_saves_its_traceback_and_restores_the_terminal(home):
    """The person reads that the run is unaffected; no secret is kept."""
    run = canned_run(done=20)

    with at_terminal("watch", run.id, code=BREAK, MY_API_KEY="a-value-of-mine") as terminal:
        code = terminal.end()
        modes = terminal.modes()

    (crash,) = home.glob("ui-crash-*.txt")
    assert code == ExitCode.INTERNAL
    assert b"your run is unaffected" in terminal.shown
    assert crash.name.encode() in terminal.shown.replace(b"\r\n", b"").replace(b" ", b"")
    assert "ZeroDivisionError" in crash.read_text()
    assert "hf_abcdef" not in crash.read_text()
    assert "a-value-of-mine" not in crash.read_text()
    assert b"hf_abcdef" not in terminal.shown
    assert modes == terminal.modes_before
    assert terminal.shown.rindex(SCREEN_LEFT) < terminal.shown.index(b"unaffected")
    assert CURSOR_SHOWN in terminal.shown


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "de_DE.ISO-8859-1"},
        {"PYTHONIOENCODING": "ascii"},
    ],
    ids=["C", "POSIX", "latin-1", "ascii"],
)
def test_terminals_that_know_no_utf8_are_sent_ascii(environment):
    """The live screen, and its end by a key, in four environments without UTF-8."""
    run = canned_run(done=20, name="naïve 日本")
    add_sample(run, gpu())

    with at_terminal("watch", run.id, **environment) as terminal:
        terminal.until(b"step 20 of 40")
        terminal.press(b"q")
        code = terminal.end()

    assert code == 0
    assert terminal.shown.isascii()


@pytest.mark.parametrize("arguments", [("runs", "--json"), ("runs",), ("watch", "--plain")])
def test_commands_print_in_an_ascii_environment(advisor, arguments):
    """Names that the encoding cannot say are replaced, not fatal."""
    run = canned_run(name="naïve 日本", done=20)
    finish(run, "failed", 20)
    ended = json.loads(run.exit.read_text()) | {"what": "naïve 日本"}
    run.exit.write_text(json.dumps(ended))

    done = advisor(*arguments, PYTHONIOENCODING="ascii", LC_ALL="C")

    assert "Traceback" not in done.stderr
    assert "failed" in (done.stdout + done.stderr).lower()


def test_escape_codes_of_data_never_reach_the_terminal():
    """Of a run's name, its events, its error and its log: neither titles nor the clipboard."""
    evil = "\x1b]0;pwned\x07\x1b]52;c;cHduZWQ=\x07\x1b[8m[/red]"
    run = canned_run(done=20)
    run.manifest.write_text(json.dumps({"id": run.id, "name": f"good{evil}", "created": 1.0}))
    run.console.write_text(f"a log line{evil}\n")
    finish(run, "failed", 20)
    run.exit.write_text(json.dumps(json.loads(run.exit.read_text()) | {"what": f"bad{evil}"}))

    with at_terminal("watch", run.id) as terminal:
        terminal.until(b"FAILED: bad[/red]")
        terminal.press(b"l")
        terminal.until(b"a log line[/red]")
        terminal.press(b"q")
        terminal.until(b"FAILED")
        terminal.press(b"q")
        terminal.end()

    assert b"pwned" not in terminal.shown
    assert b"cHduZWQ" not in terminal.shown
    assert b"\x1b[8m" not in terminal.shown


PIECES = ["\x1b[", "\x1b]0;", "\x07", "\x9b2J", "[/red]", "[", "]", "\\[", "[@click=app.quit]x[/]"]
PIECES += ["\u202e", "\x00", "\n", "\ud800", "a", "日", "\U0001f600", " ", "{}", "%s", "$x"]


def test_hostile_text_breaks_no_widget_and_leaves_no_control_code():
    """Markup, escape codes, lone surrogates and wide characters in everything that shows text."""
    chosen = random.Random(11)  # noqa: S311  # the same texts each time
    texts = ["".join(chosen.choices(PIECES, k=chosen.randint(1, 12))) for _ in range(150)]

    async def script() -> list[str]:
        terminal = decide({"TERM": "xterm-256color"}, is_tty=True, encoding="utf-8")
        app, drawn = TunedeckApp(terminal), []
        async with app.run_test(size=(80, 24)) as pilot:
            app.stop_clock()
            rows, page = Rows("fuzzed"), Page("fuzzed-page")
            panel = Panel("title", terminal.symbols)
            await app.screen.mount(rows, page, panel)
            for text in texts:
                rows.show(text)
                page.show(lambda _width, text=text: [text])
                panel.show(lambda _width, _height, text=text: [text])
                await pilot.pause()
                drawn += [w.render_line(0).text for w in (rows, panel, *page.children)]
                drawn += [panel.render_line(1).text]
        return drawn

    shown = "".join(asyncio.run(script()))

    assert not [c for c in shown if unicodedata.category(c)[0] == "C"]
    assert "[@click=app.quit]x[/]" in shown


@pytest.mark.parametrize("size", [(0, 0), (1, 1)])
def test_a_terminal_without_room_ends_by_a_key(size):
    """A terminal that tells no size is taken for 80x24; one cell is enough to leave."""
    run = canned_run(done=20)

    with at_terminal("watch", run.id, size=size) as terminal:
        terminal.until(b"\x1b[?1049h")
        time.sleep(0.5)
        terminal.press(b"q")

        assert terminal.end() == 0


def test_two_hundred_sizes_break_no_screen():
    """From one cell to 300x100, in any order, on every screen that shows data."""
    run = canned_run(done=20)
    add_sample(run, gpu(), gpu(1))
    chosen = random.Random(7)  # noqa: S311  # the same sizes each time
    sizes = [(1, 1), (300, 100), (300, 1), (1, 100)]
    sizes += [(chosen.randint(1, 300), chosen.randint(1, 100)) for _ in range(196)]
    screens = [
        lambda context: LiveScreen(context, run),
        lambda context: ConsoleScreen(context, run),
        lambda context: ReportScreen(context, run),
        RecommendationScreen,
        ModelScreen,
    ]

    async def script() -> None:
        terminal = decide({"TERM": "xterm-256color"}, is_tty=True, encoding="utf-8")
        app = TunedeckApp(terminal)
        async with app.run_test(size=(80, 24)) as pilot:
            app.stop_clock()
            for number, (width, height) in enumerate(sizes):
                if number % 40 == 0:
                    await app.push_screen(screens[number // 40](app.context))
                app.post_message(Resize(Size(width, height), Size(width, height)))
                app._tick()
                if number % 8 == 7:  # the others meet layouts that are still being made
                    await pilot.pause()

    asyncio.run(script())


def test_a_frozen_terminal_stops_neither_the_run_nor_the_end_of_the_app():
    """A client that reads nothing: steps go on, no CPU is burnt, the hang-up is still noticed."""
    run = canned_run(done=0)
    run.metrics.unlink()
    argv = [sys.executable, str(DOUBLE), str(run.path), "100"]
    worker = subprocess.Popen(argv)

    with at_terminal("watch", run.id, code=UNDER_NOHUP, SSH_TTY="yes") as terminal:
        app = psutil.Process(terminal.process.pid)
        assert worker.wait(timeout=30) == 0
        before, began = sum(app.cpu_times()[:2]), time.monotonic()
        time.sleep(2)
        share = (sum(app.cpu_times()[:2]) - before) / (time.monotonic() - began)
        terminal.close()
        code = terminal.process.wait(timeout=5)

    assert [r["step"] for r in read_all(run.metrics)] == list(range(1, 101))
    assert share < 0.5
    assert code == 128 + signal.SIGHUP


def test_a_reconnect_tells_what_happened_meanwhile():
    """How long the person was away, and which steps were made."""
    run = canned_run(done=20)
    seen.remember(run.id, Look(time.time() - 1.2 * HOUR, 3))

    with at_terminal("watch", run.id) as terminal:
        terminal.until(b"kept running while you were away (1 h 12 m, steps 3 -> 20)")
        terminal.press(b"q")
        terminal.end()

    assert seen.last_look(run.id).step == 20


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, Look(HOUR, 9), ""),
        (Look(0, 9), Look(HOUR, 9), ""),
        (Look(0, 9), Look(59, 10), ""),
        (
            Look(0, 300),
            Look(1.2 * HOUR, 912),
            "kept running while you were away (1 h 12 m, steps 300 -> 912)",
        ),
    ],
)
def test_only_an_absence_that_mattered_is_told(before, now, expected):
    """Not the first look, no moment, and nothing where no step was made."""
    assert expected == seen.while_away(before, now)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 3, "b": [1, 2], "c": ["x", 1]}', None])
def test_a_damaged_memory_of_looks_costs_a_sentence(home, content):
    """It is rewritten at the next look; other runs' sound looks stay."""
    home.mkdir()
    if content is not None:
        (home / "seen.json").write_bytes(content)

    seen.remember("new", Look(5.0, 7))

    assert seen.last_look("new") == Look(5.0, 7)
    assert seen.last_look("a") is None
    assert (seen.last_look("b") is not None) == (content is not None and b'"b"' in content)


def test_looks_are_kept_in_the_home_and_not_without_end(home):
    """Fifty runs are remembered, the newest."""
    home.mkdir()
    for number in range(60):
        seen.remember(f"run {number}", Look(float(number), 1))

    assert seen.last_look("run 9") is None
    assert seen.last_look("run 10") is not None


def test_torchrun_as_we_start_it_survives_the_end_of_its_terminal(tmp_path):
    """In a session of its own and, as under nohup, in the terminal's: both ranks reach the end.

    torchrun's own default takes SIGHUP for a reason to end (pytorch#67538).
    """
    run = rundir.create("two ranks")
    durable.write_atomic(run.recipe, b'[hardware]\ngpus = 2\nstrategy = "ddp"\n')
    rank = tmp_path / "rank.py"
    rank.write_text(
        "import os, pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1]); name = os.environ['RANK']\n"
        "(folder / f'began{name}').touch()\n"
        "for _ in range(2000):\n"
        "    if (folder / 'go').exists(): break\n"
        "    time.sleep(0.05)\n"
        "(folder / f'done{name}').touch()\n"
    )
    argv = worker_command.worker_argv(run.path)
    argv = argv[: argv.index("-m", argv.index("torch.distributed.run"))]
    folders = {name: tmp_path / name for name in ("session", "nohup")}
    starter = "import signal, subprocess, time\n"
    for name, folder in folders.items():
        folder.mkdir()
        if name == "nohup":
            starter += "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        command = [*argv, str(rank), str(folder)]
        new_session = name == "session"
        starter += f"subprocess.Popen({command!r}, start_new_session={new_session})\n"
    # as a login shell: its own death by the hang-up is what reaches the terminal's processes
    starter += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\ntime.sleep(600)\n"
    with at_terminal(code=starter) as terminal:
        _wait(lambda: len(list(tmp_path.glob("*/began*"))) == 4)
        terminal.close()
        assert terminal.process.wait(timeout=10) == -signal.SIGHUP
        time.sleep(1)
        for folder in folders.values():
            (folder / "go").touch()

        _wait(lambda: len(list(tmp_path.glob("*/done*"))) == 4)
    assert len(list((run.path / ".trainer" / "launcher").iterdir())) == 2


def _wait(condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ctrl_c_leaves_neither_the_app_nor_the_run():
    """The key is explained instead."""
    run = canned_run(done=20)
    add_steps(run, 21, 21)

    with at_terminal("watch", run.id) as terminal:
        terminal.until(b"step 21 of 40")
        terminal.press(b"\x03")
        terminal.until(b"training goes on either way")
        terminal.press(b"q")

        assert terminal.end() == 0
