"""What a data file holds, in words that may stand on a terminal.

Decides how a text of a file is shortened and how a type is called. Knows no formats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPE_NAMES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def type_name(kind: type) -> str:
    """A type in the words of JSON: "a text", "a list"; Parquet knows more of them."""
    return _TYPE_NAMES.get(kind) or f"a {kind.__name__}"


def printable(text: str, num_chars: int) -> str:
    """Shorten a text to a form that cannot move the cursor or colour the terminal."""
    short = text if len(text) <= num_chars else text[:num_chars] + "…"
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in short)
