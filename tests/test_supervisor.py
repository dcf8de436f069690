"""The supervisor with a torch-free worker: ends, kills, stops, resumes, locks, leftovers."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from on_disk import read_all

from profiles.errors import ExitCode, UserError
from profiles.runs import durable, processes, rundir
from profiles.runs.journal import Journal
from profiles.runs.records.worker import Checkpoint, End
from profiles.runs.state import State, status
from runner.supervision import (
    console,
    control,
    escalation,
    launch,
    leftovers,
    outcome,
    supervisor,
    worker_command,
)
from runner.supervision.outcome import Ended

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

    def start(num_steps=1000, *habits):
        argv = [sys.executable, str(DOUBLE), str(run.path), str(num_steps), *habits]
        monkeypatch.setattr(worker_command, "worker_argv", lambda _: argv)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            ctypes.CDLL(None).prctl(supervisor._PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            supervisor.Supervisor(run).supervise()
            os._exit(0)
        started.append(pid)
        return pid

    yield start
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    leftovers.end(run)


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
    Journal(run.worker_events, attempt=1).append(End(state=ending, step=9))
    if ending == "finished":
        run.model.mkdir()

    found = outcome.of(run, Ended(attempt=1, return_code=return_code))

    assert (found["state"], found["code"]) == (state, code)


def test_the_error_of_a_rank_keeps_its_own_code(run):
    """Torchrun says 1; the worker wrote why, and 82."""
    error = {"attempt": 1, "code": 82, "what": "diverged", "why": "", "do": "", "where": ""}
    durable.write_json(run.error, error)

    found = outcome.of(run, Ended(attempt=1, return_code=1))

    assert (found["state"], found["code"], found["what"]) == (State.FAILED, 82, "diverged")
    assert found["class"] == "diverged"


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


def kinds(run):
    """Kinds of the supervisor's events, in order."""
    return [e["kind"] for e in read_all(run.supervisor_events)]


def exit_record(run):
    """The content of exit.json once it is there."""
    return wait_for(lambda: rundir.read_json(run.exit), "exit.json")


def test_a_stop_that_is_not_answered_is_repeated_as_a_signal_once(run, supervised, monkeypatch):
    """SIGTERM means stop: the worker saves and ends resumable."""
    monkeypatch.setattr(escalation, "STOP_GRACE_SECONDS", 0.5)
    supervised(100_000, "deaf")
    wait_for(lambda: steps_done(run) > 3, "steps")

    control.send(run, "stop")
    found = ended(run)

    assert (found.state, found.exit_code) == (State.STOPPED, 75)
    assert kinds(run).count("stop_escalated") == 1


def test_the_last_checkpoint_gives_a_stop_more_time(run, monkeypatch):
    """A stop ends with a save, which may take as long as the last one did."""
    monkeypatch.setattr(escalation, "STOP_GRACE_SECONDS", 0.0)
    Journal(run.worker_events, attempt=1).append(Checkpoint(step=1, seconds=1000.0, bytes=1))
    durable.write_json(run.requests / "a.json", {"run": run.id, "attempt": 1, "verb": "stop"})
    events = Journal(run.supervisor_events, attempt=1)
    one = escalation.Escalation(run, 1, events, lambda: None)

    for _ in range(2):
        one.look(2**22 + 1)  # nobody

    assert kinds(run) == []


def test_a_stop_now_that_is_not_answered_becomes_a_kill(run, supervised, monkeypatch):
    """Recorded as stopped by force, never as a death of unknown cause."""
    monkeypatch.setattr(escalation, "FORCE_AFTER_SECONDS", 0.5)
    supervised(100_000, "stone")
    wait_for(lambda: steps_done(run) > 3, "steps")

    control.send(run, "stop_now")
    found = ended(run)

    assert (found.state, found.exit_code) == (State.STOPPED, 75)
    assert "by force" in found.reason
    assert kinds(run).count("stop_forced") == 1


def test_a_silent_worker_is_asked_where_it_stands_and_left_alone(run, supervised, monkeypatch):
    """Its stacks go to a file, a notice says so, and it goes on."""
    monkeypatch.setattr(escalation, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "_HEARTBEAT_SECONDS", 0.1)
    supervised(100_000, "frozen")

    wait_for(lambda: "unresponsive" in kinds(run), "the event")
    stacks = wait_for(run.stacks.read_text, "the stacks")
    before = steps_done(run)
    wait_for(lambda: steps_done(run) > before + 3, "the run to go on")

    assert "double_worker.py" in stacks
    found = status(run)
    assert found.state in {State.RUNNING, State.CHECKPOINTING}
    assert str(run.stacks) in found.notice
    assert kinds(run).count("unresponsive") == 1


@pytest.mark.parametrize("sticky", [2, 3])
def test_a_worker_that_asks_for_a_clean_process_gets_one(run, supervised, monkeypatch, sticky):
    """Up to twice, from the newest checkpoint, in an attempt of its own."""
    monkeypatch.setenv("TUNEDECK_DOUBLE_STICKY", str(sticky))
    supervised(40, "sticky")

    found = ended(run)

    assert (found.state, found.attempt) == (State.FINISHED, sticky)
    restarts = [e for e in read_all(run.supervisor_events) if e["kind"] == "restarted"]
    assert [(e["a"], e["number"], e["of"]) for e in restarts] == [(2, 1, 2), (3, 2, 2)][
        : sticky - 1
    ]
    assert "in a clean process (1 of 2)" in restarts[0]["what"]
    assert kinds(run).count("sup_started") == 1


def test_the_third_clean_process_is_not_given(run, supervised, monkeypatch):
    """A fault that comes back is a fault: code 80, resumable by a person."""
    monkeypatch.setenv("TUNEDECK_DOUBLE_STICKY", "99")
    supervised(400, "sticky")

    found = ended(run)

    assert (found.state, found.exit_code, found.attempt) == (State.FAILED, 80, 3)


def test_a_pending_stop_forbids_the_clean_process(run, supervised, monkeypatch):
    """Who asked for an end is not answered with a beginning."""
    monkeypatch.setenv("TUNEDECK_DOUBLE_STICKY", "99")
    durable.write_json(run.requests / "a.json", {"run": run.id, "attempt": 1, "verb": "stop_now"})
    supervised(400, "sticky", "stone")

    assert ended(run).attempt == 1
    assert "restarted" not in kinds(run)


def test_a_stop_for_the_attempt_before_a_clean_process_still_holds(run, supervised, monkeypatch):
    """The person saw the run, not its attempts."""
    monkeypatch.setenv("TUNEDECK_DOUBLE_STICKY", "2")
    monkeypatch.setattr(supervisor, "_HEARTBEAT_SECONDS", 0.1)
    supervised(100_000, "sticky", "deaf")
    wait_for(lambda: run.attempt() == 2 and status(run).state is State.RUNNING, "the second")

    durable.write_json(run.requests / "late.json", {"run": run.id, "attempt": 1, "verb": "stop"})

    wait_for(lambda: [r.attempt for r in control.waiting(run)] == [2], "the stop to be readdressed")


@pytest.mark.parametrize(
    ("arguments", "verb", "result"),
    [((3, "stone"), "pause", control.OVER), ((100_000, "stone"), "stop_now", "obeyed by force")],
)
def test_no_request_is_left_unanswered_by_a_run_that_is_over(
    run, supervised, monkeypatch, arguments, verb, result
):
    """Whatever came too late, or was forced, has its answer."""
    monkeypatch.setattr(escalation, "FORCE_AFTER_SECONDS", 0.3)
    supervised(*arguments)
    control.leave(run, verb, 1)
    exit_record(run)

    wait_for(lambda: not control.waiting(run), "the answer")
    (answer,) = run.answers.iterdir()
    assert rundir.read_json(answer)["result"] == result


@pytest.mark.parametrize("seconds", [5])
def test_a_blocked_data_loader_process_leaves_with_its_killed_trainer(run, supervised, seconds):
    """Within five seconds, whatever it waits for: it would hold the GPU."""
    supervised(100_000, "blocked")
    left = wait_for(lambda: (f := processes.marked(run)) and len(f) == 2 and f, "both processes")
    wait_for(lambda: steps_done(run) > 1, "steps")
    began = time.monotonic()
    (pid,) = _worker_pids(run)
    os.kill(pid, signal.SIGKILL)

    wait_for(lambda: not any(who.is_alive for who in left), "both to leave")

    assert time.monotonic() - began < seconds
    assert exit_record(run)["leftovers"] == []


class NoNewFiles(durable.Disk):
    """A disk that is full: what is there can be rewritten, nothing grows or is made."""

    def open(self, path, flags, *_mode):
        """Fail for a file that is not there yet."""
        if flags & os.O_CREAT and not path.exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return super().open(path, flags)


def test_the_end_is_recorded_on_a_full_disk(run):
    """Room for exit.json is kept from the start."""
    one = supervisor.Supervisor(run)
    real, durable.disk = durable.disk, NoNewFiles()
    try:
        one._record.write({"attempt": 1, "state": "killed", "code": 137, "what": "killed"})
    finally:
        durable.disk = real

    assert (status(run).state, status(run).exit_code) == (State.KILLED, 137)
    assert sorted(p.name for p in run.path.iterdir() if p.name.startswith(".")) == []


def test_a_run_directory_that_was_removed_keeps_no_supervisor_waiting(run):
    """There is nothing left to record."""
    one = supervisor.Supervisor(run)
    shutil.rmtree(run.path)

    one._record.write({"attempt": 1, "state": "killed"})

    assert not run.path.exists()


def test_who_works_is_written_down_when_there_is_room_again(run, supervised, monkeypatch):
    """A disk that is full at the start costs neither the run nor its identity."""
    monkeypatch.setattr(supervisor, "_HEARTBEAT_SECONDS", 0.1)
    real, calls = durable.write_json, []

    def full_at_first(path, value):
        calls.append(path)
        if path == run.processes and len(calls) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, value)

    monkeypatch.setattr(durable, "write_json", full_at_first)
    supervised(30)

    assert ended(run).state is State.FINISHED
    assert rundir.read_json(run.processes)["worker"]["pid"] > 0


def test_a_chatty_worker_cannot_fill_the_disk(run, supervised, monkeypatch):
    """Both parts of the log stay within their limits, progress bars collapsed."""
    monkeypatch.setattr(console, "LIMIT_BYTES", 1 << 20)
    supervised(60, "chatty")

    assert ended(run).state is State.FINISHED
    exit_record(run)
    assert console.size(run) <= 1 << 20
    assert console.older_part(run).stat().st_size <= 1 << 20
    assert b"\r" not in console.older_part(run).read_bytes()


def test_a_worker_that_ends_with_zero_too_early_is_stopped_not_finished(run, supervised):
    """Success is every planned step and a result."""
    supervised(200, "early")

    found = ended(run)

    assert (found.state, found.exit_code) == (State.STOPPED, 75)
    assert found.reason == "ended at step 25 of 200: counted as stopped"


def test_a_worker_that_cannot_be_started_is_told(run, monkeypatch):
    """No process, a reason, and an exit code."""
    monkeypatch.setattr(worker_command, "worker_argv", lambda _: ["/nowhere/python"])

    supervisor.Supervisor(run).supervise()

    found = rundir.read_json(run.exit)
    assert (found["state"], found["code"]) == (State.FAILED, ExitCode.DRIVER)
    assert "could not be started: [Errno 2]" in found["what"]


def test_a_judgement_that_fails_still_leaves_a_record(run, supervised, monkeypatch):
    """The end is recorded though nobody can explain it."""
    monkeypatch.setattr(outcome, "of", lambda *_: 1 / 0)
    supervised(100_000)
    kill_worker(run)

    found = ended(run)

    assert (found.state, found.exit_code) == (State.KILLED, 137)
    assert found.reason == "the worker ended with -9; why could not be found out"


def test_a_record_that_json_cannot_say_leaves_the_least(run, supervised, monkeypatch):
    """Not a number, for one: the end is recorded all the same."""
    real = outcome.of
    monkeypatch.setattr(outcome, "of", lambda *a: real(*a) | {"rusage": float("nan")})
    supervised(100_000)
    kill_worker(run)

    assert ended(run).reason == "the worker ended with -9; why could not be found out"


def test_a_name_that_is_no_text_is_recorded(run):
    """File names are bytes: those that are no UTF-8 come as lone surrogates."""
    name = os.fsdecode(b"caf\xe9.json")

    for record in (supervisor.ExitRecord(run).write, lambda c: durable.write_json(run.error, c)):
        record({"attempt": 1, "state": "failed", "what": name})

    assert [rundir.read_json(p)["what"] for p in (run.exit, run.error)] == [name, name]


def test_a_duty_that_fails_does_not_end_the_wait(run, supervised, monkeypatch):
    """The supervisor stays until its worker has ended."""
    monkeypatch.setattr(console, "rotate", lambda _: 1 / 0)
    monkeypatch.setattr(control, "waiting", lambda _: 1 / 0)
    supervised(30)

    assert ended(run).state is State.FINISHED
