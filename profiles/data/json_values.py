"""One JSON value out of a text: Python's parser, which also tells of keys that are said twice.

Decides what is refused in a value however it was written down: too deep, or ambiguous. Does not
know where the text comes from.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

from profiles.data.formats.spec import Row, RowError
from profiles.data.words import printable

MAX_DEPTH: Final = 64
"""Levels of lists and objects; no data format needs more than 4."""


class Decoder:
    """Python's JSON, which also tells of a key that an object has twice: one would be lost."""

    def __init__(self) -> None:
        self.doubled: str | None = None
        """The first such key in the text that was decoded last."""
        self._json = json.JSONDecoder(object_pairs_hook=self._object)

    def decode(self, text: str) -> Any:
        """The value of a whole text; ValueError where it is not JSON."""
        self.doubled = None
        if text.startswith("{"):  # as lines do; the library looks for white space by patterns
            value, end = self._json.raw_decode(text)
            if not text[end:].strip(" \t\r\n"):
                return value
        return self._json.decode(text)

    def scan(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins at `start`, and where it ends."""
        self.doubled = None
        return self._json.raw_decode(text, start)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs) and self.doubled is None:
            counts = Counter([key for key, _ in pairs])
            self.doubled = next(key for key, count in counts.items() if count > 1)
        return found


DECODER = Decoder()


def parse_cell(text: str, key: str) -> Any:
    """The JSON value in one cell of a table; RowError where it is none."""
    try:
        value = DECODER.decode(text)
    except RecursionError:
        raise RowError(f"have a `{key}` nested deeper than {MAX_DEPTH} levels") from None
    except ValueError:
        if text.lstrip().startswith(("[{'", "{'", "['")):
            raise RowError(f"have Python text in `{key}`, not JSON (single quotes)") from None
        raise RowError(f"have a text in `{key}` that is not JSON") from None
    if isinstance(value, list | dict) and depth(value) > MAX_DEPTH:
        raise RowError(f"have a `{key}` nested deeper than {MAX_DEPTH} levels")
    return value


def said_once(row: Row) -> Row | RowError:
    """The row just decoded, unless a key in it is there twice."""
    if DECODER.doubled is None:
        return row
    return RowError(f"have the key `{printable(DECODER.doubled, 40)}` twice in one object")


def depth(value: Row | list[Any]) -> int:
    """Levels of lists and objects, counted without recursion."""
    num_levels = 0
    level: list[Row | list[Any]] = [value]
    while level:
        num_levels += 1
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for values in inner for one in values if isinstance(one, (dict, list))]
    return num_levels
