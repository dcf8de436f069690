"""What a person should know of a run's directory itself, whatever the run does."""

from __future__ import annotations

import os

from profiles.errors import ExitCode, UserError
from profiles.runs import advice, copies, parts, reading
from profiles.runs.rundir import RunDir, read_json


def of(run: RunDir) -> list[str]:
    """One phrase for each, none if all is as it should be."""
    made = copies.original(run)
    copied = [] if made is None else [f"copy of {advice.name_of(made)}"]
    return [*copied, *unreadable(run), *_manifest(run)]


def unreadable(run: RunDir) -> list[str]:
    """Files of the run that are no regular ones, so nobody reads them, now or later."""
    journals = (run.supervisor_events, run.worker_events, run.metrics)
    single = (run.manifest, run.recipe, run.attempt_file, run.processes, run.exit)
    files = [*single, *(part for path in journals for part in parts.existing(path))]
    faults = {path.name: reading.irregular(path) for path in files}
    return [f"{name} cannot be read: {fault}" for name, fault in faults.items() if fault]


def refuse_without_manifest(run: RunDir, to_do: str) -> None:
    """UserError for what needs to know where the run's data and model lie, if nothing tells it."""
    if read_json(run.manifest) is not None:
        return
    fault = reading.irregular(run.manifest)
    raise UserError(
        f"cannot {to_do}: {run.manifest.name} cannot be read",
        why=f"{fault or 'it is missing or damaged'}; it tells where the run's data and model lie",
        do=advice.of_damaged(run),
        where=str(run.manifest),
        code=ExitCode.BAD_DATA,
    )


def _manifest(run: RunDir) -> list[str]:
    if reading.irregular(run.manifest) or read_json(run.manifest) is not None:
        return []
    fault = "damaged" if os.path.lexists(run.manifest) else "missing"
    return [f"{run.manifest.name} is {fault}, so where its data and model lie is not known"]
