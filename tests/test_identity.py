"""Who a process is, and that no signal ever reaches another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from doubles import wait_for

from profiles.runs import identity, processes, rundir
from runner.supervision import leftovers


@pytest.fixture
def sleeper():
    """A live child that nobody wants to hurt."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def test_a_signal_reaches_the_process_that_is_meant(sleeper):
    """By pidfd, with the identity compared."""
    who = identity.of_process(sleeper.pid)

    assert identity.send_signal(who, signal.SIGKILL)
    assert sleeper.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize(
    "change",
    [{"start": 1}, {"boot_id": "another"}, {"pid_namespace": "pid:[1]"}],
)
def test_a_pid_that_belongs_to_somebody_else_is_not_signalled(sleeper, change):
    """Another start time, boot or namespace is another process."""
    who = replace(identity.of_process(sleeper.pid), **change)

    assert not identity.send_signal(who, signal.SIGKILL)
    assert sleeper.poll() is None


def test_the_name_of_a_host_says_nothing_about_a_process(sleeper):
    """A container of the host has a name of its own; the boot id is the machine's."""
    assert replace(identity.of_process(sleeper.pid), host="container").is_alive


@pytest.mark.parametrize("pid", [1, os.getppid(), 0, -1, 2**22 + 1, 2**40])
def test_a_pid_from_a_file_is_no_licence(pid):
    """Not init, not our shell, no process group and no nonsense is signalled."""
    who = replace(identity.of_process(os.getpid()), pid=pid, start=1)

    assert not identity.send_signal(who, signal.SIGTERM)


def test_the_identity_is_compared_after_the_pidfd_is_opened(sleeper, monkeypatch):
    """A pid that is recycled between comparison and signal would be hit otherwise."""
    order = []
    real_open, real_start = os.pidfd_open, identity._start_of
    monkeypatch.setattr(os, "pidfd_open", lambda pid: order.append("open") or real_open(pid))
    monkeypatch.setattr(
        identity, "_start_of", lambda pid: order.append("compare") or real_start(pid)
    )
    who = replace(identity.of_process(sleeper.pid), start=1)
    order.clear()

    identity.send_signal(who, signal.SIGKILL)

    assert order == ["open", "compare"]


def test_a_process_that_is_gone_is_not_signalled(sleeper):
    """A zombie counts as gone."""
    who = identity.of_process(sleeper.pid)
    sleeper.kill()
    wait_for(lambda: identity.state_of(sleeper.pid) == "Z", "the zombie")

    assert not identity.send_signal(who, signal.SIGTERM)


def test_a_handler_for_a_signal_is_seen():
    """Only who catches SIGUSR2 is sent it: it would end anybody else."""
    code = "import signal; signal.signal(signal.SIGUSR2, print); print(1, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    who = identity.of_process(process.pid)

    caught = [identity.catches(who, n) for n in (signal.SIGUSR2, signal.SIGUSR1)]

    process.kill()
    process.wait()
    assert caught == [True, False]
    assert not identity.catches(who, signal.SIGUSR2)


@pytest.mark.parametrize(
    ("stat", "letter"),
    [
        (b"4711 (python) D 1 4711 4711 0 -1", "D"),
        (b"4711 (a) R (b)) S 1 4711", "S"),
        (b"4711 (python) Z 1", "Z"),
        (b"", ""),
        (b"4711 (pyth", ""),
        (b"4711 (python)", ""),
    ],
)
def test_the_state_of_a_process_is_read_past_any_name(stat, letter):
    """Names may hold spaces and parentheses."""
    assert identity.state_letter(stat) == letter


def test_a_stopped_child_is_seen_as_stopped(sleeper):
    """The kernel's letter of a real process."""
    os.kill(sleeper.pid, signal.SIGSTOP)

    assert wait_for(lambda: identity.state_of(sleeper.pid) == "T", "the stop")


def test_a_stopped_leftover_is_ended(sleeper):
    """SIGKILL ends a stopped process too, so nothing is reported as stuck."""
    os.kill(sleeper.pid, signal.SIGSTOP)
    who = identity.of_process(sleeper.pid)

    assert leftovers.end_all(lambda: [w for w in [who] if w.is_alive]) == []


def test_a_process_in_the_driver_is_waited_for_only_so_long(monkeypatch):
    """What SIGKILL does not end is left after a bounded wait, and named."""
    monkeypatch.setattr(leftovers, "_END_SECONDS", 0.2)
    monkeypatch.setattr(identity, "send_signal", lambda _who, _number: True)
    me = identity.of_process(os.getpid())

    left = leftovers.end_all(lambda: [me])

    assert leftovers.stuck(left, lambda _pid: "D") == [
        f"process {os.getpid()} is stuck in the driver; the host may need a reboot"
    ]
    assert leftovers.stuck(left, lambda _pid: "R") == [f"process {os.getpid()} did not end"]


def test_leftovers_are_found_by_the_mark_of_their_run_alone(home):
    """A process of another run, and one without a mark, are somebody else's."""
    run, other = rundir.create("one"), rundir.create("other")
    command = [sys.executable, "-c", "input()"]
    marks = [{processes.MARK: run.id}, {processes.MARK: other.id}, {}, {"X": run.id}]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, env=os.environ | mark) for mark in marks
    ]
    try:
        found = wait_for(lambda: processes.marked(run), "the marked one")
        assert [who.pid for who in found] == [started[0].pid]

        done, left = leftovers.end(run)

        assert ([who.pid for who in done], left) == ([started[0].pid], [])
        assert [p.poll() for p in started[1:]] == [None, None, None]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_leftovers_of_another_user_are_not_ours(home):
    """The same mark under another uid is passed over."""
    run = rundir.create("a run")
    process = subprocess.Popen(
        ["/bin/sleep", "60"], env={processes.MARK: run.id}, user=65534, cwd="/"
    )
    try:
        mark = f"{processes.MARK}={run.id}".encode()
        environ = Path(f"/proc/{process.pid}/environ")
        wait_for(lambda: mark in environ.read_bytes(), "the mark")

        assert processes.marked(run) == []
    finally:
        process.kill()
        process.wait()


def test_no_signal_goes_to_a_pid_that_a_file_named():
    """In all four packages, os.kill and os.killpg meet ourselves or our own unreaped children."""
    root = Path(__file__).parent.parent
    code = {
        str(path.relative_to(root)): path.read_text().replace("os.kill(os.getpid()", "")
        for room in ("profiles", "advisor", "runner", "tui")
        for path in (root / room).rglob("*.py")
    }
    users = {name for name, text in code.items() if "os.kill" in text}

    assert users <= {
        "runner/supervision/supervisor.py",
        "runner/supervision/leftovers.py",
        "runner/supervision/escalation.py",
    }
