"""The bytes of data files on their way to a reader: hashed, unpacked, turned into UTF-8.

Decides nothing about rows. Every layer passes on a chunk at a time, so that a file that unpacks to
any size takes no more memory than another.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _typeshed import WriteableBuffer

BUFFER_BYTES: Final = 1 << 16
GZIP_MAGIC: Final = b"\x1f\x8b"


class Hashed(io.RawIOBase):
    """Files, one after another, that are hashed and counted as they are read."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._file = io.FileIO(paths[0])
        self._left = list(paths[1:])
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """As RawIOBase has it."""
        view = memoryview(buffer)
        while not (size := self._file.readinto(view) or 0) and self._left:
            self._file.close()
            self._file = io.FileIO(self._left.pop(0))
        self.sha256.update(view[:size])
        self.num_bytes += size
        return size

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


class WrongEncodingError(Exception):
    """Bytes that are not in the encoding that was named."""

    def __init__(self, line: int, byte: int) -> None:
        super().__init__(f"line {line}: byte 0x{byte:02x}")
        self.line = line
        self.byte = byte


class Recoded(io.RawIOBase):
    """A text in some encoding, passed on in UTF-8; WrongEncodingError where it is not in that."""

    def __init__(self, file: io.BufferedReader, encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._waiting = b""
        self._num_newlines = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """As RawIOBase has it."""
        view = memoryview(buffer)
        is_over = False
        while not (self._waiting or is_over):
            data = self._file.read(BUFFER_BYTES)
            is_over = not data
            self._waiting = self._decode(data, final=is_over).encode(errors="surrogatepass")
        size = min(len(view), len(self._waiting))
        view[:size] = self._waiting[:size]
        self._waiting = self._waiting[size:]
        return size

    def _decode(self, data: bytes, *, final: bool) -> str:
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self._encoding, errors="ignore")
            line = self._num_newlines + before.count("\n") + 1
            raise WrongEncodingError(line, error.object[error.start]) from error
        self._num_newlines += text.count("\n")
        return text

    def close(self) -> None:
        """Close what it reads too."""
        self._file.close()
        super().close()


def buffered(file: io.RawIOBase) -> io.BufferedReader:
    """A layer that can be looked into before it is read."""
    return io.BufferedReader(file, BUFFER_BYTES)


def unpacked(file: io.BufferedReader) -> io.BufferedReader:
    """What a file holds, where it is packed with gzip; else the file."""
    if not file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
        return file
    return io.BufferedReader(gzip.GzipFile(fileobj=file), BUFFER_BYTES)


@contextmanager
def chunks_of(path: str) -> Iterator[Iterator[bytes]]:
    """The unpacked bytes of a file, a chunk at a time."""
    with buffered(io.FileIO(path)) as file, unpacked(file) as plain:
        yield iter(lambda: plain.read(BUFFER_BYTES), b"")


def is_utf8(path: str) -> bool:
    """Whether a whole file is UTF-8 text; it is read up to where it is not."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with chunks_of(path) as chunks:
            for chunk in chunks:
                if b"\0" in chunk:
                    return False
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
