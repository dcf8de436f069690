"""Runs and their states as lines."""

from __future__ import annotations

import time
from types import SimpleNamespace

from profiles.run_facts import Result, Verdict
from profiles.runs.state import State
from tui.pages import status as page


def entry(name, **changes):
    """A run and its state, five seconds old."""
    values = {
        "state": State.RUNNING,
        "step": 431,
        "num_steps": 1000,
        "result": Result(verdict=Verdict.BETTER, base_loss=3.8312, loss=3.6149),
        "since": 995.0,
        "notice": "",
    }
    return SimpleNamespace(id=name), SimpleNamespace(**(values | changes))


def test_a_row_for_each_run_and_below_them_what_needs_a_person(monkeypatch):
    """What a run does not know is a dash; a clock that was set back is no negative time."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    found = [
        entry("one"),
        entry("two", num_steps=None, result=Result(), since=2000.0, state=State.FINISHED),
        entry("three", step=0, since=0.0, notice="no sign\x1b[2J for 61 s"),
    ]

    assert page.runs(found) == [
        "run    state     step      model                last record",
        "one    running   431/1000  better 3.83 -> 3.61  5 s ago",
        "two    finished  431       not evaluated        0 s ago",
        "three  running   0/1000    better 3.83 -> 3.61  16 m 40 s ago",
        "! three: no sign for 61 s",
    ]
