"""The newest thing that a person should know while a run lives, from its events.

Pure: decides about words, looks at no file and no process.
"""

from __future__ import annotations

from collections.abc import Sequence

from profiles.runs.journal import Record

SUPERVISOR_LOST = "the supervisor was lost; the run goes on"
ENDING = "the worker has ended; how it ended is being written down"
DISK_FULL = "the disk of the run directory is full: records wait in memory for room"
LEFTOVERS = "leftover processes hold it: `advisor stop --now` ends them"

_WORDS = {
    "paused": "paused at step {step}",
    "guard": "step {step}: {fault}",
    "stalled": "alive, but no step since step {step}",
    "oom": "out of memory at step {step}: goes on with a smaller batch",
    "unresponsive": "the worker does not answer; where it stands is in {where}",
    "stop_escalated": "the stop was not answered; the worker got a signal",
    "restarted": "restarted in a clean process ({number} of {of})",
}
"""What is said when the event brings no words of its own under `what`."""
_ENDED_BY = {
    "unpaused": "paused",
    "progressing": "stalled",
    "responsive": "unresponsive",
}


def newest(events: Sequence[Record]) -> str:
    """The newest notice that still holds; "" if there is none. `events` are in order of time."""
    over: set[str] = set()
    for event in reversed(events):
        kind = str(event.get("kind"))
        if kind in _WORDS and kind not in over:
            return _text(kind, event)
        over.add(_ENDED_BY.get(kind, ""))
    return ""


def _text(kind: str, event: Record) -> str:
    told = event.get("what")
    if isinstance(told, str) and told:
        return told
    return _WORDS[kind].format_map(_Blank(event))


class _Blank(dict[str, object]):
    """A field that the record lacks is left out of the sentence."""

    def __missing__(self, key: str) -> str:
        return "?"
