"""Lines that differ from a sound one in their numbers alone, known without reading their JSON.

All but a few lines of a long file are like one of a few that came before: the same names in the
same order, the same words. A pattern of such a line accepts only what is a sound record of the same
kind, too: numbers of the same type, and within every bound that a record has (`records/form.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any
from zlib import crc32

from profiles.runs.lines import CRC_LENGTH, Content, decode

Match = Callable[[bytes], re.Match[bytes] | None]
Names = tuple[str, ...]
"""Those on the way to a value in a JSON object."""

WHOLE = "(?:0|[1-9][0-9]{0,17}+)"
REAL = r"-?+(?:0|[1-9][0-9]{0,10}+)(?:\.[0-9]++)?+(?:e-[0-9]{1,3}+)?+"
"""Below the bound of times, which is the lowest. Nothing is tried twice: `+` never gives back."""
CRC = ',"crc":"[0-9a-f]{8}"}'


def numbers(content: Content, way: Names = ()) -> Iterator[tuple[Names, Any]]:
    """Each number of a JSON object and of those inside it, in the order of the text."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from numbers(value, (*way, name))
        elif type(value) in (int, float):
            yield (*way, name), value


class Alike:
    """The lines like one that is sound."""

    def __init__(self, match: Match, names: list[Names]) -> None:
        self.match = match
        """What it finds in a line are its numbers, if the checksum is right, too."""
        self.names = tuple(names)
        """Of these numbers."""

    def read(self, line: bytes) -> tuple[bytes, ...] | None:
        """The numbers of a line, as they stand there; None if it is not alike, or damaged."""
        match = self.match(line)
        if match is None or crc32(line[:-CRC_LENGTH]) != int(line[-10:-2], 16):
            return None
        return match.groups()


def like(line: bytes, wanted: AbstractSet[str]) -> Alike | None:
    """What is like this line, which holds a sound record; None if it stands for no other.

    `wanted`: names of the numbers, or of the objects of numbers, that are to be read.
    """
    content = decode(line) or {}
    times = [content.get(name) for name in ("t", "m")]
    if any(type(time) is not float for time in times):  # whole numbers have another bound
        return None
    content.pop("crc")
    names: list[Names] = []
    try:
        pattern = (_object(content, wanted, names)[: -len("}")] + CRC).encode()
    except (RecursionError, UnicodeEncodeError):  # text that only strangers write
        return None
    match = re.compile(pattern).fullmatch
    return Alike(match, names) if match(line) else None


def _object(content: Content, wanted: AbstractSet[str], names: list[Names], way: Names = ()) -> str:
    """A pattern of this object; adds to `names` what its groups are."""
    pairs = []
    for name, value in content.items():
        here = (*way, name)
        if isinstance(value, dict):
            pattern = _object(value, wanted, names, here)
        elif type(value) not in (int, float) or here == ("v",):
            pattern = _text(value)
        else:
            pattern = WHOLE if type(value) is int else REAL
            if here[0] in wanted:
                pattern = f"({pattern})"
                names.append(here)
        pairs.append(f"{_text(name)}:{pattern}")
    return f"{{{','.join(pairs)}}}"


def _text(value: Any) -> str:
    return re.escape(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
