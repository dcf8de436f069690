"""Kills a reader, a worker or a supervisor at random moments and collects what went wrong.

The runs are real ones: launcher, supervisor, journals, checkpoints; only the worker is the
torch-free double. A violation is a sentence; no violation is the promise kept.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from doubles import end_everything, kill, steps_done, wait_for
from on_disk import read_all

from profiles.runs import notices
from profiles.runs.state import State, status
from runner import checkpoints
from runner.supervision import launch

BOUND_SECONDS = 5.0
_LIVE = {State.QUEUED, State.STARTING, State.RUNNING, State.CHECKPOINTING}
_SHORT, _ENDLESS = 40, 100_000


@dataclass
class Tally:
    """What happened over all kills of one kind."""

    target: str
    num_kills: int = 0
    num_finished: int = 0
    num_resumed: int = 0
    worst_seconds: float = 0.0
    """Longest time from a kill until the status was right."""
    violations: list[str] = field(default_factory=list)

    def expect(self, holds: object, what: str) -> None:
        """Note a broken promise."""
        if not holds:
            self.violations.append(f"kill {self.num_kills} of {self.target}: {what}")

    def until_right(self, run, right, allowed) -> None:
        """Poll the status until it is right; anything but the allowed states before is wrong."""
        began = time.monotonic()
        while not right(now := status(run)):
            self.expect(now.state in allowed, f"called {now.state} ({now.reason})")
            if time.monotonic() - began > BOUND_SECONDS:
                self.violations.append(f"still {now.state} after {BOUND_SECONDS} s")
                return
            time.sleep(0.01)
        self.worst_seconds = max(self.worst_seconds, time.monotonic() - began)

    def check_files(self, run) -> None:
        """No acknowledged checkpoint is lost, no record is missing."""
        for event in read_all(run.worker_events):
            if event["kind"] == "checkpoint":
                path = run.checkpoints / f"step-{event['step']:08d}"
                fault = checkpoints.verify(path)
                self.expect(fault is None, f"acknowledged checkpoint {event['step']}: {fault}")
        for path in (run.worker_events, run.supervisor_events, run.metrics):
            found = [r["seq"] for r in read_all(path)]
            self.expect(found == list(range(1, len(found) + 1)), f"gaps in {path.name}")


def _moments(seed: int, longest_seconds: float) -> Iterator[float]:
    chance = random.Random(seed)  # noqa: S311  # no secret: a moment, the same in each run
    while True:
        yield chance.uniform(0.0, longest_seconds)


def _wait_for_steps(run) -> None:
    before = steps_done(run)
    wait_for(lambda: steps_done(run) > before, "steps")


def kill_workers(start, number: int, seed: int) -> Tally:
    """One run, killed again and again and resumed each time, then left to reach its end."""
    tally, run, moments = Tally("worker"), start(_ENDLESS), _moments(seed, 0.4)
    for _ in range(number):
        _wait_for_steps(run)
        time.sleep(next(moments))
        tally.expect(status(run).state in _LIVE, f"a live run is called {status(run).state}")
        tally.num_kills += 1
        kill(run, "worker")
        ending = {*_LIVE, State.STOPPING}
        tally.until_right(run, lambda s: s.state is State.KILLED, ending)
        tally.check_files(run)
        tally.num_resumed += _resumed(tally, run)
    tally.expect(status(run).state in _LIVE, "the last attempt does not live")
    end_everything(run)
    return tally


def _resumed(tally: Tally, run) -> bool:
    saved = status(run).resumable_from or 0
    acknowledged = [e["step"] for e in read_all(run.worker_events) if e["kind"] == "checkpoint"]
    tally.expect(saved >= max(acknowledged, default=0), f"resumable from {saved} only")
    launch.resume(run)
    return True


def kill_supervisors(start, number: int, seed: int) -> Tally:
    """The run goes on without; every second time its worker is killed too, and it is resumed."""
    tally, moments = Tally("supervisor"), _moments(seed, 0.4)
    for turn in range(number):
        run = start(_SHORT if turn % 2 == 0 else _ENDLESS)
        _wait_for_steps(run)
        time.sleep(next(moments))
        tally.num_kills += 1
        kill(run, "supervisor")
        if turn % 2:
            tally.until_right(run, lambda s: s.notice == notices.SUPERVISOR_LOST, _LIVE)
            kill(run, "worker")
            tally.until_right(run, lambda s: s.state is State.LOST, _LIVE)
            tally.num_resumed += _resumed(tally, run)
            _wait_for_steps(run)
        else:
            wait_for(lambda run=run: status(run).state is State.FINISHED, "the end")
            tally.num_finished += 1
        tally.check_files(run)
        end_everything(run)
    return tally


def kill_readers(start, number: int, seed: int, command: str) -> Tally:
    """`advisor watch` is killed again and again; the run never notices."""
    tally, run, moments = Tally("app"), start(_ENDLESS), _moments(seed, 1.0)
    wait_for(lambda: steps_done(run) > 1, "steps")
    for _ in range(number):
        reader = subprocess.Popen(
            [command, "watch", run.id, "--plain"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        time.sleep(next(moments))
        before = steps_done(run)
        tally.num_kills += 1
        reader.kill()
        reader.wait()
        tally.until_right(run, lambda s: s.state in _LIVE, _LIVE)
        wait_for(lambda before=before: steps_done(run) > before, "the run to go on")
    tally.check_files(run)
    tally.expect(run.attempt() == 1, "the run was started again")
    end_everything(run)
    return tally
