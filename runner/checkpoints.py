"""Checkpoints: staged, listed in a manifest, committed by a rename.

A directory named `step-NNNNNNNN` is complete by construction; whether its bytes still are what was
written, `verify` says. Knows nothing of torch or of what the files mean.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles import durable
from profiles.rundir import RunDir, read_json

MANIFEST = "MANIFEST.json"
_SCHEMA = 1
_DOOMED_PREFIX = ".del-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint."""

    path: Path
    step: int


def stage(run: RunDir, step: int) -> Path:
    """A fresh directory to write a checkpoint into; readers never look there."""
    path = run.checkpoints / f"{durable.STAGING_PREFIX}{step:08d}-{secrets.token_hex(3)}"
    path.mkdir(mode=durable.PRIVATE_DIR)
    return path


def seal(folder: Path, **facts: Any) -> None:
    """Write the manifest: size and sha256 of every file, and `facts` about the moment."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        files[str(path.relative_to(folder))] = {
            "bytes": path.stat().st_size,
            "sha256": hash_file(path),
        }
    durable.write_json(
        folder / MANIFEST, {"schema": _SCHEMA, "t": time.time(), **facts, "files": files}
    )


def commit(run: RunDir, staging: Path, step: int, **facts: Any) -> Checkpoint:
    """Seal what is staged and give it its final name; the step's older checkpoint is replaced."""
    seal(staging, step=step, **facts)
    final = run.checkpoints / f"step-{step:08d}"
    if final.exists():
        _remove(final)
    durable.publish_dir(staging, final)
    return Checkpoint(final, step)


def verify(folder: Path) -> str | None:
    """None if every file is as its manifest says, else what is wrong."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict):
        return "its manifest is missing or damaged"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, written were {expected['bytes']}"
        if hash_file(path) != expected["sha256"]:
            return f"the content of {name} changed since it was written"
    return None


def committed(run: RunDir) -> list[Checkpoint]:
    """Checkpoints under final names, newest step first."""
    found = [
        Checkpoint(path, int(path.name.removeprefix("step-")))
        for path in run.checkpoints.iterdir()
        if re.fullmatch(r"step-[0-9]{8}", path.name)
    ]
    return sorted(found, key=lambda c: c.step, reverse=True)


def newest_sound(run: RunDir) -> tuple[Checkpoint | None, dict[Checkpoint, str]]:
    """The newest checkpoint that verifies, and what is wrong with each newer one."""
    faults: dict[Checkpoint, str] = {}
    for checkpoint in committed(run):
        fault = verify(checkpoint.path)
        if fault is None:
            return checkpoint, faults
        faults[checkpoint] = fault
    return None, faults


def set_aside(checkpoint: Checkpoint) -> None:
    """Keep a damaged checkpoint for a person to look at, but count it no longer."""
    aside = checkpoint.path.with_name(f"bad-{checkpoint.path.name}-{secrets.token_hex(3)}")
    durable.disk.rename(checkpoint.path, aside)
    durable.sync_dir(aside.parent)


def rotate(run: RunDir, keep: int) -> list[int]:
    """Remove all but the newest `keep` checkpoints, by step; returns the removed steps.

    Damaged ones were set aside when the attempt began.
    """
    doomed = committed(run)[keep:]
    for checkpoint in doomed:
        _remove(checkpoint.path)
    return [c.step for c in doomed]


def clear_staging(run: RunDir) -> int:
    """Remove what crashed attempts left half-written; returns the bytes reclaimed."""
    reclaimed = 0
    for path in run.checkpoints.iterdir():
        if path.name.startswith((durable.STAGING_PREFIX, _DOOMED_PREFIX)):
            reclaimed += sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
            shutil.rmtree(path)
    return reclaimed


def discard(path: Path) -> None:
    """Remove a directory that may carry a final name."""
    if path.exists():
        _remove(path)


def _remove(path: Path) -> None:
    """Take the final name away first, so that a crash in between leaves no half checkpoint."""
    doomed = path.with_name(f"{_DOOMED_PREFIX}{path.name}-{secrets.token_hex(3)}")
    durable.disk.rename(path, doomed)
    shutil.rmtree(doomed)


def hash_file(path: Path) -> str:
    """sha256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
