"""Opens a data file, passes its bytes on once, and decides by which reader it is read.

Decides which paths and which kinds of file are read at all. Does not know what a row is: the
readers parse the bytes.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import io
import os
import re
import shlex
import stat
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiles.data.dataset_errors import no_parquet, not_read, packed, wide_encoding
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

BUFFER_BYTES = 1 << 16

MAX_RECORD_BYTES: Final = 64_000_000
"""A row is held in memory whole, so it may not be larger."""

_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_CSV_SUFFIXES = (".csv", ".tsv")
_SUFFIXES = (*_JSON_SUFFIXES, *_CSV_SUFFIXES, ".parquet")
_OTHER_SUFFIXES = re.compile(
    r"\.(arrow|feather|xlsx?|ods|pkl|pickle|pt|np[yz]|h5|safetensors|db|sqlite|xml|ya?ml|toml)"
)
_PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z")
_PACKED_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"PK\x03\x04": ".zip",
    b"7z\xbc\xaf": ".7z",
}
_PARQUET_MAGIC = b"PAR1"
_OTHER_MAGIC = {
    b"\x80": "a pickle or another binary file",
    b"ARROW1": "Arrow",
    b"SQLite": "SQLite",
}
_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class Container(StrEnum):
    """How a file holds its rows; the values are for people."""

    LIST = "JSON list"
    LINES = "JSON Lines"
    CSV = "CSV"
    PARQUET = "Parquet"


class DataFile:
    """The bytes of one open file, hashed and counted as they are read."""

    def __init__(self, path: str, file: io.BufferedReader[io.FileIO], container: Container) -> None:
        self.path = path
        self.container = container
        self.detail = ""
        """What the reader found out about the container, for people."""
        self.share = 0.0
        """Of the file that has been read."""
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self._file = file
        status = os.fstat(file.fileno())
        self._size = status.st_size
        self._identity = _identity(status)

    def read(self, size: int) -> bytes:
        """Bytes from where the last read ended; none at the end of the file."""
        return self._passed(self._file.read(size))

    def lines(self, max_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Numbered lines; a line longer than max_bytes is cut there."""
        number = 0
        while line := self._file.readline(max_bytes):
            number += 1
            yield number, self._passed(line)

    def _passed(self, data: bytes) -> bytes:
        self.sha256.update(data)
        self.num_bytes += len(data)
        self.share = self.num_bytes / max(1, self._size)
        return data

    def has_changed(self) -> bool:
        """Another file, size or time of writing than when it was opened; or it is gone."""
        try:
            return _identity(Path(self.path).stat()) != self._identity
        except OSError:
            return True


@contextmanager
def open_data(path: str | os.PathLike[str]) -> Iterator[DataFile]:
    """Open a file for one pass; what the system refuses, then or later, is told to the user."""
    name = os.fspath(path)
    try:
        _require_file(name)
        with io.BufferedReader(io.FileIO(name), BUFFER_BYTES) as file:
            yield DataFile(name, file, _container(name, file.peek()))
    except OSError as error:
        raise _unreadable(name, error) from error


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _first_byte(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def _container(path: str, head: bytes) -> Container:
    """Decide by the first bytes, then by the suffix; refuse what no reader is for."""
    suffix = Path(path).suffix.lower()
    if head.startswith(_PARQUET_MAGIC):
        return Container.PARQUET
    if head:
        _refuse_others(path, suffix, head)
    if suffix == ".parquet" and head:
        raise no_parquet(path)
    if suffix in _CSV_SUFFIXES:
        return Container.CSV
    return Container.LIST if _first_byte(head) == b"[" else Container.LINES


def _refuse_others(path: str, suffix: str, head: bytes) -> None:
    for bom, name in _BOMS.items():
        if head.startswith(bom):
            raise wide_encoding(path, name, "its byte order mark")
    if len(head) > 1 and b"\0" in head[:2] and head[:2] != b"\0\0":
        name = "UTF-16LE" if head[1] == 0 else "UTF-16BE"
        raise wide_encoding(path, name, "every other byte is NUL")
    found = _named_by(_OTHER_MAGIC, head)
    if not found and _OTHER_SUFFIXES.fullmatch(suffix):
        found = f"a {suffix} file"
    if found:
        raise not_read(path, found)
    packing = _named_by(_PACKED_MAGIC, head) or (suffix if suffix in _PACKED_SUFFIXES else "")
    if packing:
        raise packed(path, packing)
    first = _first_byte(head)
    if suffix in _CSV_SUFFIXES and head.lstrip().startswith((b'{"', b"[{")):
        raise not_read(path, f"JSON in a {suffix} file")
    if suffix not in _SUFFIXES and first not in (b"", b"[", b"{"):
        raise not_read(path, "no JSON")


def _named_by(magics: dict[bytes, str], head: bytes) -> str:
    return next((name for magic, name in magics.items() if head.startswith(magic)), "")


def _require_file(path: str) -> None:
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None
    except ValueError as error:  # a NUL in the path
        what = f"{printable(path, 200)} cannot be opened"
        raise _no_input(what, why=str(error), do="check the path", path=path) from None
    if stat.S_ISDIR(mode):
        names = sorted(name for name in _names_in(file) if Path(name).suffix.lower() in _SUFFIXES)
        raise _no_input(
            f"{path} is a folder, not a file",
            why="a data set is one file: .json, .jsonl, .csv, .tsv or .parquet",
            do=f"give one of its files: {', '.join(names[:5]) or 'it has none of these'}",
            path=path,
        )
    if not stat.S_ISREG(mode):
        raise _no_input(
            f"{path} is not a regular file",
            why="a pipe or a device can be read only once",
            do="write the rows to a .jsonl file first",
            path=path,
        )


def _missing(path: str) -> UserError:
    file = Path(path)
    near = difflib.get_close_matches(file.name, _names_in(file.parent))
    return _no_input(
        f"there is no file {path}",
        why=f"the folder {file.parent} {'exists' if file.parent.is_dir() else 'does not exist'}",
        do=f"did you mean {' or '.join(near)}?" if near else "check the path",
        path=path,
    )


def _names_in(folder: Path) -> list[str]:
    try:
        return [one.name for one in islice(folder.iterdir(), 10_000)]
    except OSError:
        return []


def _unreadable(path: str, error: OSError) -> UserError:
    shown = printable(path, 200)
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        do = f"give yourself the right to read it: chmod u+r {shlex.quote(path)}"
        return _no_input(f"{shown} cannot be opened", why=reason, do=do, path=path)
    return UserError(
        f"{shown} cannot be read",
        why=f"the system says: {reason}",
        do="check the disk or the network mount, then retry",
        where=path,
        code=ExitCode.IO_ERROR,
    )


def _no_input(what: str, *, why: str, do: str, path: str) -> UserError:
    return UserError(what, why=why, do=do, where=path, code=ExitCode.NO_INPUT)
