"""Whether a run directory is a copy of another one."""

from __future__ import annotations

import contextlib

from profiles.runs import reading
from profiles.runs.rundir import RunDir, read_json


def moved(run: RunDir) -> str:
    """That a run is no longer where it was made, and what that means; "" if it is, or may be."""
    made = reading.place(read_json(run.manifest) or {}, "path")
    if made is None or reading.is_folder(made):
        return ""
    return f"moved from {made}: a run that is moved while it works ends"


def original(run: RunDir) -> RunDir | None:
    """The run that this one is a copy of: where it was made, and still is.

    None for the run itself, also where it was moved or is seen by another path.
    """
    manifest = read_json(run.manifest) or {}
    made = reading.place(manifest, "path")
    if made is None:
        return None
    there = RunDir(made)
    with contextlib.suppress(OSError):
        if there.path.samefile(run.path) or not there.path.is_dir():
            return None
        same = (read_json(there.manifest) or {}).get("id") == manifest.get("id")
        return there if same else None
    return None
