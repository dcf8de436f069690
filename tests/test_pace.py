"""The clock of the live screen: waits for the terminal, but not for ever."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from textual import events

from tui.pace import MOST_UNANSWERED, PATIENCE_SECONDS, QUESTION, Pace, PacedApp

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


def test_no_frame_before_the_answer() -> None:
    """After a frame nothing is drawn until the terminal has answered."""
    pace = Pace(Clock())
    before = pace.may_draw()
    pace.frame_sent()
    waiting = pace.may_draw()
    pace.frame_arrived()

    assert (True, False, True) == (before, waiting, pace.may_draw())


def test_a_silent_terminal_is_given_up_after_two_seconds() -> None:
    """Patience is exact, so a lost answer costs two seconds and no more."""
    clock = Clock()
    pace = Pace(clock)
    pace.frame_sent()
    clock.now += PATIENCE_SECONDS - 0.01
    early = pace.may_draw()
    clock.now += 0.01

    assert (False, True) == (early, pace.may_draw())


def test_a_terminal_that_never_answers_is_asked_no_more() -> None:
    """Three questions without an answer end the questions; a late answer starts them again."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(MOST_UNANSWERED):
        pace.frame_sent()
        clock.now += PATIENCE_SECONDS
        pace.may_draw()
    silent = pace.asks
    pace.frame_arrived()

    assert (False, True) == (silent, pace.asks)


class RecordingDriver:
    """Stands in for the terminal's driver."""

    is_headless = False

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, data: str) -> None:
        """Keep what would go over the wire."""
        self.written.append(data)

    def flush(self) -> None:
        """Do nothing."""


def test_the_app_asks_once_for_each_frame_and_skips_ticks_meanwhile() -> None:
    """Ticks between question and answer draw nothing; the answer arrives as an event."""
    drawn: list[int] = []

    async def run() -> list[bool]:
        clock = Clock()
        app = PacedApp(clock=clock)
        async with app.run_test() as pilot:
            app.start_clock(1 / 3600, lambda: drawn.append(len(drawn)))
            real, driver = app._driver, RecordingDriver()
            app._driver = driver  # type: ignore[assignment]
            beats = [app.beat()]
            app.post_display_hook()
            app.post_display_hook()
            beats += [app.beat(), app.beat()]
            app._driver = real
            app.post_message(events.CursorPosition(0, 0))
            await pilot.pause()
            beats.append(app.beat())
            assert [QUESTION] == driver.written
        return beats

    assert [True, False, False, True] == asyncio.run(run())
    assert [0, 1] == drawn


def test_a_frame_without_changes_asks_nothing() -> None:
    """Where Textual writes nothing there is nothing to wait for."""

    async def run() -> list[bool]:
        app = PacedApp(clock=Clock())
        async with app.run_test():
            app.start_clock(1 / 3600, lambda: None)
            return [app.beat(), app.beat()]

    assert [True, True] == asyncio.run(run())


def test_a_stopped_clock_draws_nothing() -> None:
    """After the live screen is left, its data is not drawn any more."""

    async def run() -> bool:
        app = PacedApp(clock=Clock())
        async with app.run_test():
            app.start_clock(1 / 3600, lambda: None)
            app.stop_clock()
            return app.beat()

    assert not asyncio.run(run())


LIVE_APP = """
from textual.widgets import Static
from tui.pace import PacedApp

class Live(PacedApp):
    count = 0
    def compose(self):
        yield Static("start")
    def on_mount(self):
        self.start_clock(20, self.draw)
    def draw(self):
        self.count += 1
        self.query_one(Static).update(f"frame{self.count}.")

Live().run()
"""


@pytest.fixture
def live_terminal() -> Iterator[int]:
    """Run a live app at 20 Hz in a real pseudo-terminal; give the terminal's side."""
    if sys.platform == "win32":
        pytest.skip("no pseudo-terminals")
    import pty

    pid, fd = pty.fork()
    if pid == 0:
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": ":".join(sys.path)}
        os.execve(sys.executable, [sys.executable, "-c", LIVE_APP], environ)  # noqa: S606
    yield fd
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(fd)


def read_until(fd: int, wanted: bytes, seconds: float) -> bytes:
    """Read until the bytes have come or the time is over."""
    seen, end = b"", time.monotonic() + seconds
    while wanted not in seen and (left := end - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            seen += os.read(fd, 65536)
    return seen


def test_a_real_terminal_sets_the_pace(live_terminal: int) -> None:
    """In a pseudo-terminal each frame is followed by one question, and frames wait for answers."""
    question = QUESTION.encode()
    first = read_until(live_terminal, question, 30)
    # 20 ticks a second pass meanwhile; none may draw.
    quiet = read_until(live_terminal, b"frame", 0.5)
    os.write(live_terminal, b"\x1b[1;1R")
    second = read_until(live_terminal, question, 10)

    assert first.index(b"frame1.") < first.index(question)
    assert b"" == quiet
    assert second.index(b"frame") < second.index(question)
