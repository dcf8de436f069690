"""The process that outlives everything: starts the worker, waits for it, records how it ended.

It does little on purpose, with the standard library alone, so that it has almost nothing to fail
with. If it is killed all the same, the worker goes on and readers see it. Run as `python -P -m
runner.supervision.supervisor RUN_DIR ATTEMPT`; the caller returns at once, the supervisor has
forked. A worker that asks for a clean process gets one, twice at most; nothing else restarts.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiles.errors import ExitCode
from profiles.runs import devices, durable, identity, locks, processes
from profiles.runs.journal import Journal
from profiles.runs.records.supervisor import (
    Exit,
    Restarted,
    SupervisorStarted,
    WorkerSpawned,
)
from profiles.runs.rundir import RunDir
from profiles.runs.state import newest_checkpoint
from runner.supervision import console, control, evidence, leftovers, outcome, worker_command
from runner.supervision.escalation import Escalation, Pulse
from runner.supervision.evidence import Evidence
from runner.supervision.exit_record import ExitRecord
from runner.supervision.outcome import Ended

_SAMPLER = [sys.executable, "-P", "-m", "runner.sampler"]
_TICK_SECONDS = 0.25
_HEARTBEAT_SECONDS = 2.0
_REAP_SECONDS = 10.0
_MOST_RESTARTS = 2
_PR_SET_CHILD_SUBREAPER = 36
_LOCK_TRIES = 20


class Supervisor:
    """The attempts of one run that follow each other without a person: one, or up to three."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.attempt = self._first_attempt = run.attempt()
        if processes.supervisor_is_alive(run):  # where locks are granted to everybody
            raise SystemExit(ExitCode.CANNOT_CREATE)
        self._lock_fd = _take_lock(run)
        if locks.is_held(run.worker_lock):  # ranks of an earlier attempt outlived their supervisor
            raise SystemExit(ExitCode.CANNOT_CREATE)
        with contextlib.suppress(OSError):
            durable.clear_leftovers(run.path)
        self.events = Journal(run.supervisor_events, attempt=self.attempt)
        self._record = ExitRecord(run)
        self._sampler: subprocess.Popen[bytes] | None = None
        self._console_offset = 0
        self._beats = 0
        self._complaints: set[str] = set()

    def supervise(self) -> None:
        """Run to the end and write exit.json."""
        self.events.append(SupervisorStarted(pid=os.getpid()))
        ended = self._run_attempt()
        while self._restarts(ended):
            ended = self._run_attempt()
        try:
            content = outcome.of(self.run, ended)
        except Exception:  # noqa: BLE001  # whatever we cannot explain, the end is recorded
            traceback.print_exc()
            content = outcome.unexplained(self.run, ended)
        self._write_record(content, ended)
        self.events.append(Exit(**{k: content[k] for k in ("state", "code", "what")}))
        result = "obeyed by force" if ended.forced else control.OVER
        self._carefully(lambda: control.close(self.run, self.attempt, result))

    def _write_record(self, content: dict[str, Any], ended: Ended) -> None:
        try:
            self._record.write(content)
        except OSError:  # waited for long enough: the event may still find room
            traceback.print_exc()
        except Exception:  # noqa: BLE001  # JSON cannot say it, so the least is said
            traceback.print_exc()
            self._carefully(lambda: self._record.write(outcome.unexplained(self.run, ended)))

    def _run_attempt(self) -> Ended:
        with contextlib.suppress(OSError):
            self.run.worker_heartbeat.unlink()
        self._console_offset = console.size(self.run)
        self._write_processes()  # whoever kills us before the worker is known leaves a trace of us
        try:
            worker = self._start_worker()
        except OSError as error:
            code = int(ExitCode.DRIVER)
            return Ended(attempt=self.attempt, return_code=code, failure=str(error))
        escalation = Escalation(
            self.run, self.attempt, self.events, lambda: _signal_group(worker.pid, signal.SIGKILL)
        )
        is_written = self._write_processes(worker=worker.pid)
        self.events.append(WorkerSpawned(pid=worker.pid))
        watch = evidence.Watch(worker.pid)
        with contextlib.suppress(OSError):  # a run without samples is still a run
            self._start_sampler(worker.pid)
        self._wait(worker.pid, escalation, is_written=is_written)
        _signal_group(worker.pid, signal.SIGKILL)  # what it left in its own process group
        _, status, used = os.wait4(worker.pid, 0)
        worker.returncode = os.waitstatus_to_exitcode(status)
        left = leftovers.reap_children(_REAP_SECONDS)
        self._carefully(self._rotate)
        return Ended(
            attempt=self.attempt,
            return_code=worker.returncode,
            forced=escalation.forced,
            console_offset=self._console_offset,
            evidence=watch.look() if worker.returncode else Evidence(),
            rusage=evidence.resources(used),
            stuck=tuple(leftovers.stuck(left)),
        )

    def _start_worker(self) -> subprocess.Popen[bytes]:
        with console.open_log(self.run.console) as log:
            return subprocess.Popen(  # noqa: S603  # argv list of our own, no shell
                worker_command.worker_argv(self.run.path),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.run.path,
                env=self._environment() | {processes.MARK: self.run.id},
                start_new_session=True,
                pass_fds=(self._lock_fd,),
            )

    def _environment(self) -> dict[str, str]:
        return worker_command.worker_environment(os.environ, devices.of(self.run))

    def _start_sampler(self, worker_pid: int) -> None:
        """It ends with the worker; whatever keeps it is reaped with the other children."""
        with console.open_log(self.run.console) as log:
            self._sampler = subprocess.Popen(  # noqa: S603  # argv list of our own, no shell
                [*_SAMPLER, str(self.run.path), str(worker_pid)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )

    def _write_processes(self, **others: int) -> bool:
        """Write down who works here, by pid; False without room."""
        found = {"supervisor": os.getpid(), **others}
        known = {name: identity.of_process(pid) for name, pid in found.items()}
        content: dict[str, Any] = {"attempt": self.attempt}
        content |= {name: who.as_dict() for name, who in known.items() if who is not None}
        try:
            durable.write_json(self.run.processes, content)
        except OSError:
            return False
        return True

    def _wait(self, worker_pid: int, escalation: Escalation, *, is_written: bool) -> None:
        """Return when the worker has ended; it stays unreaped, so its pid cannot be reused yet."""
        next_beat, pulse = 0.0, Pulse(self.run, self.events)
        ended = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, worker_pid, ended) is None:
            time.sleep(_TICK_SECONDS)
            self._carefully(self._rotate)
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + _HEARTBEAT_SECONDS
                self._carefully(self._beat)
                self._carefully(pulse.look)
                is_written = is_written or self._write_processes(worker=worker_pid)
            self._carefully(lambda: escalation.look(worker_pid))

    def _carefully(self, duty: Callable[[], None]) -> None:
        """Nothing that goes wrong beside the wait may end it; each complaint is printed once."""
        try:
            duty()
        except Exception as error:  # noqa: BLE001  # the wait for the worker matters more
            if repr(error) not in self._complaints:
                self._complaints.add(repr(error))
                traceback.print_exc()

    def _rotate(self) -> None:
        if console.rotate(self.run):
            self._console_offset = 0

    def _beat(self) -> None:
        self._beats += 1
        with contextlib.suppress(OSError):
            durable.overwrite(self.run.supervisor_heartbeat, f"{self._beats}\n".encode())
        self._readdress()

    def _readdress(self) -> None:
        """A stop for an attempt that we replaced ourselves is meant for the one that goes on."""
        replaced = range(self._first_attempt, self.attempt)
        with contextlib.suppress(OSError):
            control.readdress(self.run, replaced, self.attempt)

    def _restarts(self, ended: Ended) -> bool:
        """Begin another attempt if the worker asked for a clean process and nobody for a stop."""
        number = self.attempt - self._first_attempt + 1
        if not outcome.wants_clean_restart(self.run, self.attempt, ended.return_code):
            return False
        asked = any(r.verb in control.STOPS for r in control.waiting(self.run))
        if asked or number > _MOST_RESTARTS or ended.stuck:
            return False
        try:
            if not self.run.claim(self.attempt + 1):
                return False
        except OSError:
            return False
        self.attempt += 1
        with contextlib.suppress(OSError):  # the claim alone counts
            durable.write_atomic(self.run.attempt_file, f"{self.attempt}\n".encode())
        self.events.close()
        self.events = Journal(self.run.supervisor_events, attempt=self.attempt)
        step = newest_checkpoint(self.run) or 0
        what = f"restarted from step {step} in a clean process ({number} of {_MOST_RESTARTS})"
        self.events.append(Restarted(number=number, of=_MOST_RESTARTS, what=what))
        self._readdress()
        return True


def _take_lock(run: RunDir) -> int:
    fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE_FILE)
    for _ in range(_LOCK_TRIES):  # readers try the lock too, for an instant
        if locks.take(fd, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return fd
        time.sleep(0.05)
    raise SystemExit(ExitCode.CANNOT_CREATE)


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the worker's process group, which carries the pid of our own, unreaped child.

    As long as it is not reaped, neither the pid nor the group can belong to anybody else.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _take_no_notice(_number: int, _frame: object) -> None:
    """The worker decides about signals; the supervisor stays to record the end."""


def main(argv: list[str]) -> int:
    """Fork, so that the starter need not wait for us, then supervise."""
    # Inherited as ignored, it would let the kernel reap the worker, and its end be lost (wait(2))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.fork() > 0:
        os._exit(0)
    run = RunDir(Path(argv[1]))
    if run.attempt() != int(argv[2]):  # somebody gave this start up and began another
        return int(ExitCode.CANNOT_CREATE)
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, _take_no_notice)  # SIG_IGN would be inherited by the worker
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    Supervisor(run).supervise()
    return 0


if __name__ == "__main__":
    console.print_what_fits()
    sys.exit(main(sys.argv))
