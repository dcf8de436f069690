"""Starting and resuming: one winner whatever locks say, and nothing half-started."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from doubles import (
    end_everything,
    ended,
    environment,
    exit_record,
    kill,
    kinds,
    start,
    steps_done,
    wait_for,
    who,
)
from on_disk import read_all
from pseudo_terminal import at_terminal

from profiles.errors import ExitCode, UserError
from profiles.runs import durable, identity, listing, processes, rundir
from profiles.runs.state import State, status
from runner.supervision import launch, leftovers
from tui.commands import runs

__all__ = ["start"]
RESUME = """
import sys
from pathlib import Path
from profiles.runs.rundir import RunDir
from runner.supervision import launch
sys.stdout.write("r")
sys.stdout.flush()
sys.stdin.read(1)
launch.resume(RunDir(Path(sys.argv[1])))
"""


@pytest.fixture
def killed(start):
    """A run whose worker was killed after its first checkpoint."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 11, "steps")
    kill(run, "worker")
    exit_record(run)
    yield run
    end_everything(run)


@pytest.mark.parametrize("locks", ["real", "granted to everybody"])
def test_of_twenty_simultaneous_resumes_one_wins(killed, monkeypatch, locks):
    """Exclusive creation decides, also where flock succeeds for every caller (hub#4306)."""
    if locks != "real":
        monkeypatch.setenv("TUNEDECK_TEST_FLOCK", "1")
    waiting = [
        subprocess.Popen(
            [sys.executable, "-c", RESUME, str(killed.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(20)
    ]
    assert [process.stdout.read(1) for process in waiting] == [b"r"] * 20
    for process in waiting:
        process.stdin.write(b"x")
        process.stdin.close()
    codes = [process.wait(60) for process in waiting]

    assert codes.count(0) == 1
    assert kinds(killed).count("sup_started") == 2
    assert kinds(killed).count("worker_spawned") == 2
    assert killed.attempt() == 2


def test_a_file_system_without_locks_starts_and_resumes(start):
    """Lustre without `-o flock` answers ENOSYS; claim and identities are enough."""
    run = start(100_000, TUNEDECK_TEST_FLOCK="ENOSYS")
    wait_for(lambda: steps_done(run) > 11, "steps")
    kill(run, "worker")
    exit_record(run)

    launch.resume(run)
    assert (status(run).attempt, status(run).resumable_from) == (2, 10)


def test_a_starter_that_ignores_its_children_costs_no_record(start):
    """Inherited, that would let the kernel reap the worker, and how it ended be lost."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        run = start(3)
    finally:
        signal.signal(signal.SIGCHLD, before)

    assert exit_record(run)["state"] == "finished"


def test_the_console_log_is_private_whatever_the_umask(start):
    """It may show what the data says."""
    before = os.umask(0)
    try:
        run = start(3)
    finally:
        os.umask(before)

    assert run.console.stat().st_mode & 0o777 == 0o600


def test_a_relative_home_starts_a_run(start, tmp_path, monkeypatch):
    """Supervisor and worker work in another directory than the starter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEDECK_HOME", "here")

    assert exit_record(start(3))["state"] == "finished"


def test_a_supervisor_that_is_there_and_silent_did_not_fail_to_start(home, monkeypatch):
    """On a slow disk its first record takes its time."""
    monkeypatch.setattr(launch, "_SIGN_OF_LIFE_SECONDS", 0.1)
    run = rundir.create("a run")
    with run.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="no sign of life yet") as found:
            launch._wait_for_sign(run, 1)

    assert f"`advisor watch {run.id}` shows it" in found.value.do


def test_a_start_that_failed_is_not_queued_for_as_long_as_its_starter_lives(home, monkeypatch):
    """A screen may stay open for days."""
    monkeypatch.setattr(launch, "_SIGN_OF_LIFE_SECONDS", 0.1)
    run = rundir.create("a run")
    assert run.claim(1)

    with pytest.raises(UserError, match="did not start"):
        launch._wait_for_sign(run, 1)

    os.utime(run.claims / "1", (1, 1))
    assert status(run).state is State.LOST


def test_twenty_simultaneous_starts_get_twenty_directories(home):
    """Run directories are made exclusively; no two runs share one."""
    with multiprocessing.get_context("fork").Pool(20) as pool:
        paths = pool.map(_create, range(20))

    assert len(set(paths)) == 20


def _create(_number):
    return str(rundir.create("same name").path)


def test_an_attempt_is_claimed_once(home):
    """The second claim fails, and readers take the highest one."""
    run = rundir.create("a run")

    assert (run.claim(2), run.claim(2), run.attempt()) == (True, False, 2)


def test_a_live_supervisor_is_left_alone_whatever_locks_say(start, monkeypatch):
    """Its identity refuses the resume, though exit.json of its attempt is there already."""
    monkeypatch.setenv("TUNEDECK_TEST_FLOCK", "1")
    monkeypatch.setattr(launch, "_GONE_SECONDS", 0.2)
    run = start()
    durable.write_json(run.exit, {"attempt": 1, "state": "killed", "code": 137})

    with pytest.raises(UserError, match="its supervisor still works"):
        launch.resume(run)


def test_a_run_of_a_newer_version_is_view_only(home):
    """Exit code 76, with both versions named; its state can still be read."""
    run = rundir.create("a run")
    manifest = {"schema": rundir.SCHEMA + 1, "tool_version": "9.7", "id": run.id}
    durable.write_json(run.manifest, manifest)
    durable.write_json(run.exit, {"attempt": 1, "state": "killed", "code": 137})

    with pytest.raises(UserError, match=r"made by tunedeck 9\.7, you have .*: view only") as found:
        launch.resume(run)

    assert found.value.code == ExitCode.NEWER_SCHEMA
    assert status(run).state is State.KILLED


def test_leftovers_are_named_and_ended_by_stop_now(start, advisor):
    """After the loss of supervisor and trainer, a blocked data loader process keeps the run."""
    run = start("1000 blocked")
    wait_for(lambda: len(processes.marked(run)) == 2, "the data loader process")
    wait_for(lambda: steps_done(run) > 1, "steps")
    kill(run, "supervisor")
    kill(run, "worker")
    lost = ended(run)
    (left,) = wait_for(lambda: (f := processes.marked(run)) and len(f) == 1 and f, "one left")

    with pytest.raises(UserError) as refused:
        launch.resume(run)
    unasked = advisor("stop", "--now", run.id)
    stopped = advisor("stop", "--now", "--yes", run.id)

    assert lost.state is State.LOST
    assert refused.value.code == ExitCode.CANNOT_CREATE
    assert f"1 leftover process holds the run (pids {left.pid})" in refused.value.what
    assert f"advisor stop --now {run.id}" in refused.value.do
    assert unasked.returncode == ExitCode.REFUSED
    for said in (unasked, stopped):
        assert f"pid {left.pid}: " in said.stderr
    assert stopped.returncode == 0, stopped.stderr
    assert not left.is_alive
    launch.resume(run)
    assert status(run).attempt == 2


def test_a_worker_without_supervisor_is_ended_by_the_command_itself(start, monkeypatch):
    """It does not answer, and nobody else is left to see to it."""
    monkeypatch.setattr(runs, "FORCE_AFTER_SECONDS", 0.3)
    run = start("100000 stone")
    wait_for(lambda: steps_done(run) > 1, "steps")
    kill(run, "supervisor")
    wait_for(lambda: status(run).notice, "the notice")

    runs.stop_now(run.id, sure=True)

    assert (status(run).state, processes.marked(run)) == (State.LOST, [])


class FullDisk(durable.Disk):
    """No new file can be made."""

    def __init__(self, number):
        self.number = number

    def open(self, path, flags, *_mode):
        """Fail for a file that is not there yet."""
        if flags & os.O_CREAT and not Path(path).exists():
            raise OSError(self.number, os.strerror(self.number), str(path))
        return super().open(path, flags)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, ExitCode.IO_ERROR),
        (errno.EDQUOT, ExitCode.IO_ERROR),
        (errno.EROFS, ExitCode.CANNOT_CREATE),
        (errno.EACCES, ExitCode.CANNOT_CREATE),
    ],
)
def test_a_disk_that_takes_no_file_leaves_nothing_half_started(home, monkeypatch, number, code):
    """Four parts and a code, and no run in the list."""
    monkeypatch.setattr(durable, "disk", FullDisk(number))

    with pytest.raises(UserError, match="the run was not started") as found:
        launch.start(b"", name="a run", base_dir=Path("/"), devices=())

    assert found.value.code == code
    assert all((found.value.why, found.value.do, found.value.where))
    assert listing.all_runs() == []


def test_a_full_disk_keeps_a_resume_from_beginning(killed, monkeypatch):
    """The run stays what it was, and can be resumed once there is room."""
    with monkeypatch.context() as patch:
        patch.setattr(durable, "disk", FullDisk(errno.ENOSPC))
        with pytest.raises(UserError, match="not started"):
            launch.resume(killed)
        assert (status(killed).state, killed.attempt()) == (State.KILLED, 1)

    launch.resume(killed)
    assert status(killed).attempt == 2


def test_the_worker_holds_no_terminal_and_no_pipe(start):
    """Its input is /dev/null, its output the console log (SIGPIPE cannot reach it)."""
    run = start()
    worker = wait_for(lambda: who(run, "worker"), "the worker")

    for pid in (worker.pid, who(run, "supervisor").pid):
        targets = [str(Path(f"/proc/{pid}/fd/{fd}").readlink()) for fd in range(3)]
        assert targets == ["/dev/null", str(run.console), str(run.console)]


def test_supervisor_and_worker_are_in_sessions_of_their_own(start):
    """A hang-up or a key of the starter's terminal reaches neither."""
    run = start()
    worker = wait_for(lambda: who(run, "worker"), "the worker")
    supervisor = who(run, "supervisor")

    sessions = {os.getsid(pid) for pid in (0, worker.pid, supervisor.pid)}

    assert len(sessions) == 3
    assert os.getpgid(worker.pid) == worker.pid


def test_a_start_that_was_given_up_does_not_begin_late(home, monkeypatch):
    """Its supervisor sees the higher claim and leaves without a trace."""
    run = rundir.create("a run")
    for attempt in (1, 2):
        assert run.claim(attempt)

    for name, value in environment(5).items():
        monkeypatch.setenv(name, value)
    subprocess.run(
        [sys.executable, "-P", "-m", "runner.supervision.supervisor", str(run.path), "1"],
        check=True,
    )

    assert wait_for(lambda: not _supervisors(run), "it to leave")
    assert not list(read_all(run.supervisor_events))


def _supervisors(run):
    pids = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]
    return [pid for pid in pids if str(run.path).encode() in _command(pid)]


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_run_listens_on_no_port(start):
    """The set of listening sockets of the host is the same before and during a run."""
    before = _listening()
    run = start()
    wait_for(lambda: steps_done(run) > 3, "steps")
    pids = [who(run, part).pid for part in ("supervisor", "worker")]

    assert not [inode for pid in pids for inode in _sockets(pid) if inode in _listening() - before]


def _listening():
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {fields[9] for fields in lines if fields[3] == "0A"}


def _sockets(pid):
    links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return [link[8:-1] for link in links if link.startswith("socket:[")]


def test_a_stop_is_in_the_exit_record_with_all_its_parts(start):
    """The keys that other programs may rely on."""
    run = start(3)

    found = exit_record(run)

    wanted = {"schema", "attempt", "state", "code", "signal", "class", "what", "why", "do", "where"}
    wanted |= {"evidence", "rusage", "last_step", "resumable_from", "t"}
    assert wanted <= set(found)
    assert (found["schema"], found["state"], found["class"]) == (1, "finished", "finished")
    assert found["rusage"]["max_rss_bytes"] > 1 << 20
    assert json.loads(run.exit.read_text()) == found


def test_a_recycled_pid_in_proc_json_is_never_signalled(start):
    """`advisor stop --now` on a lost run ends marked processes alone, whatever proc.json names."""
    run = start(100_000)
    wait_for(lambda: steps_done(run) > 1, "steps")
    end_everything(run)
    innocent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        fake = identity.of_process(innocent.pid).as_dict() | {"start": 1}
        durable.write_json(run.processes, {"attempt": 1, "supervisor": fake, "worker": fake})

        assert leftovers.end(run) == ([], [])
        assert not kill(run, "worker", signal.SIGKILL)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


START_AT_TERMINAL = """
import os, signal, sys, time
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
from runner.supervision import launch
run = launch.start(b"", name="a run", base_dir=Path("/"), devices=())
print("started", run.id, flush=True)
time.sleep(60)
"""


def test_a_run_outlives_the_terminal_it_was_started_from(start):
    """The connection drops: the starter gets its hang-up, the run goes on step by step."""
    start(1)  # for the environment of the double
    with at_terminal(
        code=START_AT_TERMINAL, **environment(100_000), PYTHONSAFEPATH="1"
    ) as terminal:
        terminal.until(b"started ")
        run = wait_for(lambda: [r for r in listing.all_runs() if not _is_over(r)], "the run")[0]
        wait_for(lambda: steps_done(run) > 3, "steps")
        terminal.close()
        starter = terminal.process.wait(10)

    before = steps_done(run)
    wait_for(lambda: steps_done(run) > before + 10, "the run to go on")
    assert starter == -signal.SIGHUP
    assert status(run).state in {State.RUNNING, State.CHECKPOINTING}


def _is_over(run):
    return status(run).state.is_over
