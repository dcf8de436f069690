"""A limit for what must end, however slow the machine: far above what it takes."""

from __future__ import annotations

import signal
from contextlib import contextmanager


@contextmanager
def alarm(seconds):
    """TimeoutError in what takes longer; only in the main thread."""

    def ring(*_):
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
