"""Processes of a run that outlive it: data loader workers, ranks of a launcher that was killed.

Every process of a run carries the run's id in its environment, whatever process group or session
it went to. Only processes of this user with that mark are ever meant, and they are signalled by
identity, never by a pid alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from profiles.runs import identity, processes
from profiles.runs.identity import Identity
from profiles.runs.rundir import RunDir

_UNKILLABLE = "D"
_POLL_SECONDS = 0.05
_END_SECONDS = 5.0
"""A process without a hold in the kernel is gone in milliseconds; one in a driver may never be."""


def end(run: RunDir) -> tuple[list[Identity], list[Identity]]:
    """SIGKILL what is left of a run that is over: (those that ended, those that did not)."""
    found = processes.marked(run)
    left = end_all(lambda: [who for who in processes.marked(run) if who.is_alive])
    return [who for who in found if who not in left], left


def end_all(living: Callable[[], Iterable[Identity]]) -> list[Identity]:
    """SIGKILL until none lives or 5 s have passed; returns those that are left.

    `living` is asked again each time: what is killed may have been starting another one.
    """
    deadline = time.monotonic() + _END_SECONDS
    while left := list(living()):
        for who in left:
            identity.send_signal(who, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    return left


def reap_children(seconds: float) -> list[Identity]:
    """End and reap all children of this process, a subreaper; returns those that did not end.

    They are ours and unreaped, so their pids are surely theirs. One stuck in a driver is left
    behind after `seconds`: waiting for it has no end (pytorch#185414).
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if pid == 0:
            for child in _children():
                os.kill(child, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
    found = [identity.of_process(pid) for pid in _children()]
    return [who for who in found if who is not None]


def _children() -> list[int]:
    """Our children, the adopted ones too: ranks that torchrun left, data loader workers."""
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    except OSError:
        return []


def stuck(left: Iterable[Identity], letter: Callable[[int], str] = identity.state_of) -> list[str]:
    """Words for processes that SIGKILL did not end; `letter` gives the kernel's state of a pid."""
    return [
        f"process {who.pid} is stuck in the driver; the host may need a reboot"
        if letter(who.pid) == _UNKILLABLE
        else f"process {who.pid} did not end"
        for who in left
    ]
