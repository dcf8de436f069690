"""Lines of text for people: width, tables, wrapping, the parts of an error, JSON."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from enum import StrEnum

import pytest

from profiles.errors import ExitCode, UserError
from tui import plain


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("80", 80),
        ("39", 40),
        ("40", 40),
        ("121", 120),
        ("120", 120),
        ("", 80),
        ("0", 80),
        ("x", 80),
    ],
)
def test_the_width_is_the_terminals_within_what_reads_well(monkeypatch, columns, expected):
    """COLUMNS is asked first; no number means that it is not known."""
    monkeypatch.setenv("COLUMNS", columns)

    assert plain.page_width() == expected


def test_without_columns_the_terminal_is_asked(monkeypatch):
    """A stream without a file has no size."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("os.get_terminal_size", lambda _fd: type("Size", (), {"columns": 66}))
    monkeypatch.setattr(sys, "stdout", type("Stream", (), {"fileno": lambda _self: 1})())
    assert plain.page_width() == 66

    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert plain.page_width() == 80


ROWS = [("a", "1", "first"), ("bbb", "22", "second one")]


def test_columns_are_as_wide_as_their_widest_cell():
    """Two blanks between them, none at the end of a line."""
    assert plain.table(ROWS) == ["a    1   first", "bbb  22  second one"]
    assert plain.table(ROWS, header=("name", "n", "")) == [
        "name  n",
        "a     1   first",
        "bbb   22  second one",
    ]
    assert plain.table([]) == []
    assert plain.table([], header=("x", "y")) == ["x  y"]


def test_numbers_are_aligned_to_the_right():
    """The last column too, where it is one."""
    assert plain.table(ROWS, right=[1], indent=" ") == [" a     1  first", " bbb  22  second one"]
    assert plain.table([("a", "1"), ("b", "100")], right={1}) == ["a    1", "b  100"]


def test_the_last_column_wraps_under_itself():
    """Within the width."""
    rows = [("日本", "one two three four five"), ("b", "six")]

    assert plain.table(rows, width=20, indent=" ") == [
        " 日本  one two three",
        "       four five",
        " b     six",
    ]


def test_a_cell_from_outside_is_harmless():
    """One line, no codes, three hundred cells at most."""
    (row,) = plain.table([("a\x1b[2J\nb", "x" * 400)])

    assert row == f"a b  {'x' * 297}..."


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"width": 20}, ["one two three four", "five"]),
        ({"width": 20, "indent": "  "}, ["  one two three four", "  five"]),
        ({"width": 20, "indent": "  ", "first": "! "}, ["! one two three four", "  five"]),
        ({"width": 20, "indent": "  ", "first": ""}, ["one two three four", "  five"]),
        ({"width": 3}, ["one two three four", "five"]),
    ],
)
def test_a_paragraph(arguments, expected):
    """Never narrower than twenty, or words would stand alone."""
    assert plain.wrap("one two three four five", **arguments) == expected


def test_long_words_and_hyphens_are_not_broken():
    """A path must be copied whole."""
    assert plain.wrap("at /a/very-long/path-of-files/x", 20) == [
        "at",
        "/a/very-long/path-of-files/x",
    ]
    assert plain.wrap("", 20, first="head: ") == ["head:"]


def test_facts_stand_below_each_other_and_empty_ones_are_left_out():
    """Values wrap under themselves."""
    pairs = [("a", "one two three four five"), ("long", "x"), ("none", "")]

    assert plain.facts(pairs, 22) == [
        "a     one two three",
        "      four five",
        "long  x",
    ]
    assert plain.facts([("none", "")], 22) == []


def test_an_error_has_four_parts():
    """Each line of advice below the other, all of it harmless."""
    error = UserError(
        "what\x1b[2J", why="because", do="first\nthen", where="there", code=ExitCode.USAGE
    )

    assert plain.error_lines(error) == [
        "error: what",
        "",
        "why:   because",
        "do:    first",
        "       then",
        "where: there",
    ]


def test_a_long_part_of_an_error_goes_on_under_itself():
    """Seven cells in, as all parts are."""
    error = UserError(
        "one two three four", why="a b c d e f g h i", do="d", where="p", code=ExitCode.USAGE
    )

    assert plain.error_lines(error, 20) == [
        *("error: one two three", "       four", "", "why:   a b c d e f g", "       h i"),
        *("do:    d", "where: p"),
    ]


def test_the_parts_of_an_error_are_cut_where_they_are_endless():
    """A page of text is no message."""
    error = UserError("w " * 500, why="y " * 900, do="d", where="p", code=ExitCode.USAGE)

    rows = plain.error_lines(error, 10_000)

    assert len(rows[0]) == len("error: ") + 400
    assert len(rows[2]) == len("why:   ") + 1000


def test_messages_go_to_stderr_and_data_to_stdout(capsys):
    """Without control codes; lines stay lines."""
    plain.say("a\tb\nc\x1b")
    plain.show(["d", "e\x07"])
    plain.say()

    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("d\ne \n", "a b\nc \n\n")


def stream(encoding):
    """A stdout with an encoding."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def written(monkeypatch, encoding, write):
    """What arrives at stdout."""
    out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    write()
    return out.buffer.getvalue().decode(encoding)


def test_what_the_encoding_cannot_say_is_replaced(monkeypatch):
    """The line is printed all the same."""
    assert written(monkeypatch, "ascii", lambda: plain.show(["naïve"])) == "na?ve\n"
    assert written(monkeypatch, "utf-8", lambda: plain.show(["naïve"])) == "naïve\n"


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("utf-8", "naïve", '"naïve"'),
        ("UTF8", "naïve", '"naïve"'),
        ("latin-1", "naïve", '"na\\u00efve"'),
        ("utf-8", "\x7f", '"\\u007f"'),
        ("utf-8", "\u202e", '"\\u202e"'),
    ],
)
def test_json_is_escaped_where_it_would_do_harm(monkeypatch, encoding, text, expected):
    """And readable where it does none; it is the same value either way."""
    found = written(monkeypatch, encoding, lambda: plain.show_json(text))

    assert found == f"{expected}\n"
    assert json.loads(found) == text


class Colour(StrEnum):
    """An enum."""

    RED = "red"


@dataclass
class Point:
    """A fact type."""

    x: float
    y: tuple


def test_facts_become_what_json_knows():
    """A number that is none becomes null, in every place."""
    nan, inf = float("nan"), float("inf")
    value = {"p": Point(nan, (1, Colour.RED)), 3: {1.5}, "l": [frozenset({None}), -inf, "s", True]}

    assert plain.jsonable(value) == {
        "p": {"x": None, "y": [1, "red"]},
        "3": [1.5],
        "l": [[None], None, "s", True],
    }
    assert plain.jsonable(Point) is Point
    assert type(plain.jsonable(Colour.RED)) is str


def test_a_full_disk_is_told_and_a_reader_that_left_is_not(monkeypatch):
    """The one is an error of the place, the other of nobody."""

    def fail(error):
        def print_to(*_words, **_options):
            raise error

        monkeypatch.setattr("builtins.print", print_to)

    fail(BrokenPipeError())
    with pytest.raises(BrokenPipeError):
        plain.show(["a"])

    monkeypatch.setattr("os.dup2", lambda *_files: None)
    monkeypatch.setattr(
        sys, "stdout", type("Full", (), {"encoding": "utf-8", "fileno": lambda _s: 1})()
    )
    fail(OSError(28, "No space left on device"))
    with pytest.raises(UserError, match="No space left on device") as caught:
        plain.show(["a"])
    assert caught.value.code is ExitCode.IO_ERROR
