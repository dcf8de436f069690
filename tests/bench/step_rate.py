"""Step rate of a run while its readers' terminals close, freeze or die; prints the ratios.

Run as `python tests/bench/step_rate.py`. Every disturbed stretch stands between two undisturbed
ones of the same length, and its rate is divided by their mean: a shared machine changes its speed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from doubles import end_everything, environment, steps_done, wait_for
from pseudo_terminal import PseudoTerminal, at_terminal

from profiles.runs.rundir import RunDir
from runner.supervision import launch

_SETTLE_SECONDS = 4.0
"""The app's own start is work for the machine: what is measured begins when it is up."""


def rate(run: RunDir, seconds: float, meanwhile: Callable[[float], None] = time.sleep) -> float:
    """Steps a second over a stretch of time."""
    before, began = steps_done(run), time.monotonic()
    meanwhile(seconds)
    return (steps_done(run) - before) / (time.monotonic() - began)


def _read_for(terminal: PseudoTerminal, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        terminal.read(end - time.monotonic())


def closed(terminal: PseudoTerminal) -> None:
    """The connection drops."""
    terminal.close()


def killed(terminal: PseudoTerminal) -> None:
    """SIGKILL of the app."""
    terminal.process.kill()


def frozen(_terminal: PseudoTerminal) -> None:
    """Nobody reads what the app shows any more."""


DISTURBANCES = {"terminal closed": closed, "terminal frozen": frozen, "app killed": killed}


def disturbed_rate(run: RunDir, seconds: float, disturb: Callable[[PseudoTerminal], None]) -> float:
    """Rate from the disturbance on, with the app showing the run until then."""
    with at_terminal("watch", run.id, TEXTUAL_FPS="30") as terminal:
        _read_for(terminal, _SETTLE_SECONDS)
        disturb(terminal)
        return rate(run, seconds)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each stretch")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ.update({"TUNEDECK_HOME": home, **environment(1_000_000)})
        run = launch.start(b"", name="a run", base_dir=Path("/"), devices=())
        os.environ.pop("PYTHONPATH")
        wait_for(lambda: steps_done(run) > 10, "steps")
        print(f"{'disturbance':<18}{'steps/s':>9}{'undisturbed':>13}{'ratio':>8}")
        for name, disturb in DISTURBANCES.items():
            quiet = [rate(run, asked.seconds)]
            loud = []
            for _ in range(asked.rounds):
                loud.append(disturbed_rate(run, asked.seconds, disturb))
                quiet.append(rate(run, asked.seconds))
            disturbed, undisturbed = sum(loud) / len(loud), sum(quiet) / len(quiet)
            print(
                f"{name:<18}{disturbed:>9.2f}{undisturbed:>13.2f}{disturbed / undisturbed:>8.3f}",
                flush=True,
            )
        end_everything(run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
