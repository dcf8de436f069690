"""Which runs there are: the folders under the root that were made for one, or that hold one."""

from __future__ import annotations

import os
from pathlib import Path

from profiles.errors import ExitCode, UserError
from profiles.runs import reading
from profiles.runs.rundir import RunDir, created, has_id, run_root


def all_runs() -> list[RunDir]:
    """Every run under the root that this user may look into, newest first.

    UserError (IO_ERROR) if the root is there and cannot be read.
    """
    mine = (run for run in _found() if os.access(run.path, os.R_OK | os.X_OK))
    return sorted(mine, key=created, reverse=True)


def others() -> list[RunDir]:
    """Runs under the root that this user may not look into."""
    return [run for run in _found() if not os.access(run.path, os.R_OK | os.X_OK)]


def is_at_home(run: RunDir) -> bool:
    """Whether the run is one of those under the root, which are found by their ids."""
    return run.path.parent.resolve() == run_root().resolve() and _is_run(run.id)


def not_listed() -> list[str]:
    """Names of folders under the root that are taken for no run: links, and what holds none."""
    known = {run.id for run in _found()}
    return sorted(
        e.name for e in _entries() if e.name not in known and reading.is_folder(Path(e.path))
    )


def _found() -> list[RunDir]:
    folders = [e.name for e in _entries() if e.is_dir(follow_symlinks=False)]
    return [RunDir(run_root() / name) for name in folders if _is_run(name)]


def _is_run(name: str) -> bool:
    """By its name, or by what it holds: a run may be renamed. No option, no other lines of text."""
    if has_id(name):
        return True
    is_named = name.isprintable() and name[0] not in "-."
    return is_named and reading.is_file(run_root() / name / "run.json")


def is_empty(run: RunDir) -> bool:
    """Nothing in its folder tells of a run; so it is too while a launcher makes the folders."""
    told = (run.manifest, run.attempt_file, run.claims, run.supervisor_events, run.exit)
    return not any(os.path.lexists(path) for path in told)


def _entries() -> list[os.DirEntry[str]]:
    """What lies under the root, but for what is hidden; nothing where there is no root."""
    root = run_root()
    try:
        return [entry for entry in os.scandir(root) if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"the runs cannot be listed: {error.strerror}",
            why="the directory of all runs is there, and cannot be read",
            do="make it readable for this user, or set TUNEDECK_HOME to a place that is",
            where=str(root),
            code=ExitCode.IO_ERROR,
        ) from error
