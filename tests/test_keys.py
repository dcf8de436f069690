"""The keys of every screen: what hands have learnt stays, and the footer and help tell it."""

from __future__ import annotations

import pytest

from tui import keys
from tui.keys import Action

KEYS = {
    "HOME": {
        "n": "new",
        "enter": "",
        "w": "watch",
        "m": "machine",
        "question_mark": "help",
        "q": "leave",
    },
    "FORM": {
        "enter": "",
        "right": "",
        "escape": "back",
        "f1": "help",
        "ctrl+u": "clear",
        "pagedown": "page_down",
        "pageup": "page_up",
        "down": "line_down",
        "up": "line_up",
    },
    "DATA": {
        "enter": "",
        "right": "",
        "f2": "rows",
        "f3": "options",
        "escape": "back",
        "f1": "help",
        "ctrl+u": "clear",
        "pagedown": "page_down",
        "pageup": "page_up",
        "down": "line_down",
        "up": "line_up",
    },
    "RECOMMENDATION": {
        "l": "launch",
        "s": "save",
        "question_mark": "help",
        "escape": "back",
        "e": "explain",
        "q": "leave",
        "1": "complexity",
        "2": "critical",
        "3": "value",
        "4": "quality",
    },
    "LIVE": {
        "question_mark": "help",
        "q": "leave",
        "p": "pause",
        "s": "stop",
        "tab": "next_pane",
        "l": "console",
        "c": "checkpoint",
        "enter": "report",
        "escape": "back",
        "r": "resume",
        "y": "copy",
    },
    "LIVE_OVER": {
        "question_mark": "help",
        "enter": "report",
        "r": "resume",
        "l": "console",
        "y": "copy",
        "escape": "back",
        "tab": "next_pane",
        "q": "leave",
    },
    "REPORT": {
        "question_mark": "help",
        "w": "watch",
        "l": "console",
        "y": "copy",
        "escape": "back",
        "q": "leave",
    },
    "PAGER": {"escape": "back", "q": "back", "pagedown": ""},
    "STOP": {"enter": "stop", "x": "stop_now", "escape": ""},
    "LAUNCH": {"enter": "launch", "escape": ""},
    "WRITE": {"enter": "", "escape": ""},
    "REPLACE": {"enter": "replace", "escape": ""},
}
"""Screen -> key -> the method behind it, in the order of the footer."""


@pytest.mark.parametrize("screen", KEYS)
def test_the_keys_of_a_screen_and_what_they_do(screen):
    """In this order: the first ones get the room in the footer."""
    actions = getattr(keys, screen)

    assert [(action.key, action.name) for action in actions] == list(KEYS[screen].items())


FOOTERS = {
    "HOME": "n new run  enter open  w watch  m machine  ? help  q leave",
    "FORM": "enter check, then go on  -> complete  esc back  f1 help  ctrl+u clear  pgdn scroll",
    "DATA": "enter check, then go on  -> complete  f2 rows  f3 options  esc back  f1 help  "
    "ctrl+u clear  pgdn scroll",
    "RECOMMENDATION": "l launch  s save  ? help  esc back  e explain  q leave  1 complexity  "
    "2 critical  3 value  4 quality",
    "LIVE": "? help  q leave (run goes on)  p pause  s stop  tab pane  l log  c checkpoint  "
    "enter report  esc back  r resume  y copy id",
    "LIVE_OVER": "? help  enter report  r resume  l log  y copy id  esc back  tab pane  q leave",
    "REPORT": "? help  w curves  l log  y copy id  esc back  q leave",
    "PAGER": "esc back  pgdn scroll",
    "STOP": "enter save and stop  x stop now, save nothing  esc go on",
    "LAUNCH": "enter start  esc do not",
    "WRITE": "enter save  esc do not",
    "REPLACE": "enter replace  esc do not",
}


@pytest.mark.parametrize("screen", FOOTERS)
def test_the_footer_of_a_screen(screen):
    """Where there is room for all of it."""
    assert keys.footer(getattr(keys, screen), 200) == FOOTERS[screen]


def test_only_clearing_the_input_comes_before_the_input_itself():
    """All other keys are letters that belong into what is being typed."""
    every = [action for screen in KEYS for action in getattr(keys, screen)]

    assert [action.key for action in every if action.is_first] == ["ctrl+u"] * 2


def test_a_key_is_called_what_people_call_it():
    """Textual has names of its own."""
    shown = [a.shown for a in (*keys.FORM, *keys.HOME)]

    assert shown == [
        *["enter", "->", "esc", "f1", "ctrl+u", "pgdn", "pageup", "down", "up"],
        *["n", "enter", "w", "m", "?", "q"],
    ]


def action(key, label):
    return Action(key=key, name="", label=label, help="")


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (0, ""),
        (5, ""),
        (6, "a open"),
        (13, "a open"),
        (16, "a open  d back"),
        (17, "a open  b forward"),
        (24, "a open  b forward"),
        (25, "a open  b forward  d back"),
        (80, "a open  b forward  d back"),
    ],
)
def test_the_footer_holds_what_fits_and_tells_a_label_once(width, expected):
    """To the last cell."""
    actions = [
        action("a", "open"),
        action("b", "forward"),
        action("c", "open"),
        action("d", "back"),
    ]

    assert keys.footer(actions, width) == expected


def test_a_long_entry_does_not_hide_the_short_ones_behind_it():
    """What does not fit is left out alone."""
    actions = [action("a", "open"), action("b", "everything there is"), action("c", "go")]

    assert keys.footer(actions, 14) == "a open  c go"


def test_the_help_has_a_row_for_each_key():
    """Key and sentence."""
    rows = keys.help_rows(keys.PAGER)

    assert rows == [
        ("esc", "one layer back; cancels what is being checked"),
        ("q", "one layer back"),
        ("pgdn", "read on; also arrows, pgup, home, end"),
    ]
