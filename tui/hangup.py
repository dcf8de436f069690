"""Ends the app when its terminal is gone: SIGHUP, or a tty that answers with an error.

Textual 8 has no handler for SIGHUP; where the signal is ignored (nohup) its input thread spins on
a dead tty, and its writer's full queue blocks the event loop. So the app is asked to leave, and
three seconds later the process ends whether it did or not. The run never notices: it holds nothing
of ours.
"""

from __future__ import annotations

import os
import signal
import termios
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EXIT_CODE = 128 + signal.SIGHUP
_GRACE_SECONDS = 3.0
_LOOK_SECONDS = 1.0


def watch(leave: Callable[[], None], fd: int = 0) -> None:
    """Call `leave`, from any thread, when the terminal at `fd` is gone; then force it."""
    asked = threading.Event()

    def go() -> None:
        if asked.is_set():
            return
        asked.set()
        force = threading.Timer(_GRACE_SECONDS, os._exit, [EXIT_CODE])
        force.daemon = True
        force.start()
        leave()

    def look() -> None:
        while not asked.is_set():
            time.sleep(_LOOK_SECONDS)
            if not is_there(fd):
                go()

    signal.signal(signal.SIGHUP, lambda _number, _frame: go())
    threading.Thread(target=look, daemon=True, name="hangup").start()


def is_there(fd: int) -> bool:
    """Whether a terminal is still behind this file descriptor."""
    try:
        termios.tcgetattr(fd)
    except (termios.error, OSError):
        return False
    return True
