"""What the supervisor does when a live worker does not answer: little, and never unasked.

A stop that is not answered is repeated as a signal, a "stop now" becomes a kill. A worker without a
heartbeat is asked where it stands, and left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

from profiles.runs import heartbeats, identity, processes
from profiles.runs.identity import Identity
from profiles.runs.journal import Journal, read_all
from profiles.runs.records.supervisor import (
    Responsive,
    StopEscalated,
    StopForced,
    Unresponsive,
)
from profiles.runs.records.worker import Checkpoint
from profiles.runs.rundir import RunDir
from runner.supervision import control

STOP_GRACE_SECONDS = 120.0
"""Beside the time that the last checkpoint took: a stop ends with one."""
FORCE_AFTER_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""The worker beats every two seconds."""


def trainer_of(run: RunDir) -> Identity | None:
    """The first training process; None while it is unknown or cannot be read."""
    try:
        return processes.of_run(run).trainer
    except OSError:
        return None


class Escalation:
    """Watches the requests for one attempt; `kill` ends the worker by force."""

    def __init__(
        self, run: RunDir, attempt: int, events: Journal, kill: Callable[[], None]
    ) -> None:
        self.forced = False
        self._run = run
        self._attempt = attempt
        self._events = events
        self._kill = kill
        self._since: dict[str, float] = {}
        self._escalated = False

    def look(self, worker_pid: int) -> None:
        """Act on what was asked for and not answered in time."""
        mine = (r for r in control.waiting(self._run) if r.attempt == self._attempt)
        asked = {r.verb for r in mine}
        now = time.monotonic()
        self._since = {v: self._since.get(v, now) for v in control.STOPS if v in asked}
        waited = {verb: now - since for verb, since in self._since.items()}
        if waited.get("stop_now", 0.0) > FORCE_AFTER_SECONDS and not self.forced:
            self.forced = True
            self._events.append(StopForced(signal="SIGKILL"))
            self._kill()
        if waited.get("stop", 0.0) > STOP_GRACE_SECONDS and not self._escalated:
            self._repeat_stop(worker_pid, waited["stop"])

    def _repeat_stop(self, worker_pid: int, waited_seconds: float) -> None:
        """One SIGTERM, which means stop, to the trainer; torchrun would give it 30 s, then kill."""
        if waited_seconds <= STOP_GRACE_SECONDS + _last_save_seconds(self._run):
            return
        self._escalated = True
        trainer = trainer_of(self._run)
        self._events.append(StopEscalated(signal="SIGTERM", seconds=round(waited_seconds)))
        if trainer is None or not identity.send_signal(trainer, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker_pid, signal.SIGTERM)  # our own unreaped child: surely its pid


def _last_save_seconds(run: RunDir) -> float:
    saved = [e.seconds for e in read_all(run.worker_events) if isinstance(e, Checkpoint)]
    return saved[-1] if saved else 0.0


class Pulse:
    """Watches the worker's heartbeat: the counter against our own clock, never a file's time."""

    def __init__(self, run: RunDir, events: Journal) -> None:
        self._run = run
        self._events = events
        self._counter = 0
        self._moved = time.monotonic()
        self._is_silent = False

    def look(self) -> None:
        """Tell when it stops and when it goes on; ask once for the stacks of a silent worker."""
        counter = heartbeats.of_worker(self._run).counter
        now = time.monotonic()
        if counter != self._counter:
            self._counter, self._moved = counter, now
            if self._is_silent:
                self._is_silent = False
                self._events.append(Responsive())
        elif counter and now - self._moved > SILENT_SECONDS and not self._is_silent:
            self._is_silent = True
            self._ask_where_it_stands(now - self._moved)

    def _ask_where_it_stands(self, seconds: float) -> None:
        what = f"the worker has given no sign for {seconds:.0f} s"
        trainer = trainer_of(self._run)
        # Without a handler SIGUSR2 would end the process
        asked = (
            trainer is not None
            and identity.catches(trainer, signal.SIGUSR2)
            and identity.send_signal(trainer, signal.SIGUSR2)
        )
        where = f"; where it stands is in {self._run.stacks}" if asked else ""
        self._events.append(Unresponsive(seconds=round(seconds), what=what + where))
