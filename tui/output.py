"""Files that a command writes where the user asks: never over another in silence, whole or not.

A command names its files before its work, with `targets`, so that a refusal loses nothing, and
fills each with `Target.write` after it. A file that is there is replaced only by one of its kind
and only if that was asked for; a new one is made exclusively.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from profiles import user_files
from profiles.errors import ExitCode, UserError
from profiles.runs import reading, rundir
from tui import plain

STDOUT = ("-", "/dev/stdout")
_ROOM_BYTES = 64 * 1024
"""More than any of these files takes."""
_MOST_BYTES = 1_000_000
"""A longer file is no recipe."""
_EMPTY = "empty"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Kind(StrEnum):
    """What a file is, in the word for people."""

    RECIPE = "recipe"
    REPORT = "report"

    @property
    def example(self) -> str:
        """A name for such a file."""
        return {Kind.RECIPE: "recipe.toml", Kind.REPORT: "report.md"}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place that was looked at and can be written."""

    kind: Kind
    path: Path | None
    """None for standard output."""
    replaces: bool = False
    """Whether a file of this kind is there, to be replaced."""

    @property
    def folder(self) -> Path | None:
        """Where paths in the file begin, without links; None where nobody knows."""
        return None if self.path is None else self.path.resolve().parent

    @property
    def wrote(self) -> str:
        """What to say when it is done."""
        verb = "replaced" if self.replaces else "wrote"
        return f"{verb} {self.path or f'the {self.kind} to standard output'}"

    def write(self, text: str) -> None:
        """Put the text there; says nothing. UserError if somebody was first, or by a fault."""
        if self.path is None:
            plain.put(text)
            return
        try:
            if _is_there(self.path, self.kind, force=self.replaces):
                user_files.replace(self.path, text.encode())
            else:
                user_files.create(self.path, text.encode())
        except OSError as error:
            if isinstance(error, FileExistsError):
                _is_there(self.path, self.kind, force=False)  # tells what it is
            raise cannot(self.path, error, why="nothing was saved") from error


def targets(
    *wanted: tuple[str, str | None, Kind], force: bool, as_json: bool = False
) -> list[Target | None]:
    """Look at all files that a command was asked for: option, file (None for none) and kind.

    UserError before any work for a place that cannot be written (CANNOT_CREATE), or if two outputs
    have the same place (USAGE); JSON takes standard output.
    """
    taken: dict[str | None, str] = {None: "--json"} if as_json else {}
    found: list[Target | None] = []
    for option, text, kind in wanted:
        if text is None:
            found.append(None)
            continue
        place = None if text in STDOUT else os.path.realpath(expanded(text))
        if place in taken:
            raise _same(taken[place], option, place)
        taken[place] = option
        is_stdout = place is None
        found.append(Target(kind=kind, path=None) if is_stdout else target(text, kind, force=force))
    return found


def target(text: str, kind: Kind, *, force: bool) -> Target:
    """Look at the place of one file; UserError (CANNOT_CREATE) if it cannot be written."""
    path = Path(expanded(text))
    if text in STDOUT:
        raise refusal(
            f"{text} is standard output",
            why="the screen has the terminal",
            do=f"name a file: {kind.example}",
            path=path,
        )
    if os.path.isdir(path) or text.endswith("/") or not text:  # noqa: PTH112  # it never fails
        raise refusal(
            f"{path} names a folder",
            why=f"a {kind} is written to a file",
            do=f"name a file in it: {shlex.quote(str(path / kind.example))}",
            path=path,
        )
    refuse_run(path)
    try:
        replaces = _is_there(path, kind, force=force)
        user_files.try_out(path, _ROOM_BYTES)
    except OSError as error:
        raise cannot(path, error, why="it was tried before the work, so nothing is lost") from error
    return Target(kind=kind, path=path, replaces=replaces)


def expanded(text: str) -> str:
    """With ~ as a shell reads it, which leaves that of --out=~/r.toml to us."""
    return os.path.expanduser(text)  # noqa: PTH111  # where nobody is called so, it stays


def _is_there(path: Path, kind: Kind, *, force: bool) -> bool:
    """Whether a file is there that may be replaced; UserError if it may not, OSError by a fault."""
    if not os.path.lexists(path):
        return False
    _refuse_irregular(path)
    name, found = path.name, _what(path)
    refuse_run(path)
    if found not in (f"a {kind}", _EMPTY):
        raise refusal(
            f"{name} exists already",
            why=f"it is {found}, and a {kind} takes the place of a {kind} alone",
            do="name another file",
            path=path,
        )
    if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):  # root may write all
        raise refusal(
            f"{name} is read-only",
            why="somebody has protected it from changes",
            do=f"name another file, or allow it: chmod u+w {shlex.quote(str(path))}",
            path=path,
        )
    if not force:
        raise refusal(
            f"{name} exists already",
            why=f"it is {found}, and nothing is overwritten unasked",
            do="name another file, or add --force to replace it",
            path=path,
        )
    return True


def refuse_run(path: Path) -> None:
    """UserError for a file in a run's directory, whether it is there or not."""
    folder = Path(os.path.realpath(path)).parent
    is_in_run = any(map(rundir.is_run, (folder, *folder.parents)))
    if is_in_run or folder.is_relative_to(rundir.run_root().resolve()):
        raise refusal(
            f"{path.name} would lie among the files of a run",
            why="what a run was started with and what it recorded is never changed or added to",
            do="name a file in a folder of your own",
            path=path,
        )


def _refuse_irregular(path: Path) -> None:
    """UserError for what would be followed, or written without being whole at any moment."""
    mode = path.stat().st_mode if path.exists() else path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise refusal(
            f"{path.name} is no regular file",
            why="a pipe or a device cannot be written whole or not at all",
            do=f"name - for standard output, and lead that there:\n- > {shlex.quote(str(path))}",
            path=path,
        )
    if path.is_symlink():
        real = os.path.realpath(path)
        raise refusal(
            f"{path.name} is a symbolic link",
            why="nothing is written through a link, which somebody else may have placed",
            do=f"name the file itself: {shlex.quote(real)}",
            path=path,
        )


def _what(path: Path) -> str:
    """What a file is, for people."""
    from advisor.recipe import is_recipe  # noqa: PLC0415  # pydantic, only where a file is there
    from tui.report import is_markdown  # noqa: PLC0415

    with reading.open_regular(path) as file:
        content = file.read(_MOST_BYTES + 1)
    if not content:
        return _EMPTY
    text = content.decode(errors="replace")
    if is_markdown(text):
        return f"a {Kind.REPORT}"
    is_ours = len(content) <= _MOST_BYTES and is_recipe(text)
    return f"a {Kind.RECIPE}" if is_ours else "neither a recipe nor a report"


def cannot(path: Path, error: OSError, *, why: str) -> UserError:
    """A place that a system call refused."""
    told, do = error.strerror, "name a place that can be written"
    folder = path.parent
    if isinstance(error, FileNotFoundError) and not os.path.lexists(folder):
        told = f"there is no folder {folder}"
        do = f"make it first: mkdir -p {shlex.quote(str(folder))}"
    elif error.errno in _NO_ROOM:
        do = "make room there, or name a place on another disk"
    return refusal(f"cannot write {path.name}: {told}", why=why, do=do, path=path)


def refusal(what: str, *, why: str, do: str, path: Path) -> UserError:
    """A place that nothing is written to."""
    return UserError(what, why=why, do=do, where=str(path), code=ExitCode.CANNOT_CREATE)


def _same(first: str, second: str, place: str | None) -> UserError:
    return UserError(
        f"{first} and {second} write to the same place",
        why="each would spoil what the other wrote",
        do=f"name another file with {second}",
        where=place or "standard output",
        code=ExitCode.USAGE,
    )
