"""SIGKILL of everything at random moments: the run finishes or is resumable, and is told rightly.

`python tests/bench/kills.py --number 100` does the same a hundred times each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from doubles import start
from killing import BOUND_SECONDS, kill_readers, kill_supervisors, kill_workers

__all__ = ["start"]
ADVISOR = Path(sys.executable).parent / "advisor"


def often(few, many):
    """Number of kills; many of them in `make long`."""
    return pytest.mark.parametrize("number", [few, pytest.param(many, marks=pytest.mark.long)])


@often(3, 8)
def test_killed_workers_lose_no_acknowledged_checkpoint(start, number):
    """Told as killed within five seconds; each resume goes on from the newest checkpoint."""
    tally = kill_workers(start, number, 1)

    assert (tally.violations, tally.num_kills, tally.num_resumed) == ([], number, number)
    assert tally.worst_seconds < BOUND_SECONDS


@often(2, 6)
def test_killed_supervisors_leave_their_runs_alone(start, number):
    """The run goes on and finishes; with its worker killed too it is lost, and resumable."""
    tally = kill_supervisors(start, number, 2)

    half = number // 2
    assert (tally.violations, tally.num_finished, tally.num_resumed) == ([], half, half)
    assert tally.worst_seconds < BOUND_SECONDS


@often(3, 8)
def test_killed_readers_are_nothing_to_a_run(start, number):
    """`advisor watch` may die at any moment of its life."""
    tally = kill_readers(start, number, 3, str(ADVISOR))

    assert (tally.violations, tally.num_kills) == ([], number)
