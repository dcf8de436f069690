"""Data sets that are folders: what `datasets` saves to disk, and shards of Parquet.

Decides which files of a folder hold rows, in which order, and what is told of other folders. Opens
none of these files.
"""

from __future__ import annotations

import json
import re
import stat
from collections import Counter
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from profiles.errors import ExitCode, UserError
from profiles.quantities import some_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_STATE: Final = "state.json"
"""Written by `Dataset.save_to_disk`; names the files of rows."""
_SPLITS: Final = "dataset_dict.json"
"""Written by `DatasetDict.save_to_disk`, a folder of such folders."""
_MOST_CHOICES = 5
_MOST_ENTRIES: Final = 10_000
_MOST_BYTES: Final = 1 << 22
"""Of state.json."""
PARQUET: Final = ".parquet"
_BESIDE: Final = re.compile(r"dataset_info.*|.*\.txt", re.IGNORECASE)
"""Names beside .parquet files that describe them."""
_SPLIT: Final = re.compile(
    r"(?<![a-z])(?:(train|training)|(validation|valid|val|dev)|(test|testing|eval|evaluation))"
    r"(?![a-z])",
    re.IGNORECASE,
)
"""How files of one split are named, as `datasets` looks for them; a group each."""
_SHARD: Final = re.compile(r"(.*)-\d+-of-(\d+)\.parquet", re.IGNORECASE)
"""A file of so many."""


class Shards(StrEnum):
    """What the files of rows are."""

    ARROW = "Arrow"
    PARQUET = "Parquet"


class Folder(NamedTuple):
    """The files of a folder that hold its rows, in order."""

    shards: Shards
    files: tuple[Path, ...]


def look(folder: Path, suffixes: Sequence[str]) -> Folder:
    """The files that hold the rows; UserError for a folder that is no data set.

    `suffixes`: of files that are data sets by themselves, which are named then.
    """
    if (folder / _STATE).is_file():
        return Folder(Shards.ARROW, _saved(folder))
    names = _names_in(folder)
    shards = [name for name in names if Path(name).suffix.lower() == PARQUET]
    if shards:
        _refuse_mixed(folder, shards, [n for n in names if Path(n).suffix.lower() in suffixes])
        files = tuple([folder / name for name in shards])
        _require_files(folder, files)
        return Folder(Shards.PARQUET, files)
    if (folder / _SPLITS).is_file():
        splits = [name for name in names if (folder / name / _STATE).is_file()]
        raise _no_input(
            f"{folder} holds several data sets",
            why=f"`datasets` saved {some_of(splits) or 'none'} there, each in a folder",
            do=f"give one of them: {_one_of([str(folder / name) for name in splits])}",
            where=folder,
        )
    data = [name for name in names if Path(name).suffix.lower() in suffixes]
    raise _no_input(
        f"{folder} is a folder, not a file",
        why="a folder is a data set if `datasets` saved it to disk, or if it holds .parquet files",
        do=f"give one of its files: {some_of(data) or 'it has none of these'}",
        where=folder,
    )


def holds_rows(folder: Path) -> bool:
    """By its names it is a data set."""
    try:
        return bool(look(folder, ()).files)
    except (UserError, OSError, ValueError):
        return False


def _saved(folder: Path) -> tuple[Path, ...]:
    """The files that state.json names; they lie in the folder itself."""
    try:
        with (folder / _STATE).open("rb") as file:
            state: Any = json.loads(file.read(_MOST_BYTES))
        names = [one["filename"] for one in state["_data_files"]]
        sound = all(isinstance(name, str) and Path(name).name == name for name in names)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        names, sound = [], False
    if not sound or not names:
        raise UserError(
            f"{_STATE} does not name the files of the data set",
            why="`datasets` writes them there, each a name in the same folder",
            do="save the data set again, or copy the whole folder again",
            where=str(folder / _STATE),
            code=ExitCode.BAD_DATA,
        )
    files = tuple([folder / name for name in names])
    _require_files(folder, files)
    return files


def _require_files(folder: Path, files: Sequence[Path]) -> None:
    """UserError for a file that is missing or is a pipe or a device."""
    for file in files:
        try:
            is_file = stat.S_ISREG(file.stat().st_mode)
            why = "it is not a regular file"
        except (OSError, ValueError):
            is_file, why = False, "it is not there or cannot be looked at"
        if not is_file:
            raise _no_input(
                f"the data set lacks {file.name}",
                why=why,
                do="save the data set again, or copy the whole folder again",
                where=folder,
            )


def _refuse_mixed(folder: Path, shards: Sequence[str], data: Sequence[str]) -> None:
    """UserError for .parquet files that are several data sets, less than one, or not all the data.

    `data`: names of files that are data sets by themselves, .parquet or not.
    """
    others = [name for name in data if name not in shards and not _BESIDE.fullmatch(name)]
    if others:
        raise _no_input(
            f"{folder} holds other data files beside its .parquet files",
            why=f"of such a folder the .parquet files alone are read, not {some_of(others)}",
            do=f"give one file, such as {folder / others[0]}, or move the .parquet files to a "
            "folder of their own",
            where=folder,
        )
    splits = {found.lastindex if (found := _SPLIT.search(name)) else 0 for name in shards}
    if len(splits) > 1:
        raise _no_input(
            f"{folder} holds several data sets",
            why=f"by their names these are no parts of one: {some_of(shards)}",
            do=f"give one file, such as {folder / shards[-1]}, or move the files of one set to a "
            "folder of their own",
            where=folder,
        )
    parts = Counter(found.groups() for name in shards if (found := _SHARD.fullmatch(name)))
    for (name, number), count in parts.items():
        if count != int(number):
            raise _no_input(
                f"the data set has {count} of the {int(number)} files of {name}",
                why=f"their names end in -of-{number}{PARQUET}",
                do="copy or download the whole folder again",
                where=folder,
            )


def _one_of(names: Sequence[str]) -> str:
    """Like "a or b or one of 3 more"."""
    more = len(names) - _MOST_CHOICES
    rest = [f"one of {more} more"] if more > 0 else []
    return " or ".join([*names[:_MOST_CHOICES], *rest])


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted([one.name for one in islice(folder.iterdir(), _MOST_ENTRIES)])
    except OSError:
        return []


def _no_input(what: str, *, why: str, do: str, where: Path) -> UserError:
    return UserError(what, why=why, do=do, where=str(where), code=ExitCode.NO_INPUT)
