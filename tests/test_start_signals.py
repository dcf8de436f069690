"""A command that is ended while it starts a run leaves none behind that nobody was told of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from doubles import end_everything, ended, environment, exit_record, start, wait_for, who

from profiles.runs import identity, listing
from profiles.runs.state import State, status

__all__ = ["start"]
STARTER = """
import os, signal, sys
from pathlib import Path
from profiles.runs import durable, rundir
from profiles.runs.rundir import RunDir
from runner.supervision import launch

place, name, moment, number = sys.argv[1:5]
if number == str(int(signal.SIGHUP)) and "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
place = {"rundir": rundir, "durable": durable, "launch": launch, "RunDir": RunDir}[place]
real = getattr(place, name)

def hooked(*args, **kw):
    if moment == "before":
        os.kill(os.getpid(), int(number))
    found = real(*args, **kw)
    if moment == "after":
        os.kill(os.getpid(), int(number))
    return found

setattr(place, name, hooked)
tell = lambda run: print(run.id, flush=True)
if "resume" in sys.argv:
    launch.resume(RunDir(Path(sys.argv[-1])), tell=tell)
else:
    launch.start(b"", name="a run", base_dir=Path("/"), devices=(), tell=tell)
print("started", flush=True)
"""
BEFORE = [
    ("rundir", "create", "before"),
    ("rundir", "create", "after"),
    ("durable", "write_atomic", "after"),
    ("durable", "write_json", "after"),
    ("rundir", "keep_rooms", "after"),
    ("RunDir", "claim", "before"),
    ("RunDir", "claim", "after"),
]
LATER = [
    ("launch", "_start_supervisor", "before"),
    ("launch", "_spawn", "before"),
    ("launch", "_spawn", "after"),
    ("launch", "_wait_for_sign", "before"),
    ("launch", "_wait_for_sign", "after"),
]
ENDING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@pytest.fixture
def begin():
    """Start a run in another process, which gets a signal at a moment; its code and output."""

    def call(moment, number=signal.SIGTERM, *more):
        command = [sys.executable, "-c", STARTER, *moment, str(int(number)), *map(str, more)]
        variables = os.environ | environment("3")
        variables["PYTHONPATH"] += os.pathsep + os.pathsep.join(sys.path)
        done = subprocess.run(
            command, capture_output=True, text=True, env=variables, timeout=60, check=False
        )
        return done.returncode, done.stdout.split()

    yield call
    for run in listing.all_runs():
        end_everything(run)


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("moment", BEFORE)
def test_who_is_ended_before_anything_works_leaves_nothing(begin, home, moment, number):
    """No run, and no folder of one."""
    code, said = begin(moment, number)

    assert (code, said) == (-number, [])
    assert not list((home / "runs").glob("*"))


@pytest.mark.parametrize("moment", LATER)
def test_who_is_ended_later_has_told_which_run_there_is(begin, moment):
    """Whether it works by then or does not."""
    code, said = begin(moment)

    assert code == -signal.SIGTERM
    (run,) = listing.all_runs()
    assert said == [run.id]
    if moment[2] == "before" and moment[1] in ("_start_supervisor", "_spawn"):
        assert (status(run).state, status(run).reason) == (State.LOST, "it was never started")
    else:
        assert exit_record(run)["state"] == "finished"


def test_a_signal_that_is_ignored_ends_no_start(begin):
    """Under nohup."""
    code, said = begin(("RunDir", "claim", "after"), signal.SIGHUP, "nohup")

    (run,) = listing.all_runs()
    assert (code, said) == (0, [run.id, "started"])


def test_what_is_started_listens_to_signals(start):
    """Nothing of what waited for the start is handed down."""
    run = start(100_000)
    worker = wait_for(lambda: who(run, "worker"), "the worker")
    told = Path(f"/proc/{worker.pid}/status").read_text().splitlines()

    (blocked,) = (line.split()[1] for line in told if line.startswith("SigBlk"))
    assert int(blocked, 16) == 0
    identity.send_signal(worker, signal.SIGTERM)
    assert ended(run).state is State.STOPPED


@pytest.mark.parametrize("moment", [("RunDir", "claim", "after"), ("launch", "_spawn", "before")])
def test_a_resume_that_is_ended_is_told_too_and_can_be_given_again(begin, start, moment):
    """The attempt that was taken did not begin."""
    run = start(3)
    exit_record(run)
    run.exit.unlink()  # as if it had been lost
    run.worker_events.write_text("")

    code, said = begin(moment, signal.SIGTERM, "resume", run.path)

    assert (code, said) == (-signal.SIGTERM, [run.id])
    assert (run.attempt(), status(run).state) == (2, State.LOST)
