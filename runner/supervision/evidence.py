"""What the system knows about the end of a worker: memory kills, GPU faults, resources used.

Counts are read when the worker starts and when it has ended; the difference is the evidence. What
cannot be read is no evidence, and never an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.supervision import kernel_log
from runner.supervision.kernel_log import Xid

_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60
_SHM_FULL_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found; empty values where nothing was."""

    num_oom_kills: int = 0
    """Processes of the worker's control group that the kernel killed for memory."""
    num_host_oom_kills: int = 0
    """The same anywhere on the host: not surely ours."""
    memory_limit_bytes: int | None = None
    """Of the control group or the nearest one above it that has a limit."""
    shm_is_full: bool = False
    xids: tuple[Xid, ...] = ()
    killed_pids: tuple[int, ...] = ()
    """What the kernel's log names as killed for memory, in the host's pids."""

    def as_dict(self) -> dict[str, Any]:
        """For exit.json: what was found, no more."""
        found = {
            "oom_kills": self.num_oom_kills,
            "host_oom_kills": self.num_host_oom_kills,
            "memory_limit_bytes": self.memory_limit_bytes,
            "shm_is_full": self.shm_is_full,
            "xids": [{"number": x.number, "gpu": kernel_log.name_of_gpu(x.bus)} for x in self.xids],
        }
        return {name: value for name, value in found.items() if value}


@dataclass(slots=True)
class Watch:
    """Counts at the start of a worker."""

    pid: int
    since: float = field(default_factory=kernel_log.newest_seconds)
    """Time of the newest message of the kernel then, by the kernel's own clock, which drifts."""
    _group: Path | None = None
    _num_before: int = 0
    _num_host_before: int = 0

    def __post_init__(self) -> None:
        with contextlib.suppress(OSError):
            self._group = memory_group(Path(f"/proc/{self.pid}/cgroup").read_text())
        self._num_before = oom_kills(self._group)
        self._num_host_before = _host_oom_kills()

    def look(self) -> Evidence:
        """What happened since."""
        log = kernel_log.read()
        return Evidence(
            num_oom_kills=max(0, oom_kills(self._group) - self._num_before),
            num_host_oom_kills=max(0, _host_oom_kills() - self._num_host_before),
            memory_limit_bytes=limit_bytes(self._group),
            shm_is_full=_shm_is_full(),
            xids=tuple(kernel_log.xids(log, self.since)),
            killed_pids=tuple(kernel_log.killed_for_memory(log, self.since)),
        )


def memory_group(text: str, root: Path = _ROOT) -> Path | None:
    """Directory of a process's memory control group, from its /proc/PID/cgroup (cgroups(7)).

    Version 1 has a line `N:memory:/path`, version 2 has `0::/path`. Inside a container the path may
    be the host's, while the container's own group is mounted at the root.
    """
    lines = [line.split(":", 2) for line in text.splitlines() if line.count(":") >= 2]
    for controllers, base in (("memory", root / "memory"), ("", root)):
        for _, names, path in lines:
            if controllers in names.split(","):
                group = base / path.lstrip("/")
                return group if _counts_kills(group) else base
    return None


def _counts_kills(group: Path) -> bool:
    return (group / "memory.events").is_file() or (group / "memory.oom_control").is_file()


def oom_kills(group: Path | None) -> int:
    """`oom_kill` of memory.events (version 2) or memory.oom_control (version 1), else 0."""
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError, TypeError):
            return _count((group / name).read_text(), "oom_kill")  # type: ignore[operator]  # None: TypeError
    return 0


def _count(text: str, name: str) -> int:
    found = re.search(rf"^{name}\s+(\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _host_oom_kills() -> int:
    with contextlib.suppress(OSError):
        return _count(Path("/proc/vmstat").read_text(), "oom_kill")
    return 0


def limit_bytes(group: Path | None, root: Path = _ROOT) -> int | None:
    """The lowest memory limit of a group and those above it; None where nothing limits."""
    limits = []
    while group is not None and group.is_relative_to(root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # "max" is no number
                limits.append(int((group / name).read_text()))
        group = group.parent
    return min((n for n in limits if n < _UNLIMITED_BYTES), default=None)


def _shm_is_full(path: Path = Path("/dev/shm")) -> bool:  # noqa: S108  # looked at, not written to
    try:
        room = os.statvfs(path)
    except OSError:
        return False
    return room.f_blocks > 0 and room.f_bavail < _SHM_FULL_SHARE * room.f_blocks


def resources(used: resource.struct_rusage) -> dict[str, Any]:
    """What a process and the descendants that it waited for used, for exit.json (getrusage(2))."""
    return {
        "user_seconds": round(used.ru_utime, 3),
        "system_seconds": round(used.ru_stime, 3),
        "max_rss_bytes": used.ru_maxrss * 1024,
        "major_faults": used.ru_majflt,
        "blocks_read": used.ru_inblock,
        "blocks_written": used.ru_oublock,
    }
