"""SIGKILL of reader, worker and supervisor, many times at random moments; prints what was kept.

Run as `python tests/bench/kills.py --number 100`: a few minutes. Exit code 1 if a promise broke.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from doubles import end_everything, environment  # the line above must come first
from killing import kill_readers, kill_supervisors, kill_workers

from profiles.runs import listing
from runner.supervision import launch

ADVISOR = Path(sys.executable).parent / "advisor"


def start(arguments):
    """Start a run of the double."""
    os.environ.update(environment(arguments))
    return launch.start(b"", name="a run", base_dir=Path("/"), devices=())


def end_all_runs():
    """Leave no process behind, whatever went wrong."""
    for run in listing.all_runs():
        end_everything(run)


def main() -> int:
    """Kill and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=100, help="kills of each kind")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["TUNEDECK_HOME"] = home
        try:
            tallies = [
                kill_workers(start, asked.number, asked.seed),
                kill_supervisors(start, asked.number, asked.seed + 1),
                kill_readers(start, asked.number, asked.seed + 2, str(ADVISOR)),
            ]
        finally:
            end_all_runs()
    print(f"{'killed':<12}{'kills':>7}{'finished':>10}{'resumed':>9}{'broken':>8}{'worst s':>9}")
    for tally in tallies:
        print(
            f"{tally.target:<12}{tally.num_kills:>7}{tally.num_finished:>10}"
            f"{tally.num_resumed:>9}{len(tally.violations):>8}{tally.worst_seconds:>9.2f}"
        )
        for violation in tally.violations:
            print(f"  {violation}")
    return int(any(tally.violations for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
