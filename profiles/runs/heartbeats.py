"""The hearts of a run's two processes: that they beat, and what the worker's says it does."""

from __future__ import annotations

import contextlib
import time
from typing import NamedTuple

from profiles.runs import reading
from profiles.runs.rundir import RunDir

_BEATING_SECONDS = 10.0
"""Hearts beat every two seconds."""


class Beat(NamedTuple):
    """What the worker's heartbeat says; zeros if there is none."""

    counter: int = 0
    step: int = 0
    phase: str = ""
    """What is being done: loading, tokenising, evaluating, training..."""
    done: int = 0
    """Of the phase: rows, batches or answers."""
    total: int = 0
    """How many there will be; 0 if nobody knows."""

    @property
    def words(self) -> str:
        """Like "tokenising 300/999"."""
        return f"{self.phase} {self.done}/{self.total}" if self.total else self.phase


def of_worker(run: RunDir) -> Beat:
    """The newest beat; versions before this one wrote no counts."""
    try:
        counter, step, phase, *counts = reading.text(run.worker_heartbeat).split()
        done, total = map(reading.whole_of, counts[:2]) if counts else (0, 0)
        return Beat(reading.whole_of(counter), reading.whole_of(step), phase, done, total)
    except (OSError, ValueError):
        return Beat()


def is_beating(run: RunDir) -> bool:
    """One of the two hearts beat a moment ago; a second opinion where there are no locks."""
    return any(abs(time.time() - at) < _BEATING_SECONDS for at in times(run))


def times(run: RunDir) -> list[float]:
    """Unix times of the last beats."""
    found = []
    for path in (run.supervisor_heartbeat, run.worker_heartbeat):
        with contextlib.suppress(OSError):
            found.append(path.stat().st_mtime)
    return found
