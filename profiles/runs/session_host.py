"""What on this host ends or delays a run from outside: logout, a batch job's end, a slow mount.

Asks logind and Slurm, each with a limit of five seconds, and reads the mount table. The parsers are
pure functions over what those programs print. Nothing here starts a run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_SECONDS = 5.0
_LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
_NETWORK = {
    "nfs": "NFS",
    "nfs4": "NFS",
    "lustre": "Lustre",
    "smb2": "SMB",
    "smb3": "SMB",
    "cifs": "SMB",
    "gpfs": "GPFS",
    "beegfs": "BeeGFS",
    "ceph": "CephFS",
    "fuse.sshfs": "sshfs",
}
"""File systems whose clients keep copies of names and sizes for some seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What logind does to this user's processes at logout."""

    kills: bool = False
    lingers: bool = False
    has_manager: bool = False
    """A `systemd --user` answers, which can keep a scope alive while the user lingers."""


def warnings(folder: Path) -> tuple[str, ...]:
    """What a person should know before a run is started under `folder`; empty if all is well."""
    found = [_logout_warning(login()), slurm_warning(os.environ), _mount_warning(folder)]
    return tuple(text for text in found if text)


def scope_command(unit: str) -> list[str]:
    """Prefix that moves a command into a scope that outlives the session; empty if none is needed.

    Only a lingering user's manager stays after the last logout.
    """
    found = login()
    if not (found.kills and found.lingers and found.has_manager):
        return []
    return ["systemd-run", "--user", "--scope", "--quiet", "--collect", f"--unit={unit}", "--"]


def login() -> Login:
    """Ask logind; a host without systemd kills nothing."""
    if not Path("/run/systemd/system").is_dir() or os.getuid() == 0:
        return Login()  # root is excluded from the killing by default (logind.conf(5))
    kills = parse_kills(_ask("busctl", "get-property", *_LOGIND, "KillUserProcesses"))
    if not kills:
        return Login()
    user = str(os.getuid())
    return Login(
        kills=True,
        lingers=parse_linger(_ask("loginctl", "show-user", user, "--property=Linger")),
        has_manager=parse_manager(_ask("systemctl", "--user", "is-system-running")),
    )


def parse_kills(text: str) -> bool:
    """`busctl get-property ... KillUserProcesses` prints `b true` or `b false`."""
    return text.split() == ["b", "true"]


def parse_linger(text: str) -> bool:
    """`loginctl show-user UID --property=Linger` prints `Linger=yes` or `Linger=no`."""
    return "Linger=yes" in text.splitlines()


def parse_manager(text: str) -> bool:
    """`systemctl --user is-system-running` names a state; "offline" or nothing is no manager."""
    return text.strip() in ("running", "degraded", "starting", "initializing", "maintenance")


def _logout_warning(found: Login) -> str:
    if not found.kills or (found.lingers and found.has_manager):
        return ""
    return "this host kills processes on logout; run `loginctl enable-linger`"


def slurm_warning(environment: Mapping[str, str]) -> str:
    """A run inside a Slurm allocation ends with it."""
    job = environment.get("SLURM_JOB_ID", "")
    if not job.isdecimal():
        return ""
    text = _ask("squeue", "--noheader", f"--jobs={job}", "--format=%e")
    return slurm_text(job, parse_squeue(text), time.time())


def parse_squeue(text: str) -> float | None:
    """Unix time of the end that `squeue --format=%e` prints in local time; None if it has none."""
    found = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text)
    return time.mktime(time.strptime(found[0], "%Y-%m-%dT%H:%M:%S")) if found else None


def slurm_text(job: str, end: float | None, now: float) -> str:
    """Like "the run dies with Slurm job 123 at 18:00 (2 h left)"."""
    text = f"the run dies with Slurm job {job}"
    if end is None:
        return f"{text}; submit it as a batch job of its own if it takes longer"
    clock = time.strftime(
        "%H:%M" if end - now < 12 * 3600 else "%Y-%m-%d %H:%M", time.localtime(end)
    )
    minutes = max(0, round((end - now) / 60))
    left = f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{text} at {clock} ({left if minutes >= 60 else f'{minutes} min'} left)"


def _mount_warning(folder: Path) -> str:
    try:
        table = Path("/proc/self/mounts").read_text(errors="replace")
        kind = _NETWORK.get(kind_of_mount(table, folder.resolve()), "")
    except OSError:
        return ""
    return f"runs are kept on {kind}: updates may lag 3 to 60 s" if kind else ""


def kind_of_mount(table: str, path: Path) -> str:
    """File system type of the mount that holds `path`; the table is /proc/self/mounts (proc(5))."""
    best, kind = -1, ""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[1]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    return kind


def _ask(program: str, *arguments: str) -> str:
    """What a program prints; empty if it is missing, silent or slow."""
    return run_briefly([shutil.which(program) or "", *arguments])


def run_briefly(command: Sequence[str], timeout: float = _TIMEOUT_SECONDS) -> str:
    """Standard output of a command, empty if it does not exist or takes longer than `timeout` s."""
    if not command[0]:
        return ""
    try:
        done = subprocess.run(  # noqa: S603  # absolute program, fixed arguments and digits
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
