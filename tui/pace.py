"""The one clock of the live screen: how often it draws, and that it never floods a slow link.

After each frame the terminal is asked for its cursor position (`ESC[6n`). The answer can arrive
only after the frame has gone through the link, so data frames wait for it, and the frame rate
follows the link by itself. A terminal that never answers is not waited for. All private use of
Textual is in this file: `App._driver`, the hook behind each written frame, and that the
answer comes back as `events.CursorPosition`, which Textual itself uses only for inline apps.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from textual.app import App

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events
    from textual.timer import Timer

QUESTION = "\x1b[6n"
PATIENCE_SECONDS = 2.0
MOST_UNANSWERED = 3
"""Questions in a row without an answer after which no more are asked."""


class Pace:
    """Whether the next data frame may be drawn."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._asked_at: float | None = None
        self._num_unanswered = 0
        self._open_questions: deque[float] = deque(maxlen=MOST_UNANSWERED)
        self.is_behind = False
        """The newest frame that arrived took longer than the patience."""

    @property
    def asks(self) -> bool:
        """Whether this terminal is worth asking; a late answer makes it so again."""
        return self._num_unanswered < MOST_UNANSWERED

    def may_draw(self) -> bool:
        """Say whether the last frame has arrived, or was waited for long enough."""
        if self._asked_at is None:
            return True
        if self._clock() - self._asked_at < PATIENCE_SECONDS:
            return False
        self._asked_at = None
        self._num_unanswered += 1
        return True

    def frame_drawn(self) -> None:
        """Start waiting."""
        if self.asks:
            self._asked_at = self._clock()
            self._open_questions.append(self._asked_at)

    def nothing_written(self) -> None:
        """Stop waiting: the frame changed nothing, or there is no terminal to ask."""
        if self._asked_at is not None:
            self._open_questions.pop()
        self._asked_at = None

    def frame_arrived(self) -> None:
        """Stop waiting: the terminal has answered, the oldest question first."""
        if self._open_questions:
            took = self._clock() - self._open_questions.popleft()
            self.is_behind = took > PATIENCE_SECONDS
        self._asked_at = None
        self._num_unanswered = 0


class PacedApp(App[int]):
    """An app whose data is drawn by one paced clock."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self.pace = Pace(clock)
        self._draw_data: Callable[[], None] | None = None
        self._beats: Timer | None = None
        self._num_displays = 0

    def start_clock(self, ticks_per_second: float, draw_data: Callable[[], None]) -> None:
        """Call `draw_data` at this rate, inside one batch, whenever the link has kept up."""
        self.stop_clock()
        self._draw_data = draw_data
        self._beats = self.set_interval(1 / ticks_per_second, self.beat)

    def stop_clock(self) -> None:
        """Draw no more data."""
        if self._beats is not None:
            self._beats.stop()
        self._draw_data = None

    def beat(self) -> bool:
        """Draw one frame of data if the link is free; say whether it was."""
        if self._draw_data is None or not self.pace.may_draw():
            return False
        with self.batch_update():
            self._draw_data()
        if self.pace.asks:
            self.pace.frame_drawn()
            before = self._num_displays
            # The first round may end before the drawn widgets have told the screen that they
            # changed; the second cannot.
            self.call_after_refresh(self.call_after_refresh, self._ask, before)
        return True

    def post_display_hook(self) -> None:
        """Count what Textual writes."""
        super().post_display_hook()
        self._num_displays += 1

    def _ask(self, num_displays_before: int) -> None:
        driver = self._driver
        if driver is None or driver.is_headless or self._num_displays == num_displays_before:
            self.pace.nothing_written()
            return
        driver.write(QUESTION)
        driver.flush()

    def on_cursor_position(self, event: events.CursorPosition) -> None:
        """Take the terminal's answer."""
        event.stop()
        self.pace.frame_arrived()
