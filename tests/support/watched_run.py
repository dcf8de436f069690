"""A real run of three steps with secrets around it and every network denied, and what was seen.

It is made once for all processes of a test session: the first takes the lock, the others read.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from audit_network import deny_network

from profiles.runs.rundir import RunDir
from profiles.runs.state import status

SECRETS = {
    "HF_TOKEN": "hf_canaryAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "HUGGING_FACE_HUB_TOKEN": "hf_canaryBBBBBBBBBBBBBBBBBBBBBBBBBBBB",
    "WANDB_API_KEY": "canary-wandb-0123456789",
    "OPENAI_API_KEY": "sk-canary0CCCCCCCCCCCCCCCCCCCC",
    "AWS_ACCESS_KEY_ID": "AKIACANARY0123456789",
    "AWS_SECRET_ACCESS_KEY": "canary/aws/0123456789",
    "AWS_SESSION_TOKEN": "canary-session-0123456789",
    "GITHUB_TOKEN": "ghp_canaryDDDDDDDDDDDDDDDD",
    "DB_PASSWORD": "canary-password-1",
    "HTTPS_PROXY": "http://me:canary-proxy@127.0.0.1:9",
}
_RECIPE = (
    'schema = 1\nname = "tiny"\n[model]\nid = "model"\n[data]\ntrain = "orders.json"\n'
    'max_length = 96\n[method]\nname = "lora"\nrank = 4\n[train]\nmax_steps = 3\n'
    'micro_batch = 2\nprecision = "fp32"\nsave_every = 2\nsamples = 1\n'
)
_DEADLINE_SECONDS = 120


@dataclass
class Seen:
    """What the run was, and what its processes showed while they lived."""

    folder: str
    run_path: str = ""
    said: str = ""
    """By the command that started it."""
    processes: dict[str, str] = field(default_factory=dict)
    """Environment and arguments by pid."""
    listening: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """Of the denied network."""

    @property
    def home(self):
        return Path(self.folder) / "home"

    @property
    def model(self):
        return Path(self.folder) / "model"

    @property
    def run(self):
        return RunDir(Path(self.run_path))


def watched_once(shared, make_model):
    """The run, made in `shared` by whoever comes first."""
    folder = shared / "watched"
    with (shared / "watched.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "seen.json").exists():
            seen = _watch(folder, make_model())
            (folder / "seen.json").write_text(json.dumps(asdict(seen)))
    return Seen(**json.loads((folder / "seen.json").read_text()))


def _watch(folder, model):
    from runner.demo_text import instruction_rows

    seen = Seen(folder=str(folder))
    shutil.copytree(model, seen.model)
    (folder / "orders.json").write_text(json.dumps(instruction_rows(24, seed=1)))
    (folder / "r.toml").write_text(_RECIPE)
    log = deny_network(folder / "deny")
    _start(seen, log.parent)
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not status(seen.run).state.is_over and time.monotonic() < deadline:
        for pid in _processes_of(seen.run):
            _look_at(pid, seen)
        time.sleep(0.1)
    seen.log = log.read_text().splitlines()
    return seen


def _start(seen, deny):
    places = {"TUNEDECK_HOME": str(seen.home), "HOME": seen.folder, "PYTHONPATH": str(deny)}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "advisor"), "run", "r.toml"],
        cwd=seen.folder,
        env=os.environ | SECRETS | places | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_DEADLINE_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    seen.said = done.stdout + done.stderr
    seen.run_path = str(seen.home / "runs" / done.stdout.strip())


def _processes_of(run):
    """Supervisor, worker and sampler: every other process that names the run's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            names_run = str(run.path).encode() in (entry / "cmdline").read_bytes()
        except OSError:  # no process, or gone meanwhile
            continue
        if names_run and entry.name.isdigit() and entry.name != str(os.getpid()):
            found.append(int(entry.name))
    return found


def _look_at(pid, seen):
    try:
        parts = [Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ")]
        seen.processes[str(pid)] = b"\n".join(parts).decode(errors="replace")
        seen.listening += sorted(_listening(pid))
    except OSError:  # it has ended
        return


def _listening(pid):
    """Sockets of a process that wait for connections, as /proc tells them."""
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    waiting = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    return waiting & {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
