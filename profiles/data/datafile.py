"""Opens a data file, passes its bytes on once, and decides by which reader it is read.

Decides which paths and which kinds of file are read at all. Does not know what a row is: the
readers parse the bytes.
"""

from __future__ import annotations

import codecs
import difflib
import gzip
import os
import re
import shlex
import stat
import zlib
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiles.data import charset_errors, charsets, folders, streams
from profiles.data.dataset_errors import (
    carriage_returns,
    damaged_gzip,
    no_parquet,
    not_read,
    nul_bytes,
    packed,
    packed_twice,
)
from profiles.data.words import printable
from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

MAX_RECORD_BYTES: Final = 64_000_000
"""A row is held in memory whole, so it may not be larger."""

_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_CSV_SUFFIXES = (".csv", ".tsv")
_SUFFIXES = (*_JSON_SUFFIXES, *_CSV_SUFFIXES, ".txt", ".parquet")
_OTHER_SUFFIXES = re.compile(
    r"\.(arrow|feather|xlsx?|ods|pkl|pickle|pt|np[yz]|h5|safetensors|db|sqlite|xml|ya?ml|toml)"
)
_PACKED_SUFFIXES = (".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z")
_PACKED_MAGIC = {
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
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Container(StrEnum):
    """How a file holds its rows; the values are for people."""

    LIST = "JSON list"
    LINES = "JSON Lines"
    CSV = "CSV"
    TEXT = "text"
    PARQUET = "Parquet"
    ARROW = "Arrow"


class DataFile:
    """The content of one open file in UTF-8, unpacked; hashed and counted as it is on the disk."""

    def __init__(self, path: str, encoding: str | None, layers: ExitStack) -> None:
        """`encoding`: Python's name of what a file is in that is not UTF-8; layers are closed."""
        self.path = path
        self.detail = ""
        """What the reader found out about the container, for people."""
        self.share_of_rows = 0.0
        """That have been read, where a library reads the file by itself."""
        self.num_given = 0
        """Bytes that readers got, unpacked."""
        self.is_packed, self.suffix, self.head = False, "", b""
        """Whether by gzip; of what is in it; its first bytes, some thousands if there are so many.
        Of a folder nothing."""
        self.encoding: str | None = None
        """What it is read as, where that is not UTF-8."""
        folder = folders.look(Path(path), _SUFFIXES) if os.path.isdir(path) else None  # noqa: PTH112  # raises nothing
        self.files = folder.files if folder else (Path(path),)
        """The path itself, or the files of a folder that hold its rows."""
        self._stamps = [_stamp(file) for file in self.files]
        self._size = sum(stamp[1] for stamp in self._stamps)
        self._raw = streams.Hashed([str(file) for file in self.files])
        lowest = layers.enter_context(streams.buffered(self._raw))
        if folder:
            self._file = lowest
            self.container = Container(folder.shards)
        else:
            self._look_into(lowest, encoding, layers)

    def _look_into(
        self, lowest: io.BufferedReader, encoding: str | None, layers: ExitStack
    ) -> None:
        """Unpack and recode what is read, and decide by which reader."""
        file = layers.enter_context(streams.unpacked(lowest))
        self.is_packed = file is not lowest
        if self.is_packed and file.peek(2).startswith(streams.GZIP_MAGIC):
            raise packed_twice(self.path)
        self.suffix = _suffix(self.path, is_packed=self.is_packed)
        is_other = encoding not in (None, charsets.UTF8)
        is_other = is_other and not file.peek(4).startswith(_PARQUET_MAGIC)
        self.encoding = encoding if is_other and not streams.is_utf8(self.path) else None
        if self.encoding is not None:
            recoded = streams.Recoded(file, self.encoding)
            file = layers.enter_context(streams.buffered(recoded))
        self._file = file
        self.head = file.peek(1)
        self.container = _container(self)
        bare = self.head.find(b"\r")
        is_text = self.container in (Container.LINES, Container.CSV, Container.TEXT)
        if is_text and b"\n" not in self.head and 0 <= bare < len(self.head.rstrip()):
            place = f"{self.path}:1:{bare + 1}"
            raise carriage_returns(self.path, place, is_packed=self.is_packed)

    @property
    def sha256(self) -> str:
        """Of the file, once it has been read to its end."""
        return self._raw.sha256.hexdigest()

    @property
    def num_bytes(self) -> int:
        """That have been read from the disk."""
        return self._raw.num_bytes

    @property
    def share(self) -> float:
        """Of the file that has been read."""
        return self.share_of_rows or self.num_bytes / max(1, self._size)

    def read(self, size: int) -> bytes:
        """Bytes from where the last read ended; none at the end of the file."""
        data = self._file.read(size)
        self.num_given += len(data)
        return data

    def lines(self, max_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Numbered lines; a line longer than max_bytes is cut there."""
        number = 0
        while line := self._file.readline(max_bytes):
            number += 1
            self.num_given += len(line)
            yield number, line

    def text(self, number: int, line: bytes) -> str:
        """A line of lines(); UserError where it is no text."""
        raw = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        place = f"{self.path}:{number}"
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            column = len(raw[: error.start].decode()) + 1
            raise charset_errors.not_utf8(self.path, f"{place}:{column}", error) from None
        if "\0" in text:
            raise nul_bytes(f"{place}:{text.index(chr(0)) + 1}")
        return text

    def words(self) -> str:
        """How it holds its rows, for people: "CSV, gzip, GB18030, tabs between the cells"."""
        packing = "gzip" if self.is_packed else ""
        encoding = charsets.said(self.encoding) if self.encoding else ""
        return ", ".join(filter(None, (self.container, packing, encoding, self.detail)))

    def has_changed(self) -> bool:
        """Another file, size or time of writing than when it was opened; or it is gone."""
        try:
            return [_stamp(file) for file in self.files] != self._stamps
        except OSError:
            return True


@contextmanager
def open_data(path: str | os.PathLike[str], encoding: str | None = None) -> Iterator[DataFile]:
    """Open a file for one pass; what the system refuses, then or later, is told to the user.

    `encoding`: what a file is in that is not UTF-8, by Python's name.
    """
    name = os.fspath(path)
    try:
        _require_file(name)
        with ExitStack() as layers:
            yield DataFile(name, encoding, layers)
    except streams.WrongEncodingError as error:
        assert encoding is not None
        wrong = charset_errors.not_in_encoding(name, encoding, error.line, error.byte)
        raise wrong from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged_gzip(name, str(error), is_cut=isinstance(error, EOFError)) from error
    except OSError as error:
        raise _unreadable(name, error) from error


def files_of(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files that hold the rows of a data set, itself if it is no folder; none if unreadable."""
    try:
        is_folder = os.path.isdir(path)  # noqa: PTH112  # raises nothing
        return folders.look(Path(path), _SUFFIXES).files if is_folder else (Path(path),)
    except (UserError, ValueError):
        return ()


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _first_byte(head: bytes) -> bytes:
    return head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def _suffix(path: str, *, is_packed: bool) -> str:
    """In small letters; of a packed file that of what is in it."""
    file = Path(path)
    if is_packed and file.suffix.lower() == ".gz":
        file = file.with_suffix("")
    return file.suffix.lower()


def _container(file: DataFile) -> Container:
    """Decide by the first bytes, then by the suffix; refuse what no reader is for."""
    head, suffix = file.head, file.suffix
    if head.startswith(_PARQUET_MAGIC) and not file.is_packed:
        return Container.PARQUET
    if head:
        _refuse_others(file.path, suffix, head, is_packed=file.is_packed)
    if suffix == ".parquet" and head:
        raise no_parquet(file.path)
    if suffix in _CSV_SUFFIXES:
        return Container.CSV
    if suffix == ".txt" and not _holds_objects(head):
        return Container.TEXT
    return Container.LIST if _first_byte(head) == b"[" else Container.LINES


def _holds_objects(head: bytes) -> bool:
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b'{"', b"[{"))


def _refuse_others(path: str, suffix: str, head: bytes, *, is_packed: bool) -> None:
    for bom, name in _BOMS.items():
        if head.startswith(bom):
            raise charset_errors.wide_encoding(path, name, "its byte order mark")
    if len(head) > 1 and b"\0" in head[:2] and head[:2] != b"\0\0":
        name = "utf-16-le" if head[1] == 0 else "utf-16-be"
        raise charset_errors.wide_encoding(path, name, "every other byte is NUL")
    found = _named_by(_OTHER_MAGIC, head)
    if not found and _OTHER_SUFFIXES.fullmatch(suffix):
        found = f"a {suffix} file"
    if found:
        raise not_read(path, found)
    packing = _named_by(_PACKED_MAGIC, head) or (suffix if suffix in _PACKED_SUFFIXES else "")
    if packing:
        raise packed(path, ".tgz" if is_packed and packing == ".tar" else packing)
    first = _first_byte(head)
    if suffix in _CSV_SUFFIXES and _holds_objects(head):
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
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
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
