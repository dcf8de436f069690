"""When a person last looked at each run, so that a reconnect can tell what happened meanwhile.

Kept in the home: the run directory belongs to the run. A lost or damaged file costs one sentence.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from profiles import installation
from profiles.quantities import count_text, duration_text
from profiles.runs import durable, reading, rundir

_MOST_RUNS = 50
_LEAST_AWAY_SECONDS = 60.0


class Look(NamedTuple):
    """What was on the screen."""

    unix_seconds: float
    step: int


def _file() -> Path:
    return installation.home() / "seen.json"


def last_look(run_id: str) -> Look | None:
    """The newest look at a run, None if there was none."""
    return _looks().get(run_id)


def remember(run_id: str, look: Look) -> None:
    """Keep a look; a home that cannot be written to is no reason to say anything."""
    looks = _looks() | {run_id: look}
    newest = sorted(looks.items(), key=lambda item: item[1].unix_seconds)[-_MOST_RUNS:]
    with suppress(OSError):
        durable.write_json(_file(), {name: list(kept) for name, kept in newest})


def _looks() -> dict[str, Look]:
    looks = {}
    for run_id, kept in (rundir.read_json(_file()) or {}).items():
        known = dict(zip(Look._fields, kept, strict=False)) if isinstance(kept, list) else {}
        unix_seconds = reading.number(known, "unix_seconds")
        if unix_seconds is not None and "step" in known:
            looks[run_id] = Look(unix_seconds, reading.whole(known, "step"))
    return looks


def while_away(before: Look | None, now: Look) -> str:
    """The sentence for a run that worked on unwatched; empty if there is nothing to tell."""
    if before is None or now.step <= before.step:
        return ""
    away = now.unix_seconds - before.unix_seconds
    if away < _LEAST_AWAY_SECONDS:
        return ""
    steps = f"steps {count_text(before.step)} -> {count_text(now.step)}"
    return f"kept running while you were away ({duration_text(away)}, {steps})"
