"""The supervisor with a torch-free worker: ends, kills, stops, resumes, locks, leftovers."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from profiles import durable, rundir
from profiles.errors import UserError
from profiles.journal import Journal, read_all
from profiles.state import State, status
from runner import checkpoints, control, engines, launch, supervisor

DOUBLE = Path(__file__).parent / "support" / "double_worker.py"
DEADLINE_SECONDS = 30


def wait_for(condition, what):
    """Poll until it holds; a test must not hang."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {what}")


@pytest.fixture
def run():
    """A run directory that is ready to be supervised."""
    found = rundir.create("a run")
    durable.write_json(found.manifest, {"created": time.time(), "base_dir": str(found.path)})
    durable.write_atomic(found.recipe, b"")
    durable.write_atomic(found.attempt_file, b"1\n")
    return found


@pytest.fixture
def supervised(run, monkeypatch):
    """Start an attempt with the double in a process of its own; returns its pid."""
    started = []

    def start(num_steps=1000):
        argv = [sys.executable, str(DOUBLE), str(run.path), str(num_steps)]
        monkeypatch.setattr(engines, "worker_argv", lambda _: argv)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            supervisor.Supervisor(run).supervise()
            os._exit(0)
        started.append(pid)
        return pid

    yield start
    for pid in started:
        with_children = [pid, *_worker_pids(run)]
        for one in with_children:
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
        os.waitpid(pid, 0)


def _worker_pids(run):
    worker = (rundir.read_json(run.processes) or {}).get("worker", {})
    return [worker["pid"]] if "pid" in worker and status(run).state not in _OVER else []


_OVER = {s for s in State if s.is_over}


def steps_done(run):
    """How many steps the worker recorded."""
    return sum(1 for _ in read_all(run.metrics))


def ended(run):
    """The status once the run is over."""
    return wait_for(lambda: (s := status(run)).state.is_over and s, "the end")


def kill_worker(run):
    """SIGKILL the worker after at least one checkpoint."""
    wait_for(lambda: steps_done(run) > 15, "15 steps")
    (pid,) = _worker_pids(run)
    os.kill(pid, signal.SIGKILL)


def test_a_run_that_reaches_its_end_is_finished(run, supervised):
    """Exit code 0 and a final artefact."""
    supervised(num_steps=5)

    found = ended(run)

    assert (found.state, found.exit_code, found.step) == (State.FINISHED, 0, 5)


def test_a_killed_worker_is_told_with_signal_step_and_checkpoint(run, supervised):
    """State "killed", code 137, and where it can go on."""
    supervised()
    kill_worker(run)

    found = ended(run)

    assert (found.state, found.exit_code) == (State.KILLED, 137)
    assert found.resumable_from is not None
    assert f"resumable from step {found.resumable_from}" in found.reason


def test_a_resumed_attempt_goes_on_from_the_newest_checkpoint(run, supervised):
    """Steps of the second attempt begin right after the checkpoint."""
    supervised(num_steps=60)
    kill_worker(run)
    resumable = ended(run).resumable_from
    durable.write_atomic(run.attempt_file, b"2\n")
    supervised(num_steps=60)

    found = ended(run)

    second = [r["step"] for r in read_all(run.metrics) if r["a"] == 2]
    assert (found.state, second) == (State.FINISHED, list(range(resumable + 1, 61)))


def test_a_stop_saves_and_ends_resumable(run, supervised):
    """Exit code 75: stopped early, not finished."""
    supervised()
    wait_for(lambda: steps_done(run) > 3, "steps")

    control.send(run, "stop")
    found = ended(run)

    assert (found.state, found.exit_code) == (State.STOPPED, 75)
    assert found.resumable_from == found.step


def test_a_request_of_another_attempt_is_ignored(run, supervised):
    """A stale stop must not end a resumed run."""
    supervised()
    wait_for(lambda: steps_done(run) > 3, "steps")
    durable.write_json(
        run.requests / "00-stale.json", {"run": run.id, "attempt": 7, "verb": "stop"}
    )

    answer = wait_for(lambda: rundir.read_json(run.answers / "00-stale.json"), "the answer")
    before = steps_done(run)

    assert answer["result"] == "ignored"
    wait_for(lambda: steps_done(run) > before, "the run to go on")


def test_the_death_of_the_supervisor_leaves_the_run_alone(run, supervised):
    """The worker comes to its end, and readers see that it did."""
    pid = supervised(num_steps=60)
    wait_for(lambda: steps_done(run) > 5, "steps")

    os.kill(pid, signal.SIGKILL)
    found = ended(run)

    assert (found.state, found.step) == (State.FINISHED, 60)


def test_the_death_of_both_is_told_as_lost(run, supervised):
    """Not "running", not "failed": nobody recorded why."""
    pid = supervised()
    wait_for(lambda: steps_done(run) > 15, "steps")
    workers = _worker_pids(run)
    os.kill(pid, signal.SIGKILL)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)

    found = ended(run)

    assert (found.state, found.resumable_from) == (State.LOST, 10)


def test_only_one_supervisor_gets_a_run(run, supervised):
    """The second one leaves without touching anything."""
    supervised()
    wait_for(lambda: steps_done(run) > 1, "steps")

    with pytest.raises(SystemExit):
        supervisor.Supervisor(run)


def test_twenty_random_kills_lose_no_acknowledged_checkpoint(run, supervised):
    """Killed again and again at odd moments, the run still reaches its end."""
    acknowledged = 0
    for attempt in range(1, 21):
        durable.write_atomic(run.attempt_file, f"{attempt}\n".encode())
        supervised(num_steps=100_000)
        before = steps_done(run)
        wait_for(lambda before=before: steps_done(run) > before + 3, "steps")
        time.sleep(0.037 * (attempt % 7))
        for pid in _worker_pids(run):
            os.kill(pid, signal.SIGKILL)
        ended(run)
        saved = [e["step"] for e in read_all(run.worker_events) if e["kind"] == "checkpoint"]
        acknowledged = max(saved, default=0)
        sound, reasons = checkpoints.newest_sound(run)
        assert (sound.step if sound else 0) >= acknowledged, reasons

    sequence = [r["seq"] for r in read_all(run.worker_events)]
    assert sequence == list(range(1, len(sequence) + 1))
    assert acknowledged > 0


@pytest.mark.parametrize(
    ("ending", "return_code", "state", "code"),
    [
        ("finished", -11, State.FINISHED, 0),
        ("finished", 1, State.FINISHED, 0),
        ("stopped", 1, State.STOPPED, 75),
        ("stopped", 75, State.STOPPED, 75),
    ],
)
def test_the_workers_own_word_counts_before_its_exit_code(run, ending, return_code, state, code):
    """A crash after the end, and torchrun's 1 for every failing rank, change no outcome."""
    one = supervisor.Supervisor(run)
    Journal(run.worker_events, attempt=1).append("end", state=ending, step=9)
    if ending == "finished":
        run.model.mkdir()

    outcome = one._outcome(return_code)

    assert (outcome["state"], outcome["code"]) == (state, code)


def test_the_error_of_a_rank_keeps_its_own_code(run):
    """Torchrun says 1; the worker wrote why, and 82."""
    one = supervisor.Supervisor(run)
    error = {"attempt": 1, "code": 82, "what": "diverged", "why": "", "do": "", "where": ""}
    durable.write_json(run.error, error)

    outcome = one._outcome(1)

    assert (outcome["state"], outcome["code"], outcome["what"]) == (State.FAILED, 82, "diverged")


def test_ranks_that_outlived_their_supervisor_keep_the_run_to_themselves(run):
    """Torchrun's ranks inherit no lock, so they hold one of their own."""
    with run.worker_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)

        with pytest.raises(SystemExit):
            supervisor.Supervisor(run)


def test_a_request_to_a_run_that_is_over_is_refused(run, supervised):
    """With what to do instead."""
    supervised(num_steps=2)
    ended(run)

    with pytest.raises(UserError, match="the run is finished"):
        control.send(run, "stop")


def test_a_finished_run_cannot_be_resumed(run, supervised):
    """There is nothing left to do."""
    supervised(num_steps=2)
    ended(run)

    with pytest.raises(UserError, match="finished"):
        launch.resume(run)


def test_requests_of_damaged_files_are_passed_over(run):
    """Readers never raise on content."""
    (run.requests / "a.json").write_text("{")
    (run.requests / "b.json").write_text(json.dumps({"run": "other", "verb": "stop"}))
    (run.requests / "d.json").write_text(
        json.dumps({"run": run.id, "verb": "stop", "attempt": "soon"})
    )
    (run.requests / ".c.json").write_text(json.dumps({"run": run.id, "verb": "stop"}))

    assert control.pending(run) == []
