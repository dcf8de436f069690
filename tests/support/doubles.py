"""Runs that are started the real way, by launcher and supervisor, with the torch-free double."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from on_disk import read_all

from profiles.runs import identity, listing
from profiles.runs.rundir import read_json
from profiles.runs.state import status
from runner.supervision import launch, leftovers

CUSTOM = Path(__file__).parent / "doubled"
DEADLINE_SECONDS = 30


def wait_for(condition, what, seconds=DEADLINE_SECONDS):
    """Poll until it holds; a test must not hang."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


def environment(arguments):
    """Variables that let every Python below start the double with these arguments."""
    return {"PYTHONPATH": str(CUSTOM), "TUNEDECK_TEST_WORKER": str(arguments)}


def steps_done(run):
    """How many steps the workers recorded."""
    return sum(1 for r in read_all(run.metrics) if r["kind"] == "step")


def ended(run):
    """The status once the run is over."""
    return wait_for(lambda: (s := status(run)).state.is_over and s, "the end")


def exit_record(run):
    """The content of exit.json once it is there for the current attempt."""

    def content():
        found = read_json(run.exit)
        return found if found and found["attempt"] == run.attempt() else None

    return wait_for(content, "exit.json")


def who(run, part):
    """Identity of the supervisor or the worker."""
    return identity.from_dict((read_json(run.processes) or {}).get(part))


def kill(run, part, number=signal.SIGKILL):
    """Signal the supervisor or the worker, once it is known."""
    return identity.send_signal(wait_for(lambda: who(run, part), f"the {part}"), number)


def kinds(run):
    """Kinds of the supervisor's events, in order."""
    return [e["kind"] for e in read_all(run.supervisor_events)]


def end_everything(run):
    """Leave no process of a run behind."""
    if who(run, "supervisor") is not None:
        kill(run, "supervisor")
    leftovers.end(run)


@pytest.fixture
def start(monkeypatch):
    """Start a run of the double: `start("1000 deaf")` gives its directory."""
    started = []

    def call(arguments=1000, **variables):
        for name, value in (environment(arguments) | variables).items():
            monkeypatch.setenv(name, value)
        run = launch.start(b"", name="a run", base_dir=Path("/"), devices=())
        started.append(run)
        return run

    yield call
    for run in [*started, *(r for r in listing.all_runs() if r not in started)]:
        end_everything(run)
