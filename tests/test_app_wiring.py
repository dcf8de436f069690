"""The app's own few lines: what the clock draws, who answers ctrl+c, how it begins and ends."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from profiles.errors import ExitCode
from tests.canned_run import canned_run
from tui import crash, hangup
from tui.app import TunedeckApp
from tui.screens.home import Home
from tui.screens.live import LiveScreen
from tui.terminal import decide


def app_on(run_id=None, **environ):
    """The app on a terminal."""
    environ = {"TERM": "xterm-256color"} | environ
    return TunedeckApp(decide(environ, is_tty=True, encoding="utf-8"), run_id=run_id)


def during(app, look):
    """What `look` sees of the running app."""

    async def run():
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            found = look(app)
            app.exit(0)
            return found

    return asyncio.run(run())


@pytest.mark.parametrize(("symbols", "is_ascii"), [("ascii", True), ("block", False)])
def test_the_app_begins_at_home_with_the_terminals_theme(symbols, *, is_ascii):
    """Its clock runs as fast as the link allows."""
    app = app_on(TUNEDECK_SYMBOLS=symbols, SSH_TTY="/dev/pts/1")

    seen = during(
        app, lambda a: (type(a.screen), a.theme, a.has_class("-ascii"), a._beats._interval)
    )

    assert seen == (Home, "textual-dark", is_ascii, 1.0)


def test_a_run_that_was_asked_for_lies_above_home():
    """Its screen is the one that is seen."""
    run = canned_run()

    screens = during(app_on(run.id), lambda a: [type(s) for s in a.screen_stack])

    assert screens == [Home, LiveScreen]


class FakeScreen(Home):
    """A screen that notes what it is asked for."""

    def __init__(self, *, mounted):
        self.heard = []
        self.mounted = mounted

    is_mounted = property(lambda self: self.mounted)

    def tick(self):
        """A frame."""
        self.heard.append("tick")

    def say(self, text):
        """Words."""
        self.heard.append(text)


@pytest.mark.parametrize("mounted", [True, False])
def test_only_a_screen_of_ours_that_has_its_widgets_is_drawn_and_speaks(monkeypatch, mounted):
    """A beat and a key may come before them, and while a question lies on top."""
    screen = FakeScreen(mounted=mounted)
    monkeypatch.setattr(TunedeckApp, "screen", property(lambda _app: screen))
    app = app_on()
    app._tick()
    app.action_explain_leaving()

    words = "esc goes back, q leaves; training goes on either way"
    assert screen.heard == (["tick", words] if mounted else [])

    monkeypatch.setattr(TunedeckApp, "screen", property(lambda _app: object()))
    app._tick()
    app.action_explain_leaving()


def test_a_screen_that_breaks_ends_the_app_with_its_own_code(monkeypatch):
    """And keeps a traceback in the home."""
    app, told = app_on(), []
    app._exception = ValueError("broken")
    monkeypatch.setattr(app, "panic", lambda *texts: told.extend(texts))

    app._fatal_error()

    assert app.return_code == int(ExitCode.INTERNAL)
    assert "error: the screen broke: ValueError: broken" in told[0].plain
    app._exception = None
    app._fatal_error()
    assert "RuntimeError: unknown" in told[1].plain


def test_the_traceback_is_kept_in_a_home_that_is_not_there_yet(monkeypatch, tmp_path):
    """And in one that is; a home that cannot be made is told."""
    home = tmp_path / "far" / "away"
    monkeypatch.setenv("TUNEDECK_HOME", str(home))
    for _ in range(2):
        told = crash.told(ValueError("broken"))
        assert "ValueError: broken" in Path(told.where).read_text()
        assert Path(told.where).parent == home
    assert home.stat().st_mode & 0o777 == 0o700

    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "file"))
    told = crash.told(ValueError("broken"))
    assert told.where == f"{tmp_path / 'file'} (the traceback could not be saved: File exists)"
    assert told.code is ExitCode.INTERNAL


@pytest.fixture
def forced(monkeypatch):
    """What ends the process in the end; SIGHUP is given back afterwards."""
    timers = []

    class Timer:
        def __init__(self, seconds, function, arguments):
            self.daemon = False
            self.facts = (seconds, function, arguments)

        def start(self):
            timers.append((*self.facts, self.daemon))

    monkeypatch.setattr(hangup.threading, "Timer", Timer)
    before = signal.getsignal(signal.SIGHUP)
    yield timers
    signal.signal(signal.SIGHUP, before)


def test_a_hangup_asks_once_and_forces_the_end_after_a_grace(forced):
    """As a shell counts a process that SIGHUP ended."""
    master, slave = os.openpty()
    asked = []
    hangup.watch(lambda: asked.append(1), slave)

    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGHUP)

    os.close(master)
    os.close(slave)
    assert asked == [1]
    assert forced == [(3.0, os._exit, [129], True)]


def test_a_terminal_that_is_gone_is_a_hangup(forced, monkeypatch):
    """Where the signal is ignored: nohup."""
    monkeypatch.setattr(hangup, "_LOOK_SECONDS", 0.01)
    master, slave = os.openpty()
    left = []

    async def run():
        gone, loop = asyncio.Event(), asyncio.get_running_loop()
        hangup.watch(lambda: left.append(1) or loop.call_soon_threadsafe(gone.set), slave)
        await asyncio.sleep(0.1)
        before = list(left)
        os.close(master)
        await asyncio.wait_for(gone.wait(), 10)
        return before

    before = asyncio.run(run())
    os.close(slave)
    assert (before, left) == ([], [1])


def test_what_is_no_terminal_is_not_there(tmp_path):
    """A file, and a descriptor that is closed."""
    master, slave = os.openpty()
    assert hangup.is_there(slave)
    os.close(master)
    os.close(slave)
    assert not hangup.is_there(slave)
    with (tmp_path / "file").open("w") as file:
        assert not hangup.is_there(file.fileno())
