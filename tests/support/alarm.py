"""A limit for what must end, however slow the machine: far above what it takes."""

from __future__ import annotations

import signal
from contextlib import contextmanager


class _RingError(BaseException):
    """No error that code survives, as it may survive a TimeoutError."""


@contextmanager
def alarm(seconds):
    """AssertionError for what takes longer; only in the main thread."""

    def ring(*_):
        raise _RingError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    except _RingError:
        raise AssertionError(f"not done after {seconds} s") from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
