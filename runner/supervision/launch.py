"""Starting a run so that nothing of the starter is needed any more.

The launcher writes the run directory and starts the supervisor in a session of its own, without a
terminal, a pipe or an open file of ours. Then it waits for the first sign of life, no longer. Who
may start an attempt is decided by one exclusive creation, whatever locks say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from profiles import installation, redact
from profiles.errors import ExitCode, UserError
from profiles.runs import (
    advice,
    caveats,
    devices,
    durable,
    locks,
    notices,
    processes,
    reading,
    rundir,
    session_host,
    state,
)
from profiles.runs.journal import read_all
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, Status
from runner.supervision.console import open_log

_SIGN_OF_LIFE_SECONDS = 15.0
_GONE_SECONDS = 5.0
"""A supervisor that has written its last record needs some time to leave."""
_POLL_SECONDS = 0.05
_ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def start(
    recipe_text: bytes,
    *,
    name: str,
    base_dir: Path,
    devices: tuple[str, ...],
    kept: Mapping[str, Any] = MappingProxyType({}),
    tell: Callable[[RunDir], None] = lambda _run: None,
) -> RunDir:
    """Create a run of the recipe and start it.

    Paths in the recipe are relative to `base_dir`; `devices` are the GPUs it may use, by UUID or
    number, none on a CPU; `kept`: what else of the start later readers need, for the manifest.
    `tell` is called when the run is there and nothing of it works yet: who ends this process before
    ends the start with it, and who does later knows what goes on.
    """
    with _undisturbed():
        run = rundir.create(name)
        with _first_writes(run, is_new=True):
            _describe(run, recipe_text, name=name, base_dir=base_dir, devices=devices, kept=kept)
            _claim(run, 1)
        if _is_asked_to_end():
            durable.remove_tree(run.path, inside=rundir.run_root())
            raise _ended_before()
        tell(run)
    with _first_writes(run, is_new=True):
        _start_supervisor(run, 1)
    _wait_for_sign(run, 1)
    return run


def _describe(  # what a manifest holds
    run: RunDir,
    recipe_text: bytes,
    *,
    name: str,
    base_dir: Path,
    devices: tuple[str, ...],
    kept: Mapping[str, Any],
) -> None:
    """Write what was started."""
    manifest = {
        "schema": rundir.SCHEMA,
        "id": run.id,
        "name": name,
        "created": time.time(),
        "host": os.uname().nodename,
        "path": str(run.path.resolve()),
        "base_dir": str(base_dir),
        "devices": devices,
        **kept,
        "tool_version": installation.version(),
        "python": sys.executable,
    }
    durable.write_atomic(run.recipe, recipe_text)
    durable.write_json(run.manifest, manifest)
    rundir.keep_rooms(run)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside, a signal that would end this process waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_asked_to_end() -> bool:
    """One of them waits, and is not one that this process ignores, as under nohup."""
    waiting = signal.sigpending() & _ENDING
    return any(signal.getsignal(number) is not signal.SIG_IGN for number in waiting)


def _ended_before() -> UserError:
    return UserError(
        "the run was not started",
        why="this command was asked to end before anything of the run worked",
        do="give the command again",
        where=str(rundir.run_root()),
        code=ExitCode.STOPPED,
    )


@contextlib.contextmanager
def _first_writes(run: RunDir, *, is_new: bool = False) -> Iterator[None]:
    """Before anything runs: a disk that does not take the files is told, a new run taken back."""
    try:
        yield
    except OSError as error:
        if is_new:
            with contextlib.suppress(OSError):
                durable.remove_tree(run.path, inside=rundir.run_root())
        is_storage = error.errno in _STORAGE
        raise UserError(
            f"the run was not started: {error.strerror or error}",
            why="its first files could not be written",
            do="make room there" if is_storage else "make that place writable for this user",
            where=str(rundir.run_root() if is_new else run.path),
            code=ExitCode.IO_ERROR if is_storage else ExitCode.CANNOT_CREATE,
        ) from error


def resume(
    run: RunDir,
    chosen: Sequence[str] | None = None,
    tell: Callable[[RunDir], None] = lambda _run: None,
) -> None:
    """Start the next attempt of a run that is over.

    `chosen`: the GPUs to use from here on, by UUID or number; None keeps those it had. `tell` as
    for a start.
    """
    now = state.status(run)
    refuse_resume(run, now)
    _wait_until_left(run)
    _refuse_leftovers(run)
    attempt = now.attempt + 1
    with _undisturbed(), _first_writes(run):
        if chosen is not None:
            devices.choose(run, chosen)
        _claim(run, attempt)
        tell(run)
    with _first_writes(run):
        _start_supervisor(run, attempt)
    _wait_for_sign(run, attempt)


def refuse_resume(run: RunDir, now: Status) -> None:
    """UserError unless the run, whose status this is, is over and has something left to do."""
    rundir.refuse_newer(run)
    rundir.refuse_foreign(run, "resume")
    if now.state is State.FINISHED:
        raise _refusal(run, "the run is finished", "there is nothing left to do")
    if now.state is State.DAMAGED:
        raise _refusal(run, "the run is damaged", now.reason)
    caveats.refuse_without_manifest(run, "resume")
    if not now.state.is_over:
        raise _refusal(run, f"the run is {now.state}", now.reason or now.notice or "it still works")


def _refusal(run: RunDir, what: str, why: str) -> UserError:
    return UserError(
        f"cannot resume: {what}",
        why=why,
        do=f"{advice.command('watch', run)} shows it; {advice.anew(run)}",
        where=str(run.path),
        code=ExitCode.CANNOT_CREATE,
    )


def _wait_until_left(run: RunDir) -> None:
    """The supervisor of a run that is over leaves by itself, and its lock with it."""
    deadline = time.monotonic() + _GONE_SECONDS
    while is_supervised(run) or locks.is_held(run.lock):
        if time.monotonic() > deadline or (not is_supervised(run) and processes.marked(run)):
            return
        time.sleep(_POLL_SECONDS)


def is_supervised(run: RunDir) -> bool:
    """Its supervisor lives, as far as anybody can say."""
    with contextlib.suppress(OSError):
        return processes.supervisor_is_alive(run)
    return True  # it cannot be read, so nobody says that it is gone


def _refuse_leftovers(run: RunDir) -> None:
    if is_supervised(run):
        raise _refusal(run, "its supervisor still works", "it tidies up after the last attempt")
    if left := processes.marked(run):
        raise UserError(
            f"cannot resume: {notices.holding(left)}",
            why="they outlived the last attempt, and may still use its GPU and its files",
            do=f"end them with {advice.command('stop', run, '--now')}",
            where=str(run.path),
            code=ExitCode.CANNOT_CREATE,
        )
    if state.is_locked(run):
        raise _refusal(run, "its lock is held", "by a process that cannot be seen from here")


def _claim(run: RunDir, attempt: int) -> None:
    """Take it; OSError or UserError if it is not ours to start."""
    open_log(run.console).close()  # a disk that takes no log leaves the attempt to others
    if not run.claim(attempt):
        raise _refusal(run, "somebody else resumes it", f"attempt {attempt} is taken")
    with contextlib.suppress(OSError):  # for people who look; the claim alone counts
        durable.write_atomic(run.attempt_file, f"{attempt}\n".encode())


def _start_supervisor(run: RunDir, attempt: int) -> None:
    """Start the attempt that is claimed; OSError if this machine starts no process."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "runner.supervision.supervisor",
        str(run.path),
        str(attempt),
    ]
    scope = session_host.scope_command(f"tunedeck-{run.id}-{attempt}")
    with open_log(run.console) as console:
        # Without a user manager that obeys, a session of its own is what there is
        if not scope or _spawn(run, [*scope, *command], console) != 0:
            _spawn(run, command, console)


def _spawn(run: RunDir, command: list[str], console: BinaryIO) -> int:
    """Run the starter, which forks the supervisor and ends."""
    return subprocess.Popen(  # noqa: S603  # argv list of our own, no shell
        command,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        cwd=run.path,
        env=redact.without_secrets(os.environ) | {"PYTHONSAFEPATH": "1"},
        start_new_session=True,
    ).wait()


def _wait_for_sign(run: RunDir, attempt: int) -> None:
    deadline = time.monotonic() + _SIGN_OF_LIFE_SECONDS
    while time.monotonic() < deadline:
        if any(e.attempt == attempt for e in read_all(run.supervisor_events)):
            return
        time.sleep(_POLL_SECONDS)
    if state.is_locked(run):
        raise UserError(
            "no sign of life yet",
            why="the supervisor is there, but has written nothing in 15 s; the disk may be slow",
            do=f"{advice.command('watch', run)} shows it",
            where=str(run.path),
            code=ExitCode.INTERNAL,
        )
    with contextlib.suppress(OSError):  # the claim's age counts from here on: we may live for long
        durable.write_atomic(run.claims / str(attempt), b"")
    raise UserError(
        "the run did not start",
        why=console_tail(run) or "the supervisor gave no sign of life in 15 s",
        do="read the console log",
        where=str(run.console),
        code=ExitCode.INTERNAL,
    )


def console_tail(run: RunDir, num_lines: int = 3) -> str:
    """The last lines of the console log, for an error message."""
    try:
        end = reading.end_of(run.console, reading.MOST_TEXT_BYTES)
    except OSError:
        return ""
    return " / ".join(end.decode(errors="replace").strip().splitlines()[-num_lines:])
