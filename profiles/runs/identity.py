"""Which process is meant: a pid alone is reused, so boot, namespace and start time belong to it.

Signals to a process that a file names go through `send_signal` alone: it can never reach a later
process with the same pid.
"""

from __future__ import annotations

import os
import platform
import signal
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_ROUNDING = 1
"""Ticks by which two readers whose clocks differ by parts of one may see a start differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One process, for ever: no later process on any host has the same identity."""

    host: str
    """Name for people; a container has one of its own."""
    boot_id: str
    pid_namespace: str
    pid: int
    start: int
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat), as the first time
    namespace counts them."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def is_local(self) -> bool:
        """Belongs to this boot and pid namespace, so that this process may judge it.

        The boot id says which machine it is; containers give it other names.
        """
        return self.is_of_this_boot and self.pid_namespace == _here()[2]

    @property
    def is_of_this_boot(self) -> bool:
        """Ran on this machine since its start, perhaps in another container."""
        return self.boot_id == _here()[1]

    @property
    def is_alive(self) -> bool:
        """Runs here and now; a zombie does not."""
        start = _start_of(self.pid) if self.is_local else None
        return start is not None and abs(start - self.start) <= _ROUNDING


def of_process(pid: int) -> Identity | None:
    """Identity of a live local process, or None if there is no such process."""
    start = _start_of(pid)
    if start is None:
        return None
    host, boot_id, namespace = _here()
    return Identity(host=host, boot_id=boot_id, pid_namespace=namespace, pid=pid, start=start)


def from_dict(value: Any) -> Identity | None:
    """Read back `as_dict`; None if the content is not an identity."""
    names, numbers = ("host", "boot_id", "pid_namespace"), ("pid", "start")
    known = value if isinstance(value, dict) else {}
    texts = {name: known[name] for name in names if isinstance(known.get(name), str)}
    whole = {name: known[name] for name in numbers if type(known.get(name)) is int}
    return Identity(**texts, **whole) if len(texts | whole) == len(names + numbers) else None


def send_signal(who: Identity, number: int) -> bool:
    """Signal exactly this process; False if it is gone, another one, elsewhere or not ours.

    The pidfd is opened before the comparison: it stays bound to the process that was compared,
    whatever becomes of the pid afterwards.
    """
    if not hasattr(signal, "pidfd_send_signal"):  # Linux alone has it; runs exist on Linux alone
        return False
    try:
        fd = os.pidfd_open(who.pid)
    except (OSError, ValueError, OverflowError):  # no pid at all
        return False
    try:
        if not who.is_alive:
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def working_folder(who: Identity) -> Path | None:
    """Where a live process works; None if it is gone, or not ours to ask."""
    try:
        folder = Path(f"/proc/{who.pid}/cwd").readlink()
    except OSError:
        return None
    return folder if who.is_alive else None


def command_of(who: Identity) -> str:
    """The command line of a live process, for people; "" if it is gone."""
    try:
        words = Path(f"/proc/{who.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace").strip() if who.is_alive else ""


def catches(who: Identity, number: int) -> bool:
    """The process has a handler for this signal, so that the signal does not end it."""
    try:
        lines = Path(f"/proc/{who.pid}/status").read_text().splitlines()
        mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    except (OSError, StopIteration, ValueError):
        return False
    return who.is_alive and bool(mask >> (number - 1) & 1)


def state_letter(stat: bytes) -> str:
    """State of a process from the content of its /proc/PID/stat: R, S, D, T, Z...; "" if damaged.

    The name before it may hold anything, parentheses too, so the last one ends it (proc(5)).
    """
    fields = stat[stat.rfind(b")") + 1 :].split()
    return fields[0].decode("ascii", "replace") if b")" in stat and fields else ""


def state_of(pid: int) -> str:
    """State letter of a live process, "" if there is none."""
    try:
        return state_letter(Path(f"/proc/{pid}/stat").read_bytes())
    except OSError:
        return ""


def boot_time() -> float:
    """Unix time of this host's start (btime of /proc/stat, proc(5)), 0 where it is not known."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
    except (OSError, StopIteration, ValueError):
        return 0.0


def of_this_host() -> str:
    """Name of the host, as identities carry it."""
    return platform.node()


def _here() -> tuple[str, str, str]:
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot_id, namespace = f"unknown, {of_this_host()}", "unknown"
    return of_this_host(), boot_id, namespace


def _start_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return _start_without_proc(pid)
    state, *rest = stat[stat.rfind(b")") + 2 :].split()
    return None if state in (b"Z", b"X") else int(rest[18]) - _ticks_ahead()


@lru_cache(maxsize=1)
def _ticks_ahead() -> int:
    """How far this process's clock of the time since boot is ahead of the host's.

    /proc shows start times to each reader by its own clock (time_namespaces(7)), so a container
    with a clock of its own would take every process for another one.
    """
    try:
        lines = Path("/proc/self/timens_offsets").read_text().splitlines()
        words = next(line.split()[1:] for line in lines if "boottime" in line)
        seconds, nanoseconds = map(int, words)
    except (OSError, StopIteration, ValueError):
        return 0
    ticks = os.sysconf("SC_CLK_TCK")
    return seconds * ticks + nanoseconds * ticks // 1_000_000_000


def _start_without_proc(pid: int) -> int | None:
    """On systems without /proc (macOS), psutil knows the start time."""
    if Path("/proc/self/stat").exists():
        return None
    import psutil  # noqa: PLC0415  # only where there is no /proc; the supervisor stays on stdlib

    try:
        return int(psutil.Process(pid).create_time() * 1000)
    except psutil.Error:
        return None
