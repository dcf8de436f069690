"""Runs and their states as lines."""

from __future__ import annotations

import time

from profiles.quantities import duration_text
from profiles.runs.rundir import RunDir
from profiles.runs.state import Status
from tui.pages.result import short
from tui.plain import table
from tui.terminal import clean


def runs(found: list[tuple[RunDir, Status]]) -> list[str]:
    """One row a run, newest first, then what a person should know of those that live."""
    header = ("run", "state", "step", "model", "last record")
    rows = [(r.id, s.state, progress(s), short(s.result), f"{_ago(s)} ago") for r, s in found]
    told = [f"! {r.id}: {clean(s.notice, 300)}" for r, s in found if s.notice]
    return [*table(rows, header=header), *told]


def progress(status: Status) -> str:
    """Like "431/1000"."""
    return f"{status.step}/{status.num_steps}" if status.num_steps else str(status.step)


def _ago(status: Status) -> str:
    return duration_text(max(0.0, time.time() - status.since))
