"""What it costs to look at a run of a million records: CPU seconds and memory, with the budget.

Run as `python tests/bench/reading.py [--steps 500000]`; making the run takes half a minute. Every
command is a process of its own that is ended when it has shown what is asked for: `watch` its first
frame, `watch --plain` its first loss. Exit code 1 if one is above its budget.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from known import RECIPE  # the lines above must come first
from pseudo_terminal import WATCH, at_terminal
from small_model import small_model

from profiles.runs import durable, parts
from profiles.runs.journal import Journal
from profiles.runs.records.metrics import Loss
from profiles.runs.rundir import RunDir, read_json
from tests.canned_run import canned_run, step

_MOST_MIB = 200
_PHASES = {"data": 0.01, "forward": 0.15, "backward": 0.2, "optimizer": 0.05}


class Job(NamedTuple):
    """One command."""

    arguments: tuple[str, ...]
    budget: float
    """CPU seconds."""
    until: bytes = b""
    """What it is ended after; without any it ends by itself."""
    is_app: bool = False


JOBS = (
    Job(("runs",), 0.5),
    Job(("watch",), 0.5, until=b"backward", is_app=True),
    Job(("watch", "--plain"), 0.5, until=b"  loss "),
    Job(("watch", "--json"), 0.5),
    Job(("profile",), 5.0),
)


def make_run(home: Path, num_steps: int) -> RunDir:
    """A run that this process works on, with so many steps and as many losses."""
    run = canned_run(done=0, num_steps=num_steps)
    small_model(home / "m")
    durable.write_json(run.manifest, (read_json(run.manifest) or {}) | {"base_dir": str(home)})
    run.recipe.write_text(RECIPE)
    chance = Random(1).random  # noqa: S311  # no secret
    metrics = Journal(run.metrics, attempt=1)
    for number in range(1, num_steps + 1):
        device = {name: round(mean * (0.5 + chance()), 6) for name, mean in _PHASES.items()}
        on_gpu = {
            "phases": {name: round(0.1 * chance(), 6) for name in (*_PHASES, "other")},
            "allocated_bytes": 3 << 30,
            "allocated_peak_bytes": 5 << 30,
            "reserved_peak_bytes": 6 << 30,
            "num_alloc_retries": 0,
            "gpu_phases": device,
        }
        seconds = round(sum(device.values()) + 0.01 * chance(), 6)
        metrics.append(step(number, seconds=seconds, **on_gpu), sync=False)
        loss, rate = 4 - 2 * number / num_steps + chance(), 1e-4 * (1 - number / num_steps)
        found = Loss(step=number, loss=loss, grad_norm=chance(), learning_rate=rate, epoch=chance())
        metrics.append(found, sync=False)
    metrics.close()
    return run


def measure(job: Job) -> tuple[float, float]:
    """CPU seconds and peak resident MiB of a fresh process."""
    if job.is_app:
        with at_terminal(*job.arguments) as terminal:
            terminal.until(job.until, 120.0)
            return _end(terminal.process)
    code = WATCH.format(arguments=list(job.arguments))
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    shown = b""
    while (more := os.read(process.stdout.fileno(), 1 << 16)) and not (
        job.until and job.until in shown + more
    ):
        shown += more
    if not more and job.until:
        raise SystemExit(f"no {job.until!r} in {shown!r}")
    return _end(process, is_over=not more)


def _end(process: subprocess.Popen[bytes], *, is_over: bool = False) -> tuple[float, float]:
    if not is_over:
        process.kill()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if is_over and process.returncode:
        raise SystemExit(f"a command ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNEDECK_HOME"] = home
        os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
        # as installed: compiled by the first of the rounds
        os.environ["PYTHONPYCACHEPREFIX"] = f"{home}/compiled"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        run = make_run(Path(home), asked.steps)
        print(f"{2 * asked.steps} records, {parts.size(run.metrics) / 2**20:.0f} MiB")
        print(f"{'advisor':<16}{'CPU s':>7}{'budget':>8}{'MiB':>6}{'budget':>8}")
        num_over = 0
        for job in JOBS:
            rounds = [measure(job) for _ in range(asked.rounds)]
            seconds, mib = min(s for s, _ in rounds), max(m for _, m in rounds)
            is_over = seconds > job.budget or mib > _MOST_MIB
            num_over += is_over
            row = f"{' '.join(job.arguments):<16}{seconds:>7.2f}{job.budget:>8.1f}{mib:>6.0f}"
            print(f"{row}{_MOST_MIB:>8}{'  over' if is_over else ''}")
    return 1 if num_over else 0


if __name__ == "__main__":
    sys.exit(main())
