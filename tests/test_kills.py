"""SIGKILL of everything at random moments: the run finishes or is resumable, and is told rightly.

`python tests/bench/kills.py --number 100` does the same a hundred times each.
"""

from __future__ import annotations

import sys
from pathlib import Path

from doubles import start
from killing import BOUND_SECONDS, kill_readers, kill_supervisors, kill_workers

__all__ = ["start"]
ADVISOR = Path(sys.executable).parent / "advisor"


def test_killed_workers_lose_no_acknowledged_checkpoint(start):
    """Told as killed within five seconds; each resume goes on from the newest checkpoint."""
    tally = kill_workers(start, 8, 1)

    assert (tally.violations, tally.num_kills, tally.num_resumed) == ([], 8, 8)
    assert tally.worst_seconds < BOUND_SECONDS


def test_killed_supervisors_leave_their_runs_alone(start):
    """The run goes on and finishes; with its worker killed too it is lost, and resumable."""
    tally = kill_supervisors(start, 6, 2)

    assert (tally.violations, tally.num_finished, tally.num_resumed) == ([], 3, 3)
    assert tally.worst_seconds < BOUND_SECONDS


def test_killed_readers_are_nothing_to_a_run(start):
    """`advisor watch` may die at any moment of its life."""
    tally = kill_readers(start, 8, 3, str(ADVISOR))

    assert (tally.violations, tally.num_kills) == ([], 8)
