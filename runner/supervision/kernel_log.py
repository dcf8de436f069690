"""What the kernel's log says about a run: GPU faults (Xid) and processes killed for memory.

Parsers are pure functions over text. Xid numbers and their meaning: NVIDIA, "XID Errors", GPU
Deployment and Management Documentation.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_XID = re.compile(r"NVRM: Xid \((?:PCI:)?(?P<bus>[0-9a-fA-F:.]+)[^)]*\): (?P<number>\d+)")
_KILLED = re.compile(r"[Kk]illed process (?P<pid>\d+)")
_KMSG = re.compile(r"\d+,\d+,(?P<us>\d+),[^;]*;(?P<text>.*)")
_DMESG = re.compile(r"\[\s*(?P<s>\d+\.\d+)\]\s(?P<text>.*)")
_PLACE = re.compile(r"(?:[0-9a-f]+:)?(?P<bus>[0-9a-f]{2}):(?P<slot>[0-9a-f]{2})", re.IGNORECASE)
_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 16 << 20

HARDWARE = {
    48: "has an uncorrectable memory error",
    63: "had a memory row remapped",
    64: "could not remap a bad memory row",
    74: "has an NVLink error",
    79: "fell off the bus",
    94: "has a contained memory error",
    95: "has an uncontained memory error",
    119: "has a GSP processor that does not answer",
    120: "has a GSP processor that failed",
}
"""Faults of device or driver: a restart on the same GPU would meet them again."""
APPLICATION = {
    13: "an error of a kernel of the program",
    31: "an illegal address of the program",
    43: "the program's channel was ended",
    45: "the program's channels were cleared, as after a kill",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One message."""

    seconds: float
    """Since boot, on the clock of the log."""
    text: str


@dataclass(frozen=True, slots=True)
class Xid:
    """One GPU fault that the driver reported."""

    number: int
    bus: str
    """PCI address of the GPU, as in the log."""

    @property
    def is_hardware(self) -> bool:
        """Of the class that a restart does not cure."""
        return self.number in HARDWARE


def xids(lines: list[Line], since: float) -> list[Xid]:
    """GPU faults reported after `since` (seconds on the clock of the log), in order."""
    found = (_XID.search(line.text) for line in lines if line.seconds > since)
    return [Xid(int(m["number"]), m["bus"]) for m in found if m]


def killed_for_memory(lines: list[Line], since: float) -> list[int]:
    """Pids (of the host's namespace) that the kernel's out-of-memory killer ended."""
    found = (_KILLED.search(line.text) for line in lines if line.seconds > since)
    return [int(m["pid"]) for m in found if m]


def parse_kmsg(text: str) -> list[Line]:
    """Records of /dev/kmsg: `priority,sequence,microseconds,flags;message`."""
    found = (_KMSG.match(line) for line in text.splitlines())
    return [Line(int(m["us"]) / 1e6, m["text"]) for m in found if m]


def parse_dmesg(text: str) -> list[Line]:
    """Lines of `dmesg`: `[seconds] message`."""
    found = (_DMESG.match(line) for line in text.splitlines())
    return [Line(float(m["s"]), m["text"]) for m in found if m]


def read() -> list[Line]:
    """The kernel's log, empty where this user may not read it."""
    return parse_kmsg(_read_kmsg()) or parse_dmesg(_run_dmesg())


def newest_seconds() -> float:
    """Time of the newest message, 0 where the log cannot be read."""
    return max((line.seconds for line in read()), default=0.0)


def _read_kmsg() -> str:
    """One record a read; EPIPE means that records were overwritten meanwhile (dev-kmsg ABI)."""
    records, num_bytes = [], 0
    with contextlib.suppress(OSError):
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while num_bytes < _MOST_BYTES:
                with contextlib.suppress(BrokenPipeError):
                    if not (record := os.read(fd, 8192)):
                        break  # no log at all: a container may bind /dev/null here
                    records.append(record)
                    num_bytes += len(record)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
    return b"".join(records).decode(errors="replace")


def _run_dmesg() -> str:
    command = shutil.which("dmesg")
    if command is None:
        return ""
    try:
        return subprocess.run(  # noqa: S603  # an absolute path, no shell, no data in it
            [command],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def name_of_gpu(bus: str, driver: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    """Like "GPU 3", by the driver's own table; by the PCI address where there is none."""
    try:
        tables = sorted(driver.iterdir())
    except OSError:
        tables = []
    for table in tables:
        if _place(table.name) == _place(bus):
            with contextlib.suppress(OSError):
                text = (table / "information").read_text()
                if found := re.search(r"Device Minor:\s*(\d+)", text):
                    return f"GPU {found[1]}"
    return f"the GPU at {bus}"


def _place(bus: str) -> str:
    found = _PLACE.search(bus)
    return f"{found['bus']}:{found['slot']}".lower() if found else bus
