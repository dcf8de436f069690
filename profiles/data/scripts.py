"""Which scripts the letters of a text are in: Latin, CJK, Cyrillic and so on.

A script is not a language: English and French are both Latin. Takes constant memory.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Final

_ASCII: Final = bytes(range(128))
_CJK: Final = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")
_NAMED: Final = ("Latin", "Cyrillic", "Arabic", "Devanagari")
OTHER: Final = "other"


class ScriptCount:
    """Letters seen, by script."""

    def __init__(self) -> None:
        self._num_ascii = 0
        self._others = Counter[str]()
        """By character: bounded by the number of characters there are."""

    def add(self, num_ascii: int, beyond: bytes = b"") -> None:
        """Take a text: how many letters of ASCII it has, and, in UTF-8, what holds its others."""
        self._num_ascii += num_ascii
        if beyond:
            self._others.update(beyond.translate(None, _ASCII).decode())

    def shares(self) -> tuple[tuple[str, float], ...]:
        """Script and its share of all letters, the largest first; none without letters."""
        counts = Counter({"Latin": self._num_ascii})
        for char, count in self._others.items():
            if char.isalpha():
                counts[script_of(char)] += count
        total = counts.total()
        return tuple((name, count / total) for name, count in counts.most_common() if count)


def script_of(letter: str) -> str:
    """The script that the Unicode name of a letter begins with; CJK with kana and hangul."""
    name = unicodedata.name(letter, "")
    if name.startswith(_CJK):
        return "CJK"
    return next((one for one in _NAMED if name.startswith(one.upper())), OTHER)
