"""The texts and flags inside a row, checked; every format reads its rows with these.

Decides what counts as a fault of a value. Knows no turns: those are in turns.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from profiles.data.formats.spec import FLAGS, RowError, is_flag
from profiles.data.words import type_name

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row


def type_error(value: object, key: str, wanted: type, inside: str = "") -> RowError:
    """The fault of a value that is missing or of another type; `inside` says where the key is."""
    if value is None:
        return RowError(f"lack `{key}`{inside}")
    is_nan = isinstance(value, float) and math.isnan(value)
    found = "NaN" if is_nan else type_name(type(value))
    return RowError(f"have {found} in `{key}`{inside}, not {type_name(wanted)}")


def text(row: Row, key: str, inside: str = "") -> str:
    """The text under a key; RowError if there is none or it cannot be written as UTF-8."""
    value = row.get(key)
    if not isinstance(value, str):
        raise type_error(value, key, str, inside)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RowError(f"have half of a character (a lone \\ud8..) in `{key}`") from None
    return value


def optional_text(row: Row, key: str, inside: str = "") -> str:
    """The text under a key, "" where the key is missing or null."""
    return "" if row.get(key) is None else text(row, key, inside)


def flag(row: Row, key: str) -> bool:
    """True or false under a key; RowError if it is neither."""
    value = row.get(key)
    if not is_flag(value):
        raise type_error(value, key, bool)
    return FLAGS[value.strip().lower()] if isinstance(value, str) else bool(value)
