"""Which process is meant: a pid alone is reused, so it is bound to host, boot and start time."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One process, for ever: no later process on any host has the same identity."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start: int
    """Start time in clock ticks since boot (field 22 of /proc/PID/stat)."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def is_local(self) -> bool:
        """Belongs to this host and boot, so that this process may judge it."""
        return (self.host, self.boot_id, self.pid_namespace) == _here()

    @property
    def is_alive(self) -> bool:
        """Runs here and now; a zombie does not."""
        return self.is_local and _start_of(self.pid) == self.start


def of_process(pid: int) -> Identity | None:
    """Identity of a live local process, or None if there is no such process."""
    start = _start_of(pid)
    if start is None:
        return None
    host, boot_id, namespace = _here()
    return Identity(host=host, boot_id=boot_id, pid_namespace=namespace, pid=pid, start=start)


def from_dict(value: Any) -> Identity | None:
    """Read back `as_dict`; None if the content is not an identity."""
    try:
        return Identity(
            host=str(value["host"]),
            boot_id=str(value["boot_id"]),
            pid_namespace=str(value["pid_namespace"]),
            pid=int(value["pid"]),
            start=int(value["start"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def of_this_host() -> str:
    """Name of the host, as identities carry it."""
    return platform.node()


def _here() -> tuple[str, str, str]:
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        boot_id = namespace = "unknown"
    return of_this_host(), boot_id, namespace


def _start_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return _start_without_proc(pid)
    state, *rest = stat[stat.rfind(b")") + 2 :].split()
    return None if state in (b"Z", b"X") else int(rest[18])


def _start_without_proc(pid: int) -> int | None:
    """On systems without /proc (macOS), psutil knows the start time."""
    if Path("/proc/self/stat").exists():
        return None
    import psutil  # noqa: PLC0415  # only where there is no /proc; the supervisor stays on stdlib

    try:
        return int(psutil.Process(pid).create_time() * 1000)
    except psutil.Error:
        return None
