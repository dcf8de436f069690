"""Reading what lies in a run directory: regular files alone, and nothing that blocks."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
"""Opening a pipe for reading would wait for its writer."""
_WHOLE_LIMIT = 1 << 63


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; OSError for anything else, a symbolic link too."""
    fd = os.open(path, _FLAGS)
    try:
        _refuse_irregular(os.fstat(fd).st_mode, path)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def _refuse_irregular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number), str(path))


def content(path: Path) -> bytes:
    """All of a regular file; OSError if it cannot be read or is no regular file."""
    with open_regular(path) as file:
        return file.read()


def whole(content: Mapping[str, Any], name: str) -> int:
    """A whole number of 64 bits in a JSON object; 0 if something else stands there."""
    value = content.get(name)
    return value if isinstance(value, int) and abs(value) < _WHOLE_LIMIT else 0
