"""Terminal abilities from the environment, and harmless text."""

from __future__ import annotations

import io
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.terminal import (
    Colours,
    Symbols,
    clean,
    decide,
    harmless,
    harmless_lines,
    look_at_terminal,
    num_cells,
    prepare_environment,
    write_ascii,
)


def colours(**environ: str) -> Colours:
    """Decide colours on a UTF-8 terminal."""
    return decide(environ, is_tty=True, encoding="utf-8").colours


def symbols(encoding: str = "utf-8", **environ: str) -> Symbols:
    """Decide symbols."""
    return decide(environ, is_tty=True, encoding=encoding).symbols


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-256color"}, Colours.MANY),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, Colours.TRUE),
        ({"TERM": "xterm-direct"}, Colours.TRUE),
        ({"TERM": "xterm-truecolor"}, Colours.TRUE),
        ({"TERM": "screen", "COLORTERM": "24BIT"}, Colours.TRUE),
        ({"TERM": "screen", "COLORTERM": "yes"}, Colours.SIXTEEN),
        ({"TERM": "XTERM-DIRECT"}, Colours.TRUE),
        ({"TERM": "DUMB"}, Colours.NONE),
        ({"TERM": "screen"}, Colours.SIXTEEN),
        ({"TERM": "linux"}, Colours.SIXTEEN),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, Colours.NONE),
        ({}, Colours.NONE),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, Colours.NONE),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, Colours.MANY),
    ],
)
def test_colours(environ: dict[str, str], expected: Colours) -> None:
    """NO_COLOR and dumb terminals win over everything that promises colours."""
    assert expected == colours(**environ)


@pytest.mark.parametrize(
    ("environ", "encoding", "expected"),
    [
        ({"TERM": "xterm"}, "utf-8", Symbols.BRAILLE),
        ({"TERM": "xterm"}, "UTF8", Symbols.BRAILLE),
        ({"TERM": "linux"}, "utf-8", Symbols.BLOCK),
        ({"TERM": "xterm"}, "latin-1", Symbols.ASCII),
        ({"TERM": "xterm", "LC_ALL": "C"}, "utf-8", Symbols.ASCII),
        ({"TERM": "xterm", "LC_ALL": "C.UTF-8"}, "utf-8", Symbols.BRAILLE),
        ({"TERM": "xterm", "LC_ALL": "de_DE.utf8"}, "utf_8", Symbols.BRAILLE),
        ({"TERM": "xterm", "TUNEDECK_SYMBOLS": "block"}, "utf-8", Symbols.BLOCK),
        ({"TERM": "xterm", "TUNEDECK_SYMBOLS": "ASCII"}, "utf-8", Symbols.ASCII),
        ({"TERM": "linux", "TUNEDECK_SYMBOLS": "braille"}, "latin-1", Symbols.BRAILLE),
        ({"TERM": "xterm", "TUNEDECK_SYMBOLS": "nonsense"}, "utf-8", Symbols.BRAILLE),
    ],
)
def test_symbols(environ: dict[str, str], encoding: str, expected: Symbols) -> None:
    """The encoding decides, the user's own choice decides over it."""
    assert expected == symbols(encoding, **environ)


@pytest.mark.parametrize(
    ("environ", "is_tty", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
    ],
)
def test_plain_without_a_real_terminal(
    environ: dict[str, str], *, is_tty: bool, expected: bool
) -> None:
    """Pipes, dumb terminals and missing TERM get lines, not a screen."""
    assert expected == decide(environ, is_tty=is_tty, encoding="utf-8").interactive


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (False, 4)),
        ({"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, (True, 1)),
        ({"SSH_TTY": "/dev/pts/1", "TMUX": "/tmp/tmux-0/default,1,0"}, (True, 1)),  # noqa: S108
        ({"STY": "1.pts-0"}, (False, 4)),
        ({"SSH_CLIENT": "10.0.0.1 1 22"}, (True, 1)),
    ],
)
def test_where_the_person_sits(environ: dict[str, str], expected: tuple[bool, int]) -> None:
    """SSH slows the data clock to 1 Hz; tmux alone does not."""
    terminal = decide(environ, is_tty=True, encoding="utf-8")

    assert expected == (terminal.ssh, terminal.ticks_per_second)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm-256color"}, "textual-dark"),
        ({"TERM": "screen"}, "ansi-dark"),
        ({"TERM": "xterm-direct"}, "textual-dark"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, "ansi-dark"),
    ],
)
def test_theme(environ: dict[str, str], expected: str) -> None:
    """Few or no colours take the theme that follows the terminal's own palette."""
    assert expected == decide(environ, is_tty=True, encoding="utf-8").theme


def test_the_environment_for_textual() -> None:
    """A user's own setting stays, and an empty NO_COLOR counts as none."""
    environ = {"TERM": "screen", "NO_COLOR": "", "TEXTUAL_FPS": "30"}
    prepare_environment(decide(environ, is_tty=True, encoding="utf-8"), environ)

    assert {
        "TERM": "screen",
        "TEXTUAL_FPS": "30",
        "TEXTUAL_ANIMATIONS": "none",
        "TEXTUAL_SMOOTH_SCROLL": "0",
        "TEXTUAL_THEME": "ansi-dark",
        "TEXTUAL_COLOR_SYSTEM": "standard",
    } == environ


def test_textual_reads_what_was_prepared() -> None:
    """The names are those of the installed Textual, and preparing too late is an error."""
    code = """
from tui.terminal import decide, prepare_environment
terminal = decide({"TERM": "screen"}, is_tty=True, encoding="utf-8")
prepare_environment(terminal)
from textual import constants as c
print(c.MAX_FPS, c.TEXTUAL_ANIMATIONS, c.SMOOTH_SCROLL, c.DEFAULT_THEME, c.COLOR_SYSTEM)
try:
    prepare_environment(terminal)
except RuntimeError:
    print("late")
"""
    environ = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )

    assert ["10 none False ansi-dark standard", "late"] == done.stdout.splitlines()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llama-3.1-8b", "llama-3.1-8b"),
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("a\x9b2Jb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]52;c;aGk=\x1b\\b", "ab"),
        ("a\x1bPq\x1b\\b", "ab"),
        ("a\x1b", "a"),
        ("two\nlines\tand\r\nmore", "two lines and more"),
        ("abc\u202etxt.exe", "abctxt.exe"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("\ud800lone", "lone"),
        ("naïve 日本", "naïve 日本"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    """Sequences go whole, white space becomes one space, printable text stays."""
    assert expected == clean(text)


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abcdef", 6, "abcdef"),
        ("abcdefg", 6, "abc..."),
        ("abcdefg", 3, "abc"),
        ("abc", 0, ""),
        ("日本日本", 7, "日本..."),
        ("日本日本", 3, "日"),
    ],
)
def test_clean_cuts_by_cells(text: str, limit: int, expected: str) -> None:
    """Wide characters count twice."""
    assert expected == clean(text, limit)


def test_a_line_keeps_its_spaces_and_loses_its_codes() -> None:
    """Each character that cannot be printed becomes one blank, so columns stay aligned."""
    assert harmless("  a\tb\x1b[2J c") == "  a b [2J c"
    assert harmless_lines("a\x07\n  b\r\n") == "a \n  b \n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", 3), ("naïve", 5), ("日本", 4), ("\uff46", 2), ("e\u0301", 2), ("", 0)],
)
def test_the_width_of_a_text(text: str, expected: int) -> None:
    """Wide and full-width characters take two cells."""
    assert expected == num_cells(text)


def test_a_terminal_without_utf8_is_sent_a_question_mark_for_each_cell() -> None:
    """Columns stay where they are; what is no stream of ours is left alone."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    write_ascii(stream)
    stream.write("naïve 日本")
    stream.flush()
    write_ascii(None)

    assert b"na?ve ????" == stream.buffer.getvalue()


class Stream:
    """A stream that is a terminal, or is not."""

    encoding = "utf-8"

    def __init__(self, *, is_tty: bool) -> None:
        self._is_tty = is_tty

    def isatty(self) -> bool:
        """As Python asks."""
        return self._is_tty


@pytest.mark.parametrize("missing", [None, "stdin", "stdout", "stderr"])
def test_a_screen_needs_all_three_streams(monkeypatch, missing: str | None) -> None:
    """Keys are read from one, the screen is drawn on another, data goes to the third."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLORTERM", raising=False)
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, Stream(is_tty=name != missing))
    found = look_at_terminal()

    assert (missing is None) == found.interactive
    assert (Colours.MANY if missing is None else Colours.NONE) == found.colours


def test_a_stream_that_is_closed_is_no_terminal(monkeypatch) -> None:
    """Python has None in its place; without an encoding only ASCII is safe."""
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    found = look_at_terminal()

    assert (False, Symbols.ASCII, False) == (found.interactive, found.symbols, found.unicode)


ANYTHING = st.text(
    st.characters() | st.sampled_from("\x1b[]\x07\x9b\x9c\u202e;m0\\P\n"), max_size=400
)


@given(ANYTHING, st.integers(0, 100))
def test_clean_lets_nothing_through(text: str, limit: int) -> None:
    """Any string becomes printable, of one line, and no wider than the limit."""
    cleaned = clean(text, limit)

    assert [] == [
        char for char in cleaned if unicodedata.category(char)[0] == "C" or char in "\n\r"
    ]
    assert num_cells(cleaned) <= limit


@given(ANYTHING)
def test_clean_is_settled_after_one_pass(text: str) -> None:
    """Cleaning cannot put together a sequence out of the pieces it left."""
    assert clean(text) == clean(clean(text))
