"""The process that outlives everything: starts the worker, waits for it, records how it ended.

It does little on purpose, with the standard library alone, so that it has almost nothing to fail
with. If it is killed all the same, the worker goes on and readers see it. Run as
`python -P -m runner.supervisor RUN_DIR`; the caller returns at once, the supervisor has forked.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from profiles import durable, identity
from profiles.errors import ExitCode
from profiles.journal import Journal, read_all
from profiles.rundir import RunDir, read_json
from profiles.state import State, is_held, newest_checkpoint, status
from runner import control, engines

_TICK_SECONDS = 0.25
_HEARTBEAT_SECONDS = 2.0
_FORCE_AFTER_SECONDS = 10.0
_REAP_SECONDS = 10.0
_PARTS = ("what", "why", "do", "where")
_EXIT_TRIES = 60
_EXIT_RETRY_SECONDS = 10.0
_CONSOLE_LIMIT_BYTES = 16 << 20
_PR_SET_CHILD_SUBREAPER = 36
_LOCK_TRIES = 20


class Supervisor:
    """One attempt of one run."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.attempt = run.attempt()
        self._lock_fd = _take_lock(run)
        if is_held(run.worker_lock):  # ranks of an earlier attempt outlived their supervisor
            raise SystemExit(ExitCode.CANNOT_CREATE)
        run.worker_heartbeat.unlink(missing_ok=True)
        self.events = Journal(run.supervisor_events, attempt=self.attempt)
        self._sampler: subprocess.Popen[bytes] | None = None
        self._unanswered_since = time.monotonic()
        self._forced = False
        self._beats = 0

    def supervise(self) -> None:
        """Run the attempt to its end and write exit.json."""
        self.events.append("sup_started", pid=os.getpid())
        worker = self._start_worker()
        self._write_processes(worker.pid)
        self.events.append("worker_spawned", pid=worker.pid)
        self._sampler = self._start_sampler(worker.pid)
        self._wait(worker.pid)
        self._sweep(worker.pid)
        return_code = worker.wait()
        self._reap_leftovers()
        outcome = self._outcome(return_code)
        self._write_exit(outcome)
        self.events.append("exit", **{k: outcome[k] for k in ("state", "code", "what")})

    def _write_exit(self, outcome: dict[str, Any]) -> None:
        """Wait for room if the disk is full: this record is what people will look for."""
        for _ in range(_EXIT_TRIES - 1):
            try:
                durable.write_json(self.run.exit, outcome)
            except OSError:
                time.sleep(_EXIT_RETRY_SECONDS)
            else:
                return
        durable.write_json(self.run.exit, outcome)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        with self.run.console.open("ab") as console:
            return subprocess.Popen(  # noqa: S603  # argv list of our own, no shell
                engines.worker_argv(self.run.path),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=self.run.path,
                env=engines.worker_environment(os.environ, self._devices()),
                start_new_session=True,
                pass_fds=(self._lock_fd,),
            )

    def _devices(self) -> list[str]:
        return list((read_json(self.run.manifest) or {}).get("devices", []))

    def _start_sampler(self, worker_pid: int) -> subprocess.Popen[bytes]:
        with self.run.console.open("ab") as console:
            return subprocess.Popen(  # noqa: S603  # argv list of our own, no shell
                [sys.executable, "-P", "-m", "runner.sampler", str(self.run.path), str(worker_pid)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=engines.worker_environment(os.environ, self._devices()),
                start_new_session=True,
            )

    def _write_processes(self, worker_pid: int) -> None:
        people = {"supervisor": os.getpid(), "worker": worker_pid}
        known = {name: identity.of_process(pid) for name, pid in people.items()}
        content: dict[str, Any] = {"attempt": self.attempt}
        content |= {name: who.as_dict() for name, who in known.items() if who is not None}
        durable.write_json(self.run.processes, content)

    def _wait(self, worker_pid: int) -> None:
        """Return when the worker has ended; it stays unreaped, so its pid cannot be reused yet."""
        next_beat = 0.0
        ended = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, worker_pid, ended) is None:
            time.sleep(_TICK_SECONDS)
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + _HEARTBEAT_SECONDS
                self._beat()
                self._rotate_console()
            self._escalate(worker_pid)

    def _beat(self) -> None:
        self._beats += 1
        try:
            durable.overwrite(self.run.supervisor_heartbeat, f"{self._beats}\n".encode())
        except OSError:
            return

    def _rotate_console(self) -> None:
        """Keep the log bounded; the worker appends, so after the cut it goes on at the start."""
        try:
            if self.run.console.stat().st_size > _CONSOLE_LIMIT_BYTES:
                shutil.copyfile(self.run.console, self.run.console.with_suffix(".log.1"))
                os.truncate(self.run.console, 0)
        except OSError:
            return

    def _escalate(self, worker_pid: int) -> None:
        """A "stop now" that the worker does not answer ends it by force."""
        asked = any(
            r.verb == "stop_now" and r.attempt == self.attempt for r in control.pending(self.run)
        )
        now = time.monotonic()
        if not asked:
            self._unanswered_since = now
        elif now - self._unanswered_since > _FORCE_AFTER_SECONDS and not self._forced:
            self._forced = True
            self.events.append("stop_forced", signal="SIGKILL")
            _signal_group(worker_pid, signal.SIGKILL)

    def _sweep(self, worker_pid: int) -> None:
        """End what the worker left in its process group, and the sampler."""
        _signal_group(worker_pid, signal.SIGKILL)
        if self._sampler is not None:
            self._sampler.terminate()

    def _reap_leftovers(self) -> None:
        """As subreaper we are the parent of all of them; one stuck in a driver is left behind."""
        deadline = time.monotonic() + _REAP_SECONDS
        while time.monotonic() < deadline:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                for child in _children():
                    os.kill(child, signal.SIGKILL)  # ours and unreaped: the pid is surely theirs
                time.sleep(_TICK_SECONDS / 5)

    def _outcome(self, return_code: int) -> dict[str, Any]:
        now = status(self.run)
        error = read_json(self.run.error)
        if error is not None and error.get("attempt") != self.attempt:
            error = None
        resumable = newest_checkpoint(self.run)
        outcome: dict[str, Any] = {
            "attempt": self.attempt,
            "state": State.FAILED,
            "code": return_code,
            "signal": None,
            "last_step": now.step,
            "resumable_from": resumable,
            "t": time.time(),
            "what": "",
            "why": "",
            "do": "`advisor resume` goes on from the last checkpoint" if resumable else "",
            "where": str(self.run.console),
        }
        ended = self._end_event()
        if ended == State.FINISHED and self.run.model.is_dir():
            # whatever happened after that, in a library's teardown for example, the result is there
            what = f"all {now.step} steps are done, the result is in {self.run.model}"
            done = {"state": State.FINISHED, "code": 0, "what": what, "do": ""}
            return outcome | done
        if self._forced:
            what = f"stopped by force at step {now.step}: it did not answer for 10 s"
            return outcome | {"state": State.STOPPED, "code": int(ExitCode.STOPPED), "what": what}
        # torchrun reports every failing rank as 1, so the worker's own word counts first
        if ended == State.STOPPED or return_code == ExitCode.STOPPED:
            saved = f"resumable from step {resumable}" if resumable else "nothing was saved"
            what = f"stopped on request at step {now.step}, {saved}"
            return outcome | {"state": State.STOPPED, "code": int(ExitCode.STOPPED), "what": what}
        if error is not None:
            return outcome | {k: error[k] for k in ("code", *_PARTS) if k in error}
        if return_code < 0:
            return outcome | self._killed(-return_code, now.step, resumable)
        what = f"the worker ended with exit code {return_code} and gave no reason"
        return outcome | {"code": return_code or int(ExitCode.INTERNAL), "what": what}

    def _end_event(self) -> str | None:
        """The end that the worker wrote down in this attempt, if it came to one."""
        events = read_all(self.run.worker_events)
        ends = [e["state"] for e in events if e["kind"] == "end" and e["a"] == self.attempt]
        return str(ends[-1]) if ends else None

    def _killed(self, number: int, step: int, resumable: int | None) -> dict[str, Any]:
        saved = f"resumable from step {resumable}" if resumable else "no checkpoint yet"
        return {
            "state": State.KILLED,
            "code": 128 + number,
            "signal": signal.Signals(number).name,
            "what": f"killed by {signal.Signals(number).name} at step {step}; {saved}",
            "why": "a process outside the run sent the signal, or the kernel did",
        }


def _children() -> list[int]:
    """Our children, the adopted ones too: ranks that torchrun left, data loader workers."""
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    except OSError:
        return []


def _take_lock(run: RunDir) -> int:
    fd = os.open(run.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE_FILE)
    for _ in range(_LOCK_TRIES):  # readers try the lock too, for an instant
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return fd
    raise SystemExit(ExitCode.CANNOT_CREATE)


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the worker's process group, which carries the pid of our own, unreaped child."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _take_no_notice(_number: int, _frame: object) -> None:
    """The worker decides about signals; the supervisor stays to record the end."""


def main(argv: list[str]) -> int:
    """Fork, so that the starter need not wait for us, then supervise."""
    if os.fork() > 0:
        os._exit(0)
    run = RunDir(Path(argv[1]))
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, _take_no_notice)  # SIG_IGN would be inherited by the worker
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    Supervisor(run).supervise()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
