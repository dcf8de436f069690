"""The newest thing that a person should know while a run lives, from its records.

Pure: looks at no file and no process. What a record says of itself stands with its class.
"""

from __future__ import annotations

from collections.abc import Sequence

from profiles.quantities import count_text, some_of
from profiles.runs.identity import Identity
from profiles.runs.records import Record

SUPERVISOR_LOST = "the supervisor was lost; the run goes on"
ENDING = "the worker has ended; how it ended is being written down"
DISK_FULL = "the disk of the run directory is full: records wait in memory for room"
HELD = "a process that cannot be seen from here holds its lock; look where it was started"


_MOST_PIDS = 8


def holding(left: Sequence[Identity]) -> str:
    """Which processes still hold a run whose training is dead."""
    shown = some_of([str(who.pid) for who in left], _MOST_PIDS)
    are = "1 leftover process holds" if len(left) == 1 else f"{len(left)} leftover processes hold"
    return f"{are} the run (pids {shown})"


def newest(events: Sequence[Record]) -> str:
    """The newest notice that still holds; "" if there is none. `events` are in order of time."""
    over: set[str] = set()
    for event in reversed(events):
        if event.notice and event.kind not in over:
            return event.notice
        over.add(event.ends)
    return ""


def passed_over(num_damaged: int) -> str:
    """That records of the run could not be read; "" if all could."""
    if not num_damaged:
        return ""
    return f"{count_text(num_damaged)} damaged record{'s' * (num_damaged > 1)} passed over"
