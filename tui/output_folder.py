"""Folders that a command writes where the user asks, by the rules of `output`.

A folder is looked at before the work. One that is there is replaced only by what the same command
makes, and only if that was asked for.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiles import user_files
from tui.output import STDOUT, cannot, expanded, refusal, refuse_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A place that was looked at and can become a folder."""

    path: Path
    replaces: bool = False
    """Whether one of its kind is there, to be replaced."""

    @property
    def wrote(self) -> str:
        """What to say when it is done."""
        return f"{'replaced' if self.replaces else 'wrote'} {self.path}"


def target(text: str, kind: str, *, is_one: Callable[[Path], bool], force: bool) -> Folder:
    """Look at the place of a folder; UserError (CANNOT_CREATE) if it cannot be written.

    `kind` is the word for what will be in it, `is_one` tells such a folder from others.
    """
    path = Path(os.path.normpath(expanded(text)))
    if text in STDOUT or not text:
        raise refusal(
            f"{text or 'nothing'} names no folder",
            why=f"a {kind} is several files, in a folder of their own",
            do=f"name one: {kind}",
            path=path,
        )
    refuse_run(path)
    if path.is_symlink():
        raise refusal(
            f"{path.name} is a symbolic link",
            why="nothing is written through a link, which somebody else may have placed",
            do=f"name the folder itself: {shlex.quote(os.path.realpath(path))}",
            path=path,
        )
    if not os.path.lexists(path):
        _try_out(path)
        return Folder(path=path)
    _refuse_there(path, kind, is_one, force=force)
    return Folder(path=path, replaces=True)


def _try_out(path: Path) -> None:
    """UserError if there is no folder to make it in, or none that can be written."""
    try:
        user_files.try_out(path, 1)
    except OSError as error:
        raise cannot(path, error, why="it was tried before the work") from error


def _refuse_there(path: Path, kind: str, is_one: Callable[[Path], bool], *, force: bool) -> None:
    is_empty = path.is_dir() and not any(path.iterdir())
    if not is_empty and not (path.is_dir() and is_one(path)):
        what = "a folder that holds something else" if path.is_dir() else "no folder"
        raise refusal(
            f"{path.name} exists already",
            why=f"it is {what}, and a {kind} takes the place of a {kind} alone",
            do="name another folder",
            path=path,
        )
    if not force:
        what = "empty" if is_empty else f"a {kind}"
        raise refusal(
            f"{path.name} exists already",
            why=f"it is {what}, and nothing is overwritten unasked",
            do="name another folder, or add --force to replace it",
            path=path,
        )
