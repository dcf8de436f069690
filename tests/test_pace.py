"""The clock of the live screen: waits for the terminal, but not for ever."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from textual import events
from textual.drivers.headless_driver import HeadlessDriver
from textual.widgets import Static

from tui.pace import MOST_UNANSWERED, PATIENCE_SECONDS, QUESTION, Pace, PacedApp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.app import ComposeResult
    from textual.pilot import Pilot


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
    pace.frame_drawn()
    waiting = pace.may_draw()
    pace.frame_arrived()

    assert (True, False, True) == (before, waiting, pace.may_draw())


def test_a_silent_terminal_is_given_up_after_two_seconds() -> None:
    """Patience is exact, so a lost answer costs two seconds and no more."""
    clock = Clock()
    pace = Pace(clock)
    pace.frame_drawn()
    clock.now += PATIENCE_SECONDS - 0.01
    early = pace.may_draw()
    clock.now += 0.01

    assert (False, True) == (early, pace.may_draw())


def test_a_slow_link_is_known_by_its_late_answers() -> None:
    """Late ones say that the display is behind, a quick one that it is not any more."""
    clock = Clock()
    pace = Pace(clock)
    behind = []
    for seconds in (0.1, 2.5, 0.1):
        pace.frame_drawn()
        clock.now += seconds
        pace.may_draw()
        pace.frame_arrived()
        behind.append(pace.is_behind)

    assert [False, True, False] == behind


def test_a_terminal_that_never_answers_is_asked_no_more() -> None:
    """Three questions without an answer end the questions; a late answer starts them again."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(MOST_UNANSWERED):
        pace.frame_drawn()
        clock.now += PATIENCE_SECONDS
        pace.may_draw()
    silent = pace.asks
    pace.frame_arrived()

    assert (False, True) == (silent, pace.asks)


class RecordingDriver(HeadlessDriver):
    """Stands in for a real terminal's driver."""

    is_headless = False

    def __init__(self, app: PacedApp) -> None:
        super().__init__(app)
        self.written: list[str] = []

    def write(self, data: str) -> None:
        """Keep what would go over the wire."""
        self.written.append(data)


async def settled(pilot: Pilot[int]) -> None:
    """Let everything that is under way reach the screen."""
    for _ in range(50):
        await pilot.pause()


class Counting(PacedApp):
    """Shows how often it was drawn."""

    num_frames = 0

    def compose(self) -> ComposeResult:
        """Mount the number."""
        yield Static("frame0")

    def draw(self) -> None:
        """Change the screen."""
        self.num_frames += 1
        self.query_one(Static).update(f"frame{self.num_frames}")


def test_the_app_asks_once_for_each_frame_and_skips_ticks_meanwhile() -> None:
    """The question follows the frame; ticks before the answer, which is an event, draw nothing."""
    written: list[str] = []

    async def run() -> list[bool]:
        app = Counting(clock=Clock())
        async with app.run_test() as pilot:
            app.start_clock(1 / 3600, app.draw)
            real, driver = app._driver, RecordingDriver(app)
            app._driver = driver
            beats = [app.beat()]
            await settled(pilot)
            beats += [app.beat(), app.beat()]
            app.post_message(events.CursorPosition(0, 0))
            await pilot.pause()
            app._driver = real
            written.extend(driver.written)
            beats.append(app.beat())
        return beats

    assert [True, False, False, True] == asyncio.run(run())
    assert [QUESTION] == [data for data in written if data == QUESTION]
    assert "frame1" in "".join(written[: written.index(QUESTION)])


def test_a_frame_without_changes_asks_nothing() -> None:
    """Where Textual writes nothing there is nothing to wait for."""

    async def run() -> list[bool]:
        app = PacedApp(clock=Clock())
        async with app.run_test() as pilot:
            await settled(pilot)
            app._driver, real = RecordingDriver(app), app._driver
            app.start_clock(1 / 3600, lambda: None)
            beats = [app.beat()]
            await settled(pilot)
            app._driver = real
            return [*beats, app.beat()]

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


def test_a_new_clock_takes_the_place_of_the_old_one() -> None:
    """The old one's beats would draw the new one's data."""

    async def run() -> int:
        app, drawn = PacedApp(), []
        async with app.run_test() as pilot:
            app.start_clock(200, lambda: None)
            app.start_clock(1 / 3600, lambda: drawn.append(1))
            await pilot.pause(0.2)
            return len(drawn)

    assert 0 == asyncio.run(run())


def test_nobody_is_asked_where_there_is_no_terminal() -> None:
    """Nothing would answer, and every frame would wait out its patience."""

    async def run() -> list[bool]:
        app = Counting(clock=Clock())
        async with app.run_test() as pilot:
            app.start_clock(1 / 3600, app.draw)
            beats = []
            for _ in range(3):
                beats.append(app.beat())
                await settled(pilot)
            app._driver, real = None, app._driver
            app.draw()
            app.pace.frame_drawn()
            app._ask(-1)
            beats.append(app.pace.may_draw())
            app._driver = real
            return beats

    assert [True, True, True, True] == asyncio.run(run())


def test_what_nobody_waits_for_can_arrive_or_not_be_written() -> None:
    """An answer without a question, and a frame without one, change nothing."""
    pace = Pace(Clock())
    pace.frame_arrived()
    pace.nothing_written()

    assert (True, True, False) == (pace.may_draw(), pace.asks, pace.is_behind)


def test_answers_belong_to_the_oldest_open_question() -> None:
    """The first of two late ones is later than the second."""
    clock = Clock()
    pace = Pace(clock)
    pace.frame_drawn()
    clock.now += PATIENCE_SECONDS
    pace.may_draw()
    pace.frame_drawn()
    clock.now += 0.5
    pace.frame_arrived()
    late = pace.is_behind
    pace.frame_arrived()

    assert (True, False) == (late, pace.is_behind)


def test_a_frame_that_wrote_nothing_leaves_no_open_question() -> None:
    """The next answer is for the next question."""
    clock = Clock()
    pace = Pace(clock)
    pace.frame_drawn()
    pace.nothing_written()
    clock.now += 100
    pace.frame_drawn()
    pace.frame_arrived()

    assert not pace.is_behind


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

    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": ":".join(sys.path)}
    app = subprocess.Popen(
        [sys.executable, "-c", LIVE_APP],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    yield ours
    app.kill()
    app.wait()
    os.close(ours)


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
    # 20 ticks a second pass meanwhile; none may draw. (Textual may still repaint frame 1.)
    quiet = read_until(live_terminal, b"frame2", 0.5)
    os.write(live_terminal, b"\x1b[1;1R")
    second = read_until(live_terminal, question, 10)

    assert first.index(b"frame1.") < first.index(question)
    assert b"frame2" not in quiet
    assert second.index(b"frame2.") < second.index(question)
