"""A clock that is set by a day, and a machine that slept, change no state and end no process."""

from __future__ import annotations

import os
import signal
import time

import pytest
from doubles import end_everything, exit_record, kill, start, steps_done, wait_for, who

from profiles.runs import processes
from profiles.runs.state import State, status
from runner.supervision import control

__all__ = ["start"]
DAY = 86_400.0


@pytest.fixture
def set_clock(monkeypatch):
    """Set the wall clock of this process, a reader, by so many seconds."""
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


@pytest.mark.parametrize("seconds", [DAY, -DAY])
def test_a_live_run_is_at_work_whatever_the_clock_says(start, set_clock, seconds):
    """And obeys what is asked by that clock."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 1, "steps")
    set_clock(seconds)

    assert status(run).state in {State.RUNNING, State.CHECKPOINTING}
    assert processes.supervisor_is_alive(run)
    control.send(run, "stop")
    assert exit_record(run)["state"] == "stopped"


@pytest.mark.parametrize("seconds", [DAY, -DAY])
def test_a_request_from_before_the_clock_was_set_still_counts(start, set_clock, seconds):
    """It was left a moment ago, or tomorrow."""
    run = start("100000 stone")
    wait_for(lambda: steps_done(run) > 1, "steps")
    control.send(run, "pause")
    set_clock(seconds)

    assert [request.verb for request in control.pending(run)] == ["pause"]


@pytest.mark.parametrize("seconds", [DAY, -DAY])
@pytest.mark.parametrize(("part", "state"), [("worker", State.KILLED), ("both", State.LOST)])
def test_a_dead_run_is_dead_whatever_the_clock_says(start, set_clock, part, state, seconds):
    """Killed where somebody recorded it, else lost."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 1, "steps")
    if part == "both":
        kill(run, "supervisor")
    kill(run, "worker")
    wait_for(lambda: status(run).state is state, str(state))
    set_clock(seconds)

    assert status(run).state is state


def test_a_machine_that_slept_goes_on_where_it_was(start):
    """All processes stand still for a while, and nothing is ended for it."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 1, "steps")
    pids = [who(run, "supervisor").pid, *(one.pid for one in processes.marked(run))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        asleep = steps_done(run)
        time.sleep(3.0)
        assert status(run).state in {State.RUNNING, State.CHECKPOINTING}
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    wait_for(lambda: steps_done(run) > asleep + 1, "steps after the sleep")
    assert status(run).state in {State.RUNNING, State.CHECKPOINTING}
    end_everything(run)
