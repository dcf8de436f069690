"""Lines with a colour of their own, for terminals that have any; what they say is said without."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Tone(Enum):
    """What a line is; the value is its colour, as terminals (SGR) and Rich name it."""

    PLAIN = ("", "")
    HEAD = ("1", "bold")
    LEARNT = ("32", "green")
    CUT = ("31", "red")
    WARNING = ("33", "yellow")

    @property
    def rich(self) -> str:
        """Rich's name of the style."""
        return self.value[1]

    def painted(self, text: str) -> str:
        """The text with the sequences of a terminal around it."""
        return f"\x1b[{self.value[0]}m{text}\x1b[0m" if self.value[0] and text else text


class Line(NamedTuple):
    """A line of a page."""

    text: str
    tone: Tone = Tone.PLAIN
