"""What the terminal can do, decided once at start, and how text is written on it.

The answer depends only on the environment variables, the streams' encoding and whether they are a
terminal, so a test can pass all of them. Textual reads its TEXTUAL_* settings when it is imported:
`prepare_environment` must run before that, and nothing here may import Textual.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import unicodedata
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import TextIO


class Colours(Enum):
    """How many colours may be used."""

    NONE = auto()
    SIXTEEN = auto()
    MANY = auto()
    TRUE = auto()


class Symbols(StrEnum):
    """Which characters charts and bars are drawn with."""

    BRAILLE = "braille"
    BLOCK = "block"
    ASCII = "ascii"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """The abilities of the terminal that the person sits at."""

    ssh: bool
    colours: Colours
    symbols: Symbols
    interactive: bool
    """A screen can be drawn and keys can be read; if not, plain lines."""

    @property
    def unicode(self) -> bool:
        """Whether more than ASCII may be printed."""
        return self.symbols is not Symbols.ASCII

    @property
    def theme(self) -> str:
        """Textual theme: the terminal's own colours unless it has at least 256."""
        rich = self.colours in {Colours.MANY, Colours.TRUE}
        return "textual-dark" if rich else "ansi-dark"

    @property
    def frames_per_second(self) -> int:
        """Cap of the repaint rate, keys included."""
        return 10

    @property
    def ticks_per_second(self) -> int:
        """Data frames: one a second over SSH."""
        return 1 if self.ssh else 4


def look_at_terminal() -> Terminal:
    """Decide for this process. Textual reads stdin and draws on stderr; data goes to stdout."""
    streams = (sys.stdin, sys.stdout, sys.stderr)
    is_tty = all(stream is not None and stream.isatty() for stream in streams)
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return decide(os.environ, is_tty=is_tty, encoding=encoding)


def decide(environ: Mapping[str, str], *, is_tty: bool, encoding: str) -> Terminal:
    """Decide from the environment alone."""
    term = environ.get("TERM", "")
    return Terminal(
        ssh=any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT")),
        colours=_colours(environ) if is_tty else Colours.NONE,
        symbols=_symbols(environ, encoding),
        interactive=is_tty and term not in {"", "dumb"},
    )


def _colours(environ: Mapping[str, str]) -> Colours:
    term = environ.get("TERM", "").lower()
    if environ.get("NO_COLOR") or term in {"", "dumb"}:
        return Colours.NONE
    if environ.get("COLORTERM", "").lower() in {"truecolor", "24bit"}:
        return Colours.TRUE
    if term.endswith(("-direct", "-truecolor")):
        return Colours.TRUE
    return Colours.MANY if "256" in term else Colours.SIXTEEN


def _symbols(environ: Mapping[str, str], encoding: str) -> Symbols:
    asked = environ.get("TUNEDECK_SYMBOLS", "").lower()
    if asked in set(Symbols):
        return Symbols(asked)
    # Python reports UTF-8 in the C locale too, so an explicit LC_ALL is asked first.
    forced = environ.get("LC_ALL", "").lower()
    locale_is_utf8 = not forced or forced.replace("-", "").endswith("utf8")
    if not locale_is_utf8 or encoding.lower().replace("-", "").replace("_", "") != "utf8":
        return Symbols.ASCII
    # The Linux console knows boxes and blocks, but its fonts have no braille.
    return Symbols.BLOCK if environ.get("TERM") == "linux" else Symbols.BRAILLE


def prepare_environment(terminal: Terminal, environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what Textual reads at import; a value the user has set stays."""
    if environ is os.environ and "textual.constants" in sys.modules:
        raise RuntimeError("Textual was imported before its settings were made")
    settings = {
        "TEXTUAL_FPS": str(terminal.frames_per_second),
        "TEXTUAL_ANIMATIONS": "none",
        "TEXTUAL_SMOOTH_SCROLL": "0",
        "TEXTUAL_THEME": terminal.theme,
    }
    if terminal.colours is Colours.SIXTEEN:
        settings["TEXTUAL_COLOR_SYSTEM"] = "standard"
    for name, value in settings.items():
        environ.setdefault(name, value)
    # An empty NO_COLOR means nothing (no-color.org), but Textual would turn grey.
    if environ.get("NO_COLOR") == "":
        del environ["NO_COLOR"]


def write_ascii(stream: TextIO | None) -> None:
    """From here on write "?" for each cell of a character that the terminal does not know."""
    codecs.register_error("cells", _question_marks)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="ascii", errors="cells")


def _question_marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "?" * num_cells(error.object[error.start : error.end]), error.end


_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS
    r"|\x1b[ -/]*[0-~]"
)
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_WHITE_SPACE = re.compile(r"[\s\x85\u2028\u2029]+")


def num_cells(text: str) -> int:
    """Width on the screen; marks that take no room are counted as one, to stay on the safe side."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def clean(text: str, limit: int = 200) -> str:
    """Make a string from outside harmless: one line, no control codes, at most `limit` cells.

    Markup is not its business: print the result with Rich's and Textual's markup switched off.
    """
    # Much longer than the limit is cut before the work: names and messages can be megabytes.
    text = _ESCAPE_SEQUENCE.sub("", text[: 16 * limit + 4096])
    text = _WHITE_SPACE.sub(" ", text)
    text = "".join(char for char in text if unicodedata.category(char) not in _UNPRINTABLE)
    text = _WHITE_SPACE.sub(" ", text)
    if num_cells(text) <= limit:
        return text
    ending = "..." if limit > len("...") else ""
    return _first_cells(text, limit - len(ending)) + ending


def harmless(line: str) -> str:
    """Take control codes out of a line whose spaces mean something."""
    return "".join(char if char.isprintable() else " " for char in line)


def harmless_lines(text: str) -> str:
    """Each line made harmless."""
    return "\n".join(harmless(line) for line in text.split("\n"))


def _first_cells(text: str, limit: int) -> str:
    used = 0
    for index, char in enumerate(text):
        used += num_cells(char)
        if used > limit:
            return text[:index]
    return text
