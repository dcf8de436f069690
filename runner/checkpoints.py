"""Checkpoints: staged, listed in a manifest, committed by a rename.

A directory named `step-NNNNNNNN` is complete by construction; whether its bytes still are what was
written, `verify` says. Order is by step, never by a clock. Knows nothing of torch or of what the
files mean.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.runs import durable, reading
from profiles.runs.rundir import RunDir, read_json

MANIFEST = "MANIFEST.json"
_SCHEMA = 1
_MOST_STEPS = 10**8
"""What a name has room for."""
_FEWEST_KEPT = 2
"""The newest may be damaged when it is needed, so there is always one before it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint."""

    path: Path
    step: int


@dataclass(frozen=True, slots=True)
class Best(Checkpoint):
    """The checkpoint with the lowest evaluation loss."""

    loss: float


def stage(run: RunDir, step: int) -> Path:
    """A fresh directory to write a checkpoint into; readers never look there."""
    path = durable.beside(run.checkpoints / f"{step:08d}", durable.STAGING_PREFIX)
    durable.disk.mkdir(path)
    return path


def seal(folder: Path, **facts: Any) -> None:
    """Write the manifest: size and sha256 of every file, and `facts` about the moment."""
    files = {}
    for path in sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names):
        files[str(path.relative_to(folder))] = {
            "bytes": path.stat().st_size,
            "sha256": _fresh_hash(path),
        }
    durable.write_json(
        folder / MANIFEST, {"schema": _SCHEMA, "t": time.time(), **facts, "files": files}
    )


def commit(run: RunDir, staging: Path, step: int, **facts: Any) -> Checkpoint:
    """Seal what is staged and give it its final name; the step's older checkpoint is replaced.

    OSError: the staging is gone, and nothing was committed. A file that the device did not confirm
    counts as lost, and so does the whole checkpoint.
    """
    final = run.checkpoints / f"step-{step:08d}"
    try:
        seal(staging, step=step, **facts)
        durable.publish_dir(staging, final)
    except OSError:
        with suppress(OSError):  # half a checkpoint fills the disk
            durable.remove_tree(staging, inside=run.path)
        raise
    return Checkpoint(final, step)


def verify(folder: Path) -> str | None:
    """None if every file is as its manifest says, else what is wrong. Reads every byte."""
    return _fault(folder, _fresh_hash)


def _fault(folder: Path, hasher: Callable[[Path], str]) -> str | None:
    files = (read_json(folder / MANIFEST) or {}).get("files")
    if not isinstance(files, dict) or not all(isinstance(f, dict) for f in files.values()):
        return "its manifest is missing or damaged"
    for name in sorted(_names_in(folder) - {MANIFEST, *files}):
        return f"{name} is not in its manifest"  # a library would load what was put there
    faults = (_file_fault(folder / name, name, files[name], hasher) for name in files)
    return next(filter(None, faults), None)


def _names_in(folder: Path) -> set[str]:
    """Everything there but folders, and what NFS keeps of files that somebody still has open."""
    found = (p for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())
    return {str(p.relative_to(folder)) for p in found if not p.name.startswith(".nfs")}


def _file_fault(
    path: Path, name: str, expected: dict[str, Any], hasher: Callable[[Path], str]
) -> str | None:
    if not reading.is_file(path):
        return f"{name} is missing"
    try:
        size = path.stat().st_size
        if size != expected.get("bytes"):
            return f"{name} has {size} bytes, written were {expected.get('bytes')}"
        is_same = hasher(path) == expected.get("sha256")
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return None if is_same else f"the content of {name} changed since it was written"


def committed(run: RunDir) -> list[Checkpoint]:
    """Checkpoints under final names, newest step first; none if the directory cannot be read."""
    try:
        names = os.listdir(run.checkpoints)  # noqa: PTH208  # names are all that is wanted
    except OSError:
        return []
    steps = [int(n.removeprefix("step-")) for n in names if re.fullmatch(r"step-[0-9]{8}", n)]
    return [of_step(run, step) for step in sorted(steps, reverse=True)]


def of_step(run: RunDir, step: int) -> Checkpoint:
    """The checkpoint of a step under its final name, whether it is there or not."""
    return Checkpoint(run.checkpoints / f"step-{step:08d}", step)


def newest_sound(run: RunDir) -> tuple[Checkpoint | None, dict[Checkpoint, str]]:
    """The newest checkpoint that verifies, and what is wrong with each newer one."""
    faults: dict[Checkpoint, str] = {}
    for checkpoint in committed(run):
        fault = verify(checkpoint.path)
        if fault is None:
            return checkpoint, faults
        faults[checkpoint] = fault
    return None, faults


def set_aside(checkpoint: Checkpoint) -> Path:
    """Keep a checkpoint for a person to look at, but count it no longer; returns where it is."""
    aside = durable.beside(checkpoint.path, "bad-")
    durable.disk.rename(checkpoint.path, aside)
    durable.sync_dir(aside.parent)
    return aside


def mark_best(run: RunDir, step: int, loss: float) -> None:
    """Remember the step with the lowest evaluation loss; rotation keeps it."""
    durable.write_json(_best_file(run), {"schema": _SCHEMA, "step": step, "loss": loss})


def best(run: RunDir) -> Best | None:
    """The marked checkpoint; None if none is marked or the marked one is gone."""
    mark = read_json(_best_file(run)) or {}
    step, loss = reading.whole(mark, "step"), reading.number(mark, "loss")
    if not 0 < step < _MOST_STEPS or loss is None:
        return None
    marked = of_step(run, step)  # by its step, so that a run may be moved as a whole
    return Best(marked.path, step, loss) if marked.path.is_dir() else None


def pin(run: RunDir, step: int, reason: str) -> None:
    """Keep this step's checkpoint whatever comes after it."""
    steps = {str(known): why for known, why in pins(run).items()} | {str(step): reason}
    durable.write_json(_pins_file(run), {"schema": _SCHEMA, "steps": steps})


def pins(run: RunDir) -> dict[int, str]:
    """Pinned steps and why; none if the file is missing or damaged."""
    steps = (read_json(_pins_file(run)) or {}).get("steps")
    if not isinstance(steps, dict):
        return {}
    return {int(step): str(why) for step, why in steps.items() if re.fullmatch("[0-9]{1,8}", step)}


def forget_marks(run: RunDir) -> None:
    """No step is the best or pinned: they were another line of steps."""
    for file in (_best_file(run), _pins_file(run)):
        with suppress(FileNotFoundError):
            durable.disk.unlink(file)


def _best_file(run: RunDir) -> Path:
    return run.checkpoints / "best.json"


def _pins_file(run: RunDir) -> Path:
    return run.checkpoints / "pins.json"


def rotate(run: RunDir, keep: int) -> list[int]:
    """Remove all sound checkpoints but the newest `keep`, the best and the pinned ones.

    Never fewer than two stay. Damaged ones neither count nor go. Returns the removed steps; what
    cannot be removed stays for the next time.
    """
    known, keep = committed(run), max(_FEWEST_KEPT, keep)
    if len(known) <= keep:
        return []
    sound = [c for c in known if _fault(c.path, _remembered_hash) is None]
    marked = best(run)
    kept = {marked.step if marked else None, *pins(run)}
    removed = []
    with suppress(OSError):
        for checkpoint in sound[keep:]:
            if checkpoint.step not in kept:
                doomed = durable.beside(checkpoint.path, durable.DOOMED_PREFIX)
                durable.disk.rename(checkpoint.path, doomed)
                removed.append(checkpoint.step)
        _remove_doomed(run)
    return removed


def _remove_doomed(run: RunDir) -> None:
    """What lost its final name goes once that is sure, so that no final name is ever half there."""
    doomed = list(run.checkpoints.glob(f"{durable.DOOMED_PREFIX}*"))
    if doomed:
        durable.sync_dir(run.checkpoints)
    for path in doomed:
        durable.remove_tree(path, inside=run.path)


def clear_staging(run: RunDir) -> int:
    """Settle what crashed attempts left unfinished; returns the bytes reclaimed.

    A checkpoint or a model that was being replaced gets its name back if the new one never came.
    """
    return durable.clear_leftovers(run.checkpoints) + durable.clear_leftovers(
        run.path, run.model.name, run.base.name, run.error.name, run.recipe_lock.name
    )


def discard(path: Path) -> None:
    """Remove a directory; as long as its final name is there, all of it is there."""
    if os.path.lexists(path):
        doomed = path
        if not path.name.startswith("."):
            doomed = durable.beside(path, durable.DOOMED_PREFIX)
            durable.disk.rename(path, doomed)
            durable.sync_dir(path.parent)
        durable.remove_tree(doomed, inside=path.parent)


def drop(staging: Path) -> None:
    """Take away what was staged; what cannot be removed is cleared by the next attempt."""
    with suppress(OSError):
        discard(staging)


def hash_file(path: Path) -> str:
    """sha256 of a regular file, as hexadecimal; OSError for anything else."""
    with reading.open_regular(path, through_links=True) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_hashes: dict[tuple[int, int, int, int], str] = {}


def _fresh_hash(path: Path) -> str:
    """sha256 of a file as it is now, remembered for rotation."""
    _hashes[_version_of(path)] = found = hash_file(path)
    return found


def _remembered_hash(path: Path) -> str:
    """sha256 of a file; one that has not changed is read once in the life of the process."""
    return _hashes.get(_version_of(path)) or _fresh_hash(path)


def _version_of(path: Path) -> tuple[int, int, int, int]:
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_mtime_ns, about.st_size
