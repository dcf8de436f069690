"""Seconds of a real run beside the predicted ones, and what was told while it started.

Run as `python tests/bench/durations.py RECIPE.toml`: as long as the run takes, in a home of its
own. Prints each phase of the start, the time to the first step and the whole, predicted and
measured, with their ratio; and how many of the start's seconds a reader saw without a phase.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

from advisor import recipe as recipes
from profiles.runs import heartbeats
from profiles.runs.journal import read_all
from profiles.runs.records.evaluation import Published
from profiles.runs.records.worker import Phase, TrainBegun, WorkerStarted
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, status
from runner.checks import preflight
from runner.supervision import launch

_LOOK_SECONDS = 0.25


def told(run: RunDir, began: float) -> Counter[str]:
    """Seconds by what a reader is told of the start, up to the first step."""
    seconds: Counter[str] = Counter()
    last = began
    while status(run).state is State.STARTING:
        now = time.monotonic()
        seconds[heartbeats.of_worker(run).phase] += now - last
        last = now
        time.sleep(_LOOK_SECONDS)
    return seconds


def measured(run: RunDir) -> dict[str, float]:
    """Seconds of each phase by the records, those before the first step alone."""
    found: Counter[str] = Counter()
    for event, following in pairwise(read_all(run.worker_events)):
        if isinstance(event, TrainBegun):
            break
        name = event.phase if isinstance(event, Phase) else ""
        if name or isinstance(event, WorkerStarted):
            current = name or "importing"
        found[current] += following.monotonic_seconds - event.monotonic_seconds
    return found


def main() -> int:
    """Run it, wait, print; 1 if a time was off by more than half."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("recipe", type=Path)
    path = parser.parse_args().recipe
    text = path.read_bytes()
    recipe, base_dir = recipes.parse(text.decode(), where=str(path)), path.resolve().parent
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNEDECK_HOME"] = home
        ready = preflight.check(recipe, base_dir)
        began, unix = time.monotonic(), time.time()
        run = launch.start(
            text,
            name=recipe.name,
            base_dir=base_dir,
            **ready.for_launch,
        )
        seen = told(run, began)
        while not status(run).state.is_over:
            time.sleep(1.0)
        return report(run, ready, seen, unix)


def report(run: RunDir, ready: preflight.Ready, seen: Counter[str], began: float) -> int:
    """Print the table."""
    took, phases = ready.duration, measured(run)
    assert took is not None
    (begun,) = (e for e in read_all(run.worker_events) if isinstance(e, TrainBegun))
    ended = next(e for e in read_all(run.worker_events) if isinstance(e, Published))
    first, whole = begun.unix_seconds - began, ended.unix_seconds - began
    rows = [
        *((name, seconds, phases[name]) for name, seconds in took.start),
        ("first step", took.until_first_step, first),
        ("whole run", took.seconds, whole),
    ]
    print(f"{'':<12}{'predicted':>10}{'measured':>10}{'ratio':>8}")
    for name, predicted, real in rows:
        print(f"{name:<12}{predicted:>10.2f}{real:>10.2f}{predicted / max(real, 1e-3):>8.2f}")
    unknown = first - sum(phases.values())
    print(f"between the launch and the first step: {unknown:.2f} s before the first record")
    print("told to a reader:", {name or "-": round(s, 1) for name, s in seen.items()})
    off = [name for name, predicted, real in rows[-2:] if not 2 / 3 <= predicted / real <= 1.5]
    return 1 if off else 0


if __name__ == "__main__":
    raise SystemExit(main())
