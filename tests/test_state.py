"""The state of a run, derived from files and processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from record_examples import example

from profiles import installation
from profiles.runs import durable, identity, listing, locks, notices, processes, rundir, state
from profiles.runs.journal import Journal
from profiles.runs.records.supervisor import (
    Responsive,
    Restarted,
    StopEscalated,
    SupervisorStarted,
    Unresponsive,
)
from profiles.runs.records.worker import (
    Checkpoint,
    End,
    Guard,
    OutOfMemory,
    Paused,
    Progressing,
    SaveBegun,
    SaveFailed,
    Stalled,
    StopAccepted,
    TrainBegun,
    Unpaused,
    WorkerStarted,
)
from profiles.runs.state import State

HEAD = b'{"v":1,"seq":1,"t":1,"m":1,"a":1,'


def sealed(body):
    """A journal's line with a sound checksum, whatever it says."""
    return body + f',"crc":"{zlib.crc32(body):08x}"}}\n'.encode()


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
    """Let the worker say these things, of step 3."""
    file = Journal(run.worker_events, attempt=attempt)
    for kind in kinds:
        file.append(example(kind) if isinstance(kind, type) else kind)


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
        ([WorkerStarted], State.STARTING),
        ([WorkerStarted, TrainBegun], State.RUNNING),
        ([TrainBegun, SaveBegun], State.CHECKPOINTING),
        ([TrainBegun, SaveBegun, Checkpoint], State.RUNNING),
        ([TrainBegun, SaveBegun, SaveFailed], State.RUNNING),
        ([TrainBegun, Paused], State.PAUSED),
        ([TrainBegun, Paused, Unpaused], State.RUNNING),
        ([TrainBegun, Restarted], State.STARTING),
        ([TrainBegun, StopAccepted], State.STOPPING),
        ([TrainBegun, StopAccepted, SaveBegun, Checkpoint], State.STOPPING),
    ],
)
def test_a_live_run_is_in_the_state_of_its_last_event(run, sleeper, kinds, expected):
    """The worker's own words, while it lives."""
    working(run, sleeper.pid)
    events(run, *kinds)

    assert state.status(run).state is expected


def test_a_clock_that_is_set_back_changes_no_state(run, sleeper, monkeypatch):
    """The order is the monotonic clock's."""
    working(run, sleeper.pid)
    events(run, TrainBegun, Paused)
    hour_ago = time.time() - 3600
    monkeypatch.setattr("profiles.runs.journal.time.time", lambda: hour_ago)
    events(run, Unpaused)

    assert state.status(run).state is State.RUNNING


def test_a_dead_run_without_an_exit_record_is_lost(run, sleeper):
    """Never "running" for a dead run, whatever its last event says."""
    working(run, sleeper.pid)
    events(run, TrainBegun)
    sleeper.kill()
    sleeper.wait()

    assert state.status(run).state is State.LOST


def test_a_recycled_pid_is_not_the_worker(run, sleeper):
    """The same pid with another start time is somebody else."""
    working(run, sleeper.pid, start=1)

    assert state.status(run).state is State.LOST


def test_another_boot_is_told(run, sleeper):
    """The reason names the restart, its time and the last sign; nothing starts by itself."""
    working(run, sleeper.pid, boot_id="another")
    durable.overwrite(run.supervisor_heartbeat, b"1\n")
    os.utime(run.supervisor_heartbeat, (1e9, 1e9))

    found = state.status(run)

    stamp = r"\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.match(
        rf"the host restarted at \d{{4}}-{stamp} \(last sign 2001-{stamp}\)", found.reason
    )
    assert found.state is State.LOST


def test_a_run_of_another_host_is_not_judged(run, sleeper):
    """On a shared home the run may well be alive."""
    working(run, sleeper.pid, host="gpu-b", boot_id="another")

    assert state.status(run).state is State.ELSEWHERE


@contextlib.contextmanager
def held(run, *, is_held=True):
    """Hold the lock of the run, or leave it free."""
    with run.lock.open("w") as lock:
        if is_held:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


OTHER = {"pid_namespace": "pid:[1]", "host": "c0ffee"}
REBOOTED = {"boot_id": "another", "start": 1}


@pytest.mark.parametrize(
    ("changes", "is_held", "expected", "words"),
    [
        (OTHER, True, State.ELSEWHERE, "in another container of this host"),
        (OTHER, False, State.LOST, "its container ended"),
        (REBOOTED, False, State.LOST, "the host restarted"),
        (REBOOTED, True, State.ELSEWHERE, "another machine called"),
        (REBOOTED | {"host": "gpu-b"}, False, State.ELSEWHERE, "runs on gpu-b"),
        (REBOOTED | {"host": "gpu-b"}, True, State.ELSEWHERE, "runs on gpu-b"),
    ],
)
def test_what_cannot_be_seen_from_here_is_judged_by_boot_and_lock(
    run, sleeper, changes, is_held, expected, words
):
    """No live run is called lost, and nobody is told to end what is not here."""
    me = identity.of_process(sleeper.pid)
    there = replace(me, **changes)
    started_by(run, there, there, supervisor=there)

    with held(run, is_held=is_held):
        found = state.status(run)

    assert (found.state, words in found.reason) == (expected, True), found.reason
    assert "stop --now" not in found.reason


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_a_file_system_without_locks_keeps_no_run_from_starting(run, monkeypatch, number):
    """Nothing counts as taken, everything as granted: claim and identities decide."""

    def refuse(_fd, _kind):
        raise OSError(number, os.strerror(number))

    with held(run):
        monkeypatch.setattr(fcntl, "flock", refuse)

        assert not locks.is_held(run.lock)
        assert locks.take(0, fcntl.LOCK_EX)


def test_a_lock_is_tried_on_a_file_open_for_writing(run, monkeypatch):
    """NFS makes flock a byte-range lock, and refuses an exclusive one on a file only read."""
    real = fcntl.flock

    def as_on_nfs(fd, kind):
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(fd, kind)

    with held(run):
        monkeypatch.setattr(fcntl, "flock", as_on_nfs)

        assert locks.is_held(run.lock)
    assert not locks.is_held(run.lock)


def claimed_by(run, attempt, who):
    """Let this process claim the attempt."""
    assert run.claim(attempt)
    durable.write_json(run.claims / str(attempt), who.as_dict())


@pytest.mark.parametrize("age", [-1e6, 1e6])
def test_a_start_is_judged_by_its_starter_not_by_a_clock(run, sleeper, age):
    """The clock of a file server may be hours off, either way."""
    claimed_by(run, 1, identity.of_process(sleeper.pid))
    for path in (run.attempt_file, run.claims / "1"):
        os.utime(path, (time.time() - age,) * 2)

    alive = state.status(run).state
    sleeper.kill()
    sleeper.wait()

    found = state.status(run)
    assert (alive, found.state) == (State.QUEUED, State.LOST)
    assert found.reason == "it was never started"


def test_a_claim_names_who_made_it(run):
    """An empty one, by an older version, names nobody."""
    assert run.claim(1)
    assert run.starter(1) == identity.of_process(os.getpid())

    (run.claims / "1").write_bytes(b"")
    assert run.starter(1) is None


def test_a_resume_that_did_not_begin_hides_no_end(run, sleeper):
    """State, code and reason of the attempt before."""
    ended = {"attempt": 1, "state": "killed", "code": 137, "what": "killed", "last_step": 9}
    durable.write_json(run.exit, ended)
    claimed_by(run, 2, dead(identity.of_process(sleeper.pid)))

    found = state.status(run)

    assert (found.state, found.exit_code, found.step) == (State.KILLED, 137, 9)
    assert found.reason == "killed; a resume did not begin"


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b'{"created": null}'),
        ("run.json", b'{"created": "1"}'),
        ("run.json", b'{"created": 1' + b"0" * 400 + b"}"),
        ("exit.json", DEEP),
        ("exit.json", b'{"attempt": 1, "state": 7, "code": "x", "last_step": "x"}'),
        ("proc.json", DEEP),
        ("attempts/1", DEEP),
        ("hb.runner", b"\xff"),
        ("events.runner.jsonl", sealed(b'{"v":1,"seq":1,"t":1,"kind":"prepared"')),
        ("events.runner.jsonl", sealed(b'{"v":1,"seq":1,"t":1,"m":"x","a":1,"kind":"end"')),
        ("events.runner.jsonl", sealed(HEAD + b'"kind":"prepared","num_steps":null')),
        ("events.runner.jsonl", sealed(HEAD + b'"kind":"checkpoint","step":"x"')),
        ("events.runner.jsonl", sealed(HEAD + b'"kind":"end","x":' + DEEP)),
    ],
)
def test_no_content_makes_a_reader_raise(run, sleeper, name, content):
    """Whatever lies there, all runs are listed, and each has a state."""
    working(run, sleeper.pid)
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_bytes(content)

    assert [r.path for r in listing.all_runs()] == [run.path]
    assert isinstance(state.status(run), state.Status)


def test_a_fault_of_ours_is_an_unknown_state(run, monkeypatch):
    """A list of runs is not lost to one of them."""
    monkeypatch.setattr(processes, "of_attempt", lambda *_: 1 / 0)

    found = state.status(run)

    assert (found.state, "ZeroDivisionError" in found.notice) == (State.UNKNOWN, True)


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize(
    "name", ["run.json", "exit.json", "proc.json", "attempt", "events.sup.jsonl", "hb.runner"]
)
def test_what_is_no_regular_file_keeps_no_reader_waiting(run, sleeper, name, kind):
    """A pipe without a writer would block an open, a link could lead to one."""
    working(run, sleeper.pid)
    path, pipe = run.path / name, run.path / "pipe"
    path.unlink(missing_ok=True)
    os.mkfifo(path if kind == "pipe" else pipe)
    if kind == "link":
        path.symlink_to(pipe)
    code = (
        "import sys; from pathlib import Path; from profiles.runs import listing, state;"
        "print(state.status(listing.all_runs()[0]).state)"
    )

    done = subprocess.run([sys.executable, "-c", code], timeout=20, capture_output=True, check=True)

    assert done.stdout


def test_a_relative_home_is_one_place_everywhere(tmp_path, monkeypatch):
    """The supervisor works in its run directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEDECK_HOME", "here")

    assert installation.home() == tmp_path / "here"


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"base_dir": 7}', b'{"base_dir": null}'])
def test_a_run_that_does_not_say_where_it_was_started_begins_at_itself(run, content):
    """Its recipe lies there, and no other place is made up."""
    durable.write_json(run.manifest, {"base_dir": "/data/here"})
    told = run.base_dir()
    run.manifest.write_bytes(content)

    assert (told, run.base_dir()) == (Path("/data/here"), run.path)


def test_a_file_system_that_counts_no_blocks_is_not_full(run, sleeper, monkeypatch):
    """Some that are mounted over a network say zero of everything."""
    working(run, sleeper.pid)
    found = os.statvfs(run.path)
    nothing = os.statvfs_result((*found[:2], 0, 0, 0, *found[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: nothing)

    assert state.status(run).notice == ""


def test_a_descendant_that_holds_the_lock_keeps_the_run_alive(run, sleeper, monkeypatch):
    """Lock free proves that nothing of the run is left; lock held, that something is."""
    working(run, sleeper.pid, start=1)
    me = identity.of_process(sleeper.pid)
    monkeypatch.setattr(processes, "marked", lambda _run: [me])
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
    events(run, TrainBegun, attempt=2)

    assert state.status(run).state is State.RUNNING


def test_a_worker_that_finished_without_its_supervisor_is_finished(run, sleeper):
    """The supervisor was killed, the worker came to its end."""
    working(run, sleeper.pid, start=1)
    file = Journal(run.worker_events, attempt=1)
    file.append(End(state="finished", step=9))

    assert state.status(run).state is State.FINISHED


def started_by(run, worker, trainer, supervisor=None):
    """Say who works, the trainer by its own word."""
    known = {"worker": worker, "supervisor": supervisor}
    content = {name: who.as_dict() for name, who in known.items() if who is not None}
    durable.write_json(run.processes, {"attempt": 1, **content})
    started = WorkerStarted(pid=trainer.pid, start=trainer.start)
    Journal(run.worker_events, attempt=1).append(started)


def dead(who):
    """An identity that is nobody's any more."""
    return replace(who, start=1)


def test_a_run_that_lost_its_supervisor_goes_on_and_says_so(run, sleeper):
    """The worker lives, so the run does."""
    me = identity.of_process(sleeper.pid)
    started_by(run, me, me, supervisor=dead(me))

    found = state.status(run)

    assert (found.state, found.notice) == (State.STARTING, notices.SUPERVISOR_LOST)


def test_a_rank_that_outlived_its_launcher_keeps_the_run_alive(run, sleeper):
    """Torchrun was killed, the first rank still trains."""
    me = identity.of_process(sleeper.pid)
    started_by(run, dead(me), me)
    events(run, TrainBegun)

    assert state.status(run).state is State.RUNNING


def test_a_worker_that_its_supervisor_could_not_write_down_is_seen(run, sleeper):
    """Killed between the two, the supervisor left its own identity alone."""
    me = identity.of_process(sleeper.pid)
    started_by(run, None, me, supervisor=dead(me))

    assert state.status(run).notice == notices.SUPERVISOR_LOST


def test_a_worker_that_did_not_say_when_it_started_is_not_told_from_others(run, sleeper):
    """A pid alone is nobody: such records are of an older version."""
    me = identity.of_process(sleeper.pid)
    started_by(run, me, me)
    told = processes.of_run(run).trainer
    Journal(run.worker_events, attempt=1).append(WorkerStarted(pid=me.pid))

    assert (told, processes.of_run(run).trainer) == (me, None)


@pytest.mark.parametrize("trainer_is_known", [True, False])
def test_a_lock_held_by_nobody_who_can_be_seen_is_no_loss(run, sleeper, *, trainer_is_known):
    """Whoever it is may still train; it is to be looked for where the run was started."""
    if trainer_is_known:
        me = identity.of_process(sleeper.pid)
        started_by(run, dead(me), dead(me))
    else:
        working(run, sleeper.pid, start=1)

    with held(run):
        found = state.status(run)

    assert (found.state, found.reason) == (State.ELSEWHERE, notices.HELD)


@pytest.mark.parametrize("heart", ["hb.sup", "hb.runner"])
def test_a_beating_heart_is_no_loss_where_there_are_no_locks(run, sleeper, heart):
    """Its processes are of another container, its host has another name."""
    there = replace(identity.of_process(sleeper.pid), **OTHER)
    started_by(run, there, there, supervisor=there)
    (run.path / heart).write_text("7")

    assert state.status(run).state is State.ELSEWHERE
    os.utime(run.path / heart, (1e9, 1e9))
    assert state.status(run).state is State.LOST


def test_leftovers_that_hold_the_lock_do_not_make_a_dead_run_live(run, sleeper, monkeypatch):
    """A data loader process inherits the lock and trains nothing."""
    me = identity.of_process(sleeper.pid)
    monkeypatch.setattr(processes, "marked", lambda _run: [me])
    started_by(run, dead(me), dead(me))
    with run.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        found = state.status(run)

    assert found.state is State.LOST
    assert f"1 leftover process holds the run (pids {me.pid})" in found.reason
    assert "advisor stop --now" in found.reason


def test_a_worker_that_ended_a_moment_ago_is_neither_running_nor_dead(run, sleeper):
    """Its supervisor is writing down how."""
    me = identity.of_process(sleeper.pid)
    started_by(run, dead(me), dead(me), supervisor=me)

    found = state.status(run)

    assert (found.state, found.notice) == (State.STOPPING, notices.ENDING)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", ["exit.json", "proc.json", "events.sup.jsonl", "attempt"])
def test_a_file_that_cannot_be_read_makes_no_run_dead(run, sleeper, monkeypatch, number, name):
    """Neither running nor lost is claimed; the reader goes on trying."""
    working(run, sleeper.pid)
    if name == "exit.json":
        durable.write_json(run.exit, {"attempt": 1, "state": "killed"})
    events(run, TrainBegun)
    Journal(run.supervisor_events, attempt=1).append(SupervisorStarted(pid=1))
    expected = state.status(run).state
    real_open = os.open

    def fail(path, *args, **kwargs):
        if Path(path).name == name:
            raise OSError(number, os.strerror(number), str(path))
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", fail)

    found = state.status(run)

    assert (found.state, found.state.is_over) == (State.UNKNOWN, False)
    assert found.notice == f"cannot read {name} ({errno.errorcode[number]}), retrying"
    monkeypatch.undo()
    assert state.status(run).state is expected


def test_an_unreadable_supervisor_is_not_called_dead(run):
    """A directory where a file should be: no reader takes that for a missing file."""
    run.processes.mkdir()

    with pytest.raises(OSError, match="directory"):
        processes.supervisor_is_alive(run)
    assert state.status(run).notice == "proc.json cannot be read: it is a folder"


@pytest.mark.parametrize("length", range(0, 160, 7))
def test_cut_records_are_read_as_missing(run, sleeper, length):
    """exit.json and proc.json cut anywhere: no reader raises."""
    working(run, sleeper.pid)
    durable.write_json(run.exit, {"attempt": 1, "state": "killed", "code": 137, "what": "x" * 99})
    for path in (run.exit, run.processes):
        path.write_bytes(path.read_bytes()[:length])

    assert state.status(run).state in {State.QUEUED, State.STARTING, State.KILLED}


@pytest.mark.parametrize(
    ("said", "notice"),
    [
        ([], ""),
        ([example(Paused, what="1.2 GB free")], "1.2 GB free"),
        ([Paused(step=3)], "paused at step 3"),
        ([Paused, Unpaused], ""),
        ([example(Stalled, what="no step for 9 min")], "no step for 9 min"),
        ([Stalled, Progressing], ""),
        ([example(OutOfMemory, what="goes on with 2 x 8"), Paused, Unpaused], "goes on with 2 x 8"),
        ([example(Guard, what="the loss is high")], "the loss is high"),
        ([Unresponsive, Responsive], ""),
        ([example(Restarted, what="restarted from step 5")], "restarted from step 5"),
        ([StopEscalated], "the stop was not answered; the worker got a signal"),
    ],
)
def test_the_newest_thing_that_still_holds_is_the_notice(run, sleeper, said, notice):
    """What ended is no longer told."""
    working(run, sleeper.pid)
    events(run, TrainBegun, *said)

    assert state.status(run).notice == notice


def test_a_full_disk_is_noticed_without_an_event(run, sleeper, monkeypatch):
    """The event that would tell of it has no room either."""
    working(run, sleeper.pid)
    full = os.statvfs(run.path)
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*full[:3], 0, 0, *full[5:])))

    durable.overwrite(run.worker_heartbeat, b"7 3 paused\n")

    found = state.status(run)

    assert (found.state, found.notice) == (State.PAUSED, notices.DISK_FULL)


def test_a_run_that_is_over_has_no_notice(run):
    """How it ended is the reason, not a notice."""
    durable.write_json(run.exit, {"attempt": 1, "state": "killed", "code": 137, "what": "killed"})
    events(run, Paused)

    assert (state.status(run).notice, state.status(run).reason) == ("", "killed")
