"""A child process in which something from a stranger is tried: few rights, hard limits, no secrets.

The parent calls `ask`; the child module calls `confine` before it touches what it was given, reads
one JSON object from stdin and prints one. If it hangs, eats memory or dies, the parent learns so.
The limits are set inside the child, by our own code: between fork and exec nothing of a program
with threads may run.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from profiles import redact

MEMORY_BYTES: Final = 2 * 2**30
CPU_SECONDS: Final = 10
OPEN_FILES: Final = 64
_CLOCK_PER_CPU: Final = 2.0
"""A child that sleeps uses no CPU, and a busy machine gives it half of one."""
_PR_SET_NO_NEW_PRIVS: Final = 38
_KEPT: Final = frozenset({"PATH", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONPATH", "SYSTEMROOT"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the child printed, or what went wrong with it."""

    content: dict[str, Any] | None
    fault: str = ""


def ask(module: str, request: dict[str, Any], *, cpu_seconds: int = CPU_SECONDS) -> Answer:
    """Run `python -m module` on one request; never raises for what the child does."""
    wait = cpu_seconds * _CLOCK_PER_CPU
    try:
        done = subprocess.run(  # noqa: S603  # argv list of our own, no shell
            [sys.executable, "-P", "-m", module, str(cpu_seconds)],
            input=json.dumps(request).encode(),
            capture_output=True,
            env=environment(),
            cwd="/",
            timeout=wait,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, f"it is not done after {wait:g} s")
    except OSError as error:
        return Answer(None, f"its process cannot be started: {error.strerror}")
    if done.returncode < 0:
        return Answer(None, f"it used more than {cpu_seconds} s of CPU, or crashed")
    try:
        content = json.loads(done.stdout)
    except (ValueError, RecursionError):
        content = None
    if done.returncode or not isinstance(content, dict):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return Answer(None, f"its process failed: {redact.redact(''.join(last))[:200]}")
    return Answer(content)


def environment() -> dict[str, str]:
    """What the child sees: where programs and our packages lie, and how text is written."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    return kept | {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}


def confine(cpu_seconds: int) -> None:
    """In the child: no new rights, no files, no processes, bounded memory and CPU."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    limits = {
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES,
    }
    for name, limit in limits.items():
        _, hard = resource.getrlimit(name)
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(name, (most, most))
