"""Time a cold `advisor recommend` against `accelerate estimate-memory`, in turns, in one run.

    python tests/bench/cold_start.py [--rounds 5]

Accelerate reads a local config.json of the same model; its question to the hub is answered here,
so that only its own work is timed. Both run as whole processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from profiles.models import catalog

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
OURS = "from tui.main import main; main()"
THEIRS = """
import types
import accelerate.commands.estimate as estimate
estimate.verify_on_hub = lambda *_: types.SimpleNamespace(config={}, library_name="transformers")
from accelerate.commands.accelerate_cli import main
main()
"""


def main(arguments: list[str]) -> int:
    """Run both in turns and print seconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "model"
        config.mkdir()
        (config / "config.json").write_text(json.dumps(catalog.config_of(MODEL)))
        recommend = ["recommend", "--model", MODEL, "--gpu", "1x RTX 4090"]
        estimate = ["estimate-memory", "model", "--library_name", "transformers"]
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(seconds(OURS, recommend, folder))
            theirs.append(seconds(THEIRS, estimate, folder))
    for name, found in (("advisor recommend", ours), ("accelerate estimate-memory", theirs)):
        print(f"{name}: min {min(found):.2f} s, median {statistics.median(found):.2f} s")
    print(f"ratio of the medians: {statistics.median(theirs) / statistics.median(ours):.1f}")
    return 0


def seconds(code: str, arguments: list[str], folder: str) -> float:
    """Wall time of one process that succeeds."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
