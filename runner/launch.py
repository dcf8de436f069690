"""Starting a run so that nothing of the starter is needed any more.

The launcher writes the run directory and starts the supervisor in a session of its own, without a
terminal, a pipe or an open file of ours. Then it waits for the first sign of life, no longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from profiles import durable, installation, rundir, state
from profiles.errors import ExitCode, UserError
from profiles.journal import read_all
from profiles.rundir import RunDir
from profiles.state import State

_SIGN_OF_LIFE_SECONDS = 15.0
_POLL_SECONDS = 0.05


def start(recipe_text: bytes, *, name: str, base_dir: Path, devices: tuple[str, ...]) -> RunDir:
    """Create a run of the recipe and start it.

    Paths in the recipe are relative to `base_dir`; `devices` are the GPUs it may use, by UUID or
    number, none on a CPU.
    """
    run = rundir.create(name)
    durable.write_atomic(run.recipe, recipe_text)
    durable.write_json(
        run.manifest,
        {
            "schema": rundir.SCHEMA,
            "id": run.id,
            "name": name,
            "created": time.time(),
            "host": os.uname().nodename,
            "base_dir": str(base_dir),
            "devices": devices,
            "tool_version": installation.version(),
            "python": sys.executable,
        },
    )
    _start_attempt(run, 1)
    return run


def resume(run: RunDir) -> int:
    """Start the next attempt of a run that is over; returns the step it goes on from."""
    now = state.status(run)
    if now.state is State.FINISHED:
        raise _refusal(run, "the run is finished", "there is nothing left to do")
    if not now.state.is_over:
        raise _refusal(run, f"the run is {now.state}", now.reason or "it still works")
    if state.is_locked(run):
        raise _refusal(run, "leftovers of the run still work", "its lock is held")
    _start_attempt(run, now.attempt + 1)
    return now.resumable_from or 0


def _refusal(run: RunDir, what: str, why: str) -> UserError:
    return UserError(
        f"cannot resume: {what}",
        why=why,
        do="`advisor watch` shows it, `advisor run` starts the recipe anew",
        where=str(run.path),
        code=ExitCode.CANNOT_CREATE,
    )


def _start_attempt(run: RunDir, attempt: int) -> None:
    durable.write_atomic(run.attempt_file, f"{attempt}\n".encode())
    with run.console.open("ab") as console:
        starter = subprocess.Popen(  # noqa: S603  # argv list of our own, no shell
            [sys.executable, "-P", "-m", "runner.supervisor", str(run.path)],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd=run.path,
            env=os.environ | {"PYTHONSAFEPATH": "1"},
            start_new_session=True,
        )
        starter.wait()
    _wait_for_sign(run, attempt)


def _wait_for_sign(run: RunDir, attempt: int) -> None:
    deadline = time.monotonic() + _SIGN_OF_LIFE_SECONDS
    while time.monotonic() < deadline:
        if any(e.get("a") == attempt for e in read_all(run.supervisor_events)):
            return
        time.sleep(_POLL_SECONDS)
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
        lines = run.console.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return " / ".join(lines[-num_lines:])
