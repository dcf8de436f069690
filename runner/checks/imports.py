"""Whether a package can be imported, asked in a child process: it may raise, crash or hang."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from runner.supervision import worker_command

_TIMEOUT_SECONDS = 60.0
"""bitsandbytes brings torch, which takes half a minute from a cold network disk."""


SLOW = "importing it takes longer than"
"""How the fault begins that a busy machine or a slow disk makes: it may go all the same."""


def fault(package: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> str:
    """Why `package` cannot be imported, in one line; empty if it can."""
    try:
        done = subprocess.run(  # noqa: S603  # argv list of our own, no shell
            [sys.executable, "-P", "-c", f"import {package}"],
            env=worker_command.worker_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{SLOW} {timeout_seconds:g} s"
    if done.returncode < 0:
        return f"importing it ends the process with {signal.Signals(-done.returncode).name}"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines or ["no reason was given"])[-1][:300] if done.returncode else ""
