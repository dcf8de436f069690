"""Spoilt run directories, each read by every command and by the app; prints what was seen.

Run as `python tests/bench/fuzz_readers.py --number 2000 --seed 1`. Exit code 1 if a reader raised
anything but an error for its user, took over 5 s of CPU or 200 MiB, hung, or changed something.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from read_everything import fuzz  # the line above must come first


def main() -> int:
    """Spoil, read and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=2000, help="directories")
    parser.add_argument("--first", type=int, default=0, help="number of the first directory")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUNEDECK_HOME"] = str(Path(folder, "home"))
        found = fuzz(Path(folder), asked.number, asked.seed, asked.first)
    for violation in found.violations:
        print(f"BROKEN {violation}")
    print(f"{found.num_directories} directories, {found.num_calls} calls", end=" ")
    print(f"in {time.monotonic() - began:.0f} s, {len(found.violations)} broken")
    print(f"most CPU: {found.worst_seconds:.2f} s, {found.slowest}")
    print(f"most memory: {found.worst_bytes / 2**20:.0f} MiB, {found.largest}")
    return int(bool(found.violations))


if __name__ == "__main__":
    sys.exit(main())
