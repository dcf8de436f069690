"""The state of a run, derived from files and processes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from profiles import durable, identity, rundir, state
from profiles.journal import Journal
from profiles.state import State


@pytest.fixture
def run():
    """A run that was started a moment ago."""
    found = rundir.create("a run")
    durable.write_json(found.manifest, {"created": 1.0})
    durable.write_atomic(found.attempt_file, b"1\n")
    return found


@pytest.fixture
def sleeper():
    """A live process to pose as a worker."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def working(run, pid, **changes):
    """Say that this process works on the run."""
    who = identity.of_process(pid)
    assert who is not None
    worker = replace(who, **changes).as_dict()
    durable.write_json(run.processes, {"attempt": run.attempt(), "worker": worker})


def events(run, *kinds, attempt=1):
    """Let the worker say these things."""
    file = Journal(run.worker_events, attempt=attempt)
    for kind in kinds:
        file.append(kind, step=3)


def test_a_run_without_processes_is_queued_at_first(run):
    """The supervisor has some seconds to appear."""
    assert state.status(run).state is State.QUEUED


def test_a_run_that_nobody_ever_started_is_lost(run):
    """It does not stay queued for ever."""
    os.utime(run.attempt_file, (1, 1))

    assert state.status(run).state is State.LOST


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["worker_started"], State.STARTING),
        (["worker_started", "train_begun"], State.RUNNING),
        (["train_begun", "save_begun"], State.CHECKPOINTING),
        (["train_begun", "save_begun", "checkpoint"], State.RUNNING),
        (["train_begun", "paused"], State.PAUSED),
        (["train_begun", "paused", "unpaused"], State.RUNNING),
        (["train_begun", "stop_accepted"], State.STOPPING),
        (["train_begun", "stop_accepted", "save_begun", "checkpoint"], State.STOPPING),
    ],
)
def test_a_live_run_is_in_the_state_of_its_last_event(run, sleeper, kinds, expected):
    """The worker's own words, while it lives."""
    working(run, sleeper.pid)
    events(run, *kinds)

    assert state.status(run).state is expected


def test_a_dead_run_without_an_exit_record_is_lost(run, sleeper):
    """Never "running" for a dead run, whatever its last event says."""
    working(run, sleeper.pid)
    events(run, "train_begun")
    sleeper.kill()
    sleeper.wait()

    assert state.status(run).state is State.LOST


def test_a_recycled_pid_is_not_the_worker(run, sleeper):
    """The same pid with another start time is somebody else."""
    working(run, sleeper.pid, start=1)

    assert state.status(run).state is State.LOST


def test_another_boot_is_told(run, sleeper):
    """The reason names the restart."""
    working(run, sleeper.pid, boot_id="another")

    assert "restarted" in state.status(run).reason


def test_a_run_of_another_host_is_not_judged(run, sleeper):
    """On a shared home the run may well be alive."""
    working(run, sleeper.pid, host="gpu-b")

    assert state.status(run).state is State.ELSEWHERE


def test_a_descendant_that_holds_the_lock_keeps_the_run_alive(run, sleeper):
    """Lock free proves that nothing of the run is left; lock held, that something is."""
    working(run, sleeper.pid, start=1)
    with run.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert state.status(run).state is State.RUNNING


def test_the_exit_record_has_the_last_word(run, sleeper):
    """Even while the dying supervisor can still be seen."""
    working(run, sleeper.pid)
    record = {"attempt": 1, "state": "killed", "code": 137, "what": "killed by SIGKILL"}
    durable.write_json(run.exit, record)

    found = state.status(run)

    assert (found.state, found.exit_code, found.reason) == (State.KILLED, 137, "killed by SIGKILL")


def test_the_exit_record_of_an_earlier_attempt_is_history(run, sleeper):
    """A resumed run is not over."""
    durable.write_json(run.exit, {"attempt": 1, "state": "killed", "code": 137})
    durable.write_atomic(run.attempt_file, b"2\n")
    working(run, sleeper.pid)
    events(run, "train_begun", attempt=2)

    assert state.status(run).state is State.RUNNING


def test_a_worker_that_finished_without_its_supervisor_is_finished(run, sleeper):
    """The supervisor was killed, the worker came to its end."""
    working(run, sleeper.pid, start=1)
    file = Journal(run.worker_events, attempt=1)
    file.append("end", state="finished", step=9)

    assert state.status(run).state is State.FINISHED
