"""Opens a data file, passes its bytes on once, and refuses what is visibly no JSON text.

Decides which paths and which kinds of file are read at all. Does not know what a row is: rows.py
parses the bytes.
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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.dataset_errors import not_read, wide_encoding
from profiles.errors import ExitCode, UserError
from profiles.formats import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

BUFFER_BYTES = 1 << 16

_SUFFIXES = (".json", ".jsonl", ".ndjson")
_OTHER_SUFFIXES = re.compile(
    r"\.(parquet|arrow|feather|csv|tsv|xlsx?|pkl|pickle|pt|np[yz]|h5|safetensors|db|sqlite"
    r"|xml|ya?ml|toml|gz|bz2|xz|zst|zip|tar|tgz|7z)"
)
_MAGIC = {
    b"PAR1": "Parquet",
    b"\x80": "a pickle or another binary file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"ARROW1": "Arrow",
    b"SQLite": "SQLite",
}
_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class DataFile:
    """The bytes of one open file, hashed and counted as they are read."""

    def __init__(self, path: str, file: io.BufferedReader[io.FileIO]) -> None:
        self.path = path
        self.is_array = _first_byte(file.peek()) == b"["
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self._file = file
        self._identity = _identity(os.fstat(file.fileno()))

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
            _require_text(name, file.peek())
            yield DataFile(name, file)
    except OSError as error:
        raise _unreadable(name, error) from error


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _first_byte(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def _require_text(path: str, head: bytes) -> None:
    """Refuse what is visibly not a JSON text, by the first bytes and by the suffix."""
    for bom, name in _BOMS.items():
        if head.startswith(bom):
            raise wide_encoding(path, name, "its byte order mark")
    if len(head) > 1 and b"\0" in head[:2] and head[:2] != b"\0\0":
        name = "UTF-16LE" if head[1] == 0 else "UTF-16BE"
        raise wide_encoding(path, name, "every other byte is NUL")
    suffix = Path(path).suffix.lower()
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if _OTHER_SUFFIXES.fullmatch(suffix):
        found = found or f"a {suffix} file"
    elif suffix not in _SUFFIXES and _first_byte(head) not in (b"", b"[", b"{"):
        found = found or "no JSON"
    if found:
        raise not_read(path, found)


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
            why="a data set is one .json or .jsonl file",
            do=f"give one of its files: {', '.join(names[:5]) or 'it has no .json or .jsonl'}",
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
