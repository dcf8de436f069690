"""Being asked to stop: at once before training begins, at a step's end during it.

SIGTERM and the requests of people mean the same. Before the first step there is nothing to save, so
a stop interrupts whatever goes on; later it is remembered until the step has ended.
"""

from __future__ import annotations

import os
import signal

from profiles.errors import ExitCode

VERBS = frozenset({"stop", "stop_now"})


class StopEarly(BaseException):  # nothing is wrong
    """Stop now: there is nothing to save, or it has been saved.

    No Exception: libraries that catch those would go on.
    """


class NoStepLeft(Exception):  # noqa: N818  # nothing is wrong
    """The attempt before was killed after its last step: only the end of the run is left to do."""


class StopFlag:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.asked = False
        self.is_late = False
        """All steps are made: a stop has nothing left to spare."""
        self._may_interrupt = True

    def install(self) -> None:
        """Answer SIGTERM from here on; in the main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def wait_for_steps(self) -> None:
        """Training begins: from here on a stop waits for the end of the step."""
        self._may_interrupt = False

    @property
    def may_interrupt(self) -> bool:
        """A stop would be answered at once."""
        return self._may_interrupt

    def raise_from_thread(self) -> None:
        """Stop the main thread as a signal would."""
        os.kill(os.getpid(), signal.SIGTERM)

    def _on_signal(self, _number: int, _frame: object) -> None:
        first, self.asked = not self.asked, True
        if self._may_interrupt and first:
            raise StopEarly
        if not (first or self._may_interrupt):  # the second time means now
            raise SystemExit(ExitCode.STOPPED)
