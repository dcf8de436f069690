"""Which GPUs a run uses: chosen at its start, and again each time it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from profiles.runs import durable
from profiles.runs.rundir import RunDir, read_json


def of(run: RunDir) -> tuple[str, ...]:
    """GPUs by UUID or number; none on a CPU."""
    chosen = read_json(run.devices) or read_json(run.manifest) or {}
    names = chosen.get("devices")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def choose(run: RunDir, names: Sequence[str]) -> None:
    """Use these from the next attempt on; OSError if it cannot be written down."""
    durable.write_json(run.devices, {"devices": list(names)})
