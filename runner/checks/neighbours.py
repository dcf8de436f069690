"""Other runs of this user that train on the same devices: both would be slower."""

from __future__ import annotations

from collections.abc import Sequence

from profiles.runs import devices, listing
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, status

_MOST_RUNS = 50
"""The newest ones; those before them are over."""
_AT_WORK = {State.QUEUED, State.STARTING, State.RUNNING, State.CHECKPOINTING, State.STOPPING}


def warnings(wanted: Sequence[str]) -> list[str]:
    """One for each run at work on one of these GPUs, or on the CPU where none is wanted."""
    at_work = [run for run in listing.all_runs()[:_MOST_RUNS] if status(run).state in _AT_WORK]
    return [text for run in at_work if (text := _warning(run, wanted))]


def _warning(run: RunDir, wanted: Sequence[str]) -> str:
    used = devices.of(run)
    if not wanted and not used:
        return f"{run.id} trains on this CPU too: both take longer than predicted"
    shared = [device for device in wanted if device in used]
    if not shared:
        return ""
    return f"{run.id} trains on GPU {', '.join(shared)} too: both take longer than predicted"
