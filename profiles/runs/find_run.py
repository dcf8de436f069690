"""Which run a person means: an id, a unique part of one, or a path."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from profiles.errors import ExitCode, UserError
from profiles.quantities import some_of
from profiles.runs import listing, reading, rundir
from profiles.runs.rundir import RunDir


def find(text: str | None) -> RunDir:
    """The run with this id, a unique part of an id, or a path; the newest for None.

    Of folders that hold no run the newest is taken only where there is nothing else.
    UserError (NO_INPUT) where that is no run or several, REFUSED where it is another user's.
    """
    if text and (given := _by_path(Path(text))):
        return given
    runs = listing.all_runs()
    matches = sorted(runs, key=listing.is_empty)
    if text is not None:
        matches = [r for r in runs if text in r.id]
    exact = [r for r in matches if r.id == text]
    if exact or len(matches) == 1 or (matches and text is None):
        return (exact or matches)[0]
    if text and not matches:
        closed = [run for run in listing.others() if text in run.id]
        if closed:
            raise _closed(closed[0])
        if "/" in text:
            raise _no_run_there(Path(text))
    raise _unclear(text, runs, matches)


def _by_path(folder: Path) -> RunDir | None:
    """The run in a folder; what its manifest is worth, the run's status says."""
    if not reading.is_folder(folder):
        return None
    run = RunDir(folder.resolve())
    is_run = os.path.lexists(run.manifest) or listing.is_at_home(run)
    is_open = os.access(run.path, os.R_OK | os.X_OK)
    if not is_open and (is_run or "/" in str(folder)):
        raise _closed(run)
    return run if is_run else None


def _closed(run: RunDir) -> UserError:
    uid, owner = run.path.stat().st_uid, rundir.owner(run)
    return UserError(
        f"this user may not look into {run.id}",
        why="its permissions are closed" if uid == os.getuid() else f"it belongs to {owner}",
        do=f"open it with chmod u+rwx {run.path}" if uid == os.getuid() else f"ask {owner}",
        where=str(run.path),
        code=ExitCode.REFUSED,
    )


def _no_run_there(folder: Path) -> UserError:
    is_there = reading.is_folder(folder)
    return UserError(
        f"{str(folder)!r} is no run directory",
        why="it holds no run.json" if is_there else "there is no such folder",
        do="give a folder that holds run.json, or an id: `advisor runs` lists them",
        where=str(folder.absolute()),
        code=ExitCode.NO_INPUT,
    )


def _unclear(text: str | None, runs: list[RunDir], matches: list[RunDir]) -> UserError:
    """No run, or more than one."""
    if not runs:
        what, why = "there are no runs yet", "no run directory was found"
        do = "start one with `advisor run RECIPE`; `advisor demo` makes one in two minutes"
    else:
        what = f"{text!r} fits {len(matches)} runs" if matches else f"no run is called {text!r}"
        near = difflib.get_close_matches(text or "", [r.id for r in runs], cutoff=0.3)
        shown = near if near and not matches else [r.id for r in matches or runs]
        kind = "ids that fit" if matches else "ids like it" if near else "the newest runs are"
        why, do = f"{kind}: {some_of(shown)}", "give one of these; `advisor runs` lists them all"
    return UserError(what, why=why, do=do, where=str(rundir.run_root()), code=ExitCode.NO_INPUT)
