"""Seconds to read the records of a long run, and their ratio to json.loads of the same lines.

Run as `python tests/bench/reading.py [--steps 200000]`. What is read: every record in order (as
`watch --plain` does), the facts of the report, and the first frame of the live screen.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from profiles.runs import run as runs
from profiles.runs.journal import Journal, read_all
from profiles.runs.rundir import RunDir
from tests.canned_run import canned_run, step
from tui.feed import Reader
from tui.live import LiveRun

_ROUNDS = 3
_PHASES = {"data": 0.01, "forward": 0.15, "backward": 0.2, "optimizer": 0.05}
_ON_GPU = {
    "allocated_bytes": 3 << 30,
    "allocated_peak_bytes": 5 << 30,
    "reserved_peak_bytes": 6 << 30,
    "num_alloc_retries": 0,
    "gpu_phases": _PHASES,
}


def _fill(run: RunDir, num_steps: int) -> None:
    metrics = Journal(run.metrics, attempt=1, max_bytes=1 << 40)
    for number in range(1, num_steps + 1):
        metrics.append(step(number, **_ON_GPU), sync=False)
    metrics.close()


def _attach(run: RunDir) -> None:
    live = LiveRun(run)
    live.apply(Reader(run).poll())


def _seconds(read: Callable[[], object]) -> float:
    """The best of some rounds: a shared machine only ever adds."""
    best = float("inf")
    for _ in range(_ROUNDS):
        began = time.process_time()
        read()
        best = min(best, time.process_time() - began)
    return best


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    num_steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNEDECK_HOME"] = home
        run = canned_run(done=0, num_steps=num_steps)
        _fill(run, num_steps)
        print(f"{num_steps} steps, {run.metrics.stat().st_size / 2**20:.0f} MiB")
        print(f"{'read':<14}{'seconds':>9}{'ratio':>8}{'peak MiB':>10}")
        yardstick = _seconds(lambda: [json.loads(s) and None for s in run.metrics.open("rb")])
        for name, read in (
            ("json.loads", lambda: None),
            ("first frame", lambda: _attach(run)),
            ("every record", lambda: sum(1 for _ in read_all(run.metrics))),
            ("facts", lambda: runs.from_run_dir(run)),
        ):
            took = yardstick if name == "json.loads" else _seconds(read)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{name:<14}{took:>9.2f}{took / yardstick:>8.2f}{peak:>10.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
