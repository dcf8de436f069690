"""Reading what lies in a run directory: regular files alone, bounded, and nothing that blocks.

Files are written by others, too. What a reader gets from here is no larger than what we write,
nested no deeper, and its numbers are of a size that can be computed with.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

MOST_JSON_BYTES = 2 << 20
"""Of one object; in memory it takes up to thirty times as much."""
MOST_TEXT_BYTES = 1_000_000
"""Of a recipe, or of whatever else is a page of text."""
_DEEPEST = 64
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Opening a pipe for reading would wait for its writer."""
_WHOLE_LIMIT = 1 << 63
_WHOLE_DIGITS = 19
_NUMBER_LIMIT = 1e100
_PATH_BYTES = 3000
"""Leaves room for what is looked for below it."""
_NAME_BYTES = 255


class UnfitError(ValueError):
    """The content is longer or nested deeper than anything that is written there."""


def open_regular(path: Path, *, through_links: bool = False) -> BufferedReader:
    """Open a regular file for reading; OSError for anything else, a symbolic link too.

    `through_links` opens what a link leads to: for what people name, who may keep links.
    """
    # before it is opened: opening a device can do something, and wakes the writer of a pipe
    _refuse_irregular(path.stat(follow_symlinks=through_links).st_mode, path)
    fd = os.open(path, _FLAGS | (0 if through_links else os.O_NOFOLLOW))
    try:
        _refuse_irregular(os.fstat(fd).st_mode, path)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def _refuse_irregular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        numbers = {stat.S_IFDIR: errno.EISDIR, stat.S_IFLNK: errno.ELOOP}
        number = numbers.get(stat.S_IFMT(mode), errno.EINVAL)
        raise OSError(number, os.strerror(number), str(path))


def content(path: Path, most_bytes: int = MOST_JSON_BYTES) -> bytes:
    """All of a regular file; OSError if it cannot be read, UnfitError if it is longer."""
    with open_regular(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UnfitError(f"{path.name} has over {most_bytes} bytes")
    return data


def text(path: Path) -> str:
    """A page of text; OSError as above, ValueError if it is longer or not UTF-8."""
    return content(path, MOST_TEXT_BYTES).decode()


def end_of(path: Path, num_bytes: int) -> bytes:
    """The last bytes of a regular file, all if there are fewer; OSError as above."""
    with open_regular(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - num_bytes))
        return file.read(num_bytes)


_KINDS = {
    errno.EINVAL: "it is no regular file",
    errno.EISDIR: "it is a folder",
    errno.ELOOP: "it is a symbolic link",
}


def irregular(path: Path) -> str:
    """Why nobody will ever read what lies there; "" for a regular file, and for none at all."""
    try:
        _refuse_irregular(path.lstat().st_mode, path)
    except OSError as error:
        return _KINDS.get(error.errno or 0, "")
    return ""


def reason(error: Exception) -> str:
    """Why a file could not be read, for people."""
    if isinstance(error, OSError):
        return _KINDS.get(error.errno or 0) or error.strerror or str(error)
    return str(error) if isinstance(error, UnfitError) else "it is not UTF-8"


def json_object(path: Path) -> dict[str, Any] | None:
    """A JSON object, None if something else stands there; OSError as above.

    A number that no file of ours holds (of 400 digits, infinite) counts as not said: null.
    """
    try:
        value = _decode_json(content(path).decode())
        return value if isinstance(value, dict) and _is_shallow(value) else None
    except (ValueError, RecursionError):
        return None


def _whole(digits: str) -> int | None:
    value = int(digits) if len(digits.lstrip("-")) <= _WHOLE_DIGITS else _WHOLE_LIMIT
    return value if abs(value) < _WHOLE_LIMIT else None


def _number(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) < _NUMBER_LIMIT else None


_decode_json = json.JSONDecoder(
    parse_int=_whole, parse_float=_number, parse_constant=lambda _name: None
).decode


def _is_shallow(value: dict[str, Any]) -> bool:
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        inside = (item.values() if isinstance(item, dict) else item for item in level)
        level = [one for items in inside for one in items if isinstance(one, dict | list)]
        if not level:
            return True
    return False


def whole(content: Mapping[str, Any], name: str) -> int:
    """A whole number of a JSON object from here; 0 if something else stands there."""
    value = content.get(name)
    return value if type(value) is int else 0


def number(content: Mapping[str, Any], name: str) -> float | None:
    """A number of any object, also of one that was not read here; None for anything else."""
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_NUMBER_LIMIT < value < _NUMBER_LIMIT else None


def words(content: Mapping[str, Any], name: str) -> str:
    """A text of a JSON object; empty if something else stands there."""
    value = content.get(name)
    return value if isinstance(value, str) else ""


def whole_of(digits: str | bytes) -> int:
    """The whole number that a text is, not below zero; ValueError if it is none of 64 bits."""
    if len(digits) > 2 * _WHOLE_DIGITS or not 0 <= (value := int(digits)) < _WHOLE_LIMIT:
        raise UnfitError("no whole number of 64 bits")
    return value


def place(content: Mapping[str, Any], name: str) -> Path | None:
    """A path of a JSON object; None if the text there can be none."""
    try:
        value = os.fsencode(words(content, name))
    except UnicodeEncodeError:  # half a character, which JSON can say
        return None
    fits = 0 < len(value) < _PATH_BYTES and all(len(n) <= _NAME_BYTES for n in value.split(b"/"))
    return Path(os.fsdecode(value)) if fits and b"\0" not in value else None


def is_file(path: Path) -> bool:
    """A regular file is there, or a link to one; raises nothing, as Path's does for odd names."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """A folder is there, or a link to one; raises nothing either."""
    return os.path.isdir(path)  # noqa: PTH112
