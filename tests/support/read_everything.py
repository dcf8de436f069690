"""Every way to look at a run, each watched: what it raises and changes, its time, its memory."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import odd_runs
from alarm import alarm

from profiles.errors import UserError
from profiles.runs import rundir
from profiles.runs.rundir import RunDir
from profiles.runs.state import status
from runner import checkpoints
from runner.checks import preflight
from runner.supervision import control, launch
from tui import main
from tui.feed import Reader
from tui.live import LiveRun
from tui.screens import console, home, panes
from tui.seen import last_look
from tui.terminal import Symbols

MOST_CPU_SECONDS = 5.0
MOST_BYTES = 200 << 20
_HANGS_SECONDS = 20


@dataclass(slots=True)
class Tally:
    """What was seen of many directories."""

    num_directories: int = 0
    num_calls: int = 0
    worst_seconds: float = 0.0
    worst_bytes: int = 0
    slowest: str = ""
    largest: str = ""
    violations: list[str] = field(default_factory=list)


class Watched:
    """One call at a time."""

    def __init__(self, tally: Tally, about: str, run: RunDir) -> None:
        self._tally = tally
        self._about = about
        self._run = run
        self._before = content(run.path.parent)

    def call(self, name: str, function: Callable[[], object]) -> None:
        """Make it; what it does that no reader may do is noted."""
        began, start_bytes = time.process_time(), _forget_peak()
        faults = []
        try:
            with alarm(_HANGS_SECONDS):
                function()
        except UserError:
            pass
        except Exception as error:  # noqa: BLE001  # each is a fault of ours
            faults.append(f"{type(error).__name__}: {str(error)[:100]} {_where(error)}")
        seconds, grown = time.process_time() - began, _peak_bytes() - start_bytes
        if seconds > MOST_CPU_SECONDS:
            faults.append(f"{seconds:.1f} s")
        if grown > MOST_BYTES:
            faults.append(f"{grown >> 20} MiB")
        now = content(self._run.path.parent)
        if now != self._before:
            names = {name for name, _ in now.items() ^ self._before.items()}
            faults.append(f"changed {sorted(names)[:3]}")
            self._before = now
        self._note(name, seconds, grown, faults)

    def _note(self, name: str, seconds: float, grown: int, faults: list[str]) -> None:
        tally, label = self._tally, f"{name} of {self._about}"
        tally.num_calls += 1
        if seconds > tally.worst_seconds:
            tally.worst_seconds, tally.slowest = seconds, label
        if grown > tally.worst_bytes:
            tally.worst_bytes, tally.largest = grown, label
        tally.violations += [f"{label}: {fault}" for fault in faults]


def content(folder: Path) -> dict[str, tuple[int, ...]]:
    """What the file system knows of each entry; whoever writes changes its times."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = f"{place}/{name}"
            about = os.lstat(path)
            size, times = about.st_size, (about.st_mtime_ns, about.st_ctime_ns)
            found[path] = (about.st_mode, about.st_ino, size, *times)
    return found


def _forget_peak() -> int:
    """Begin to measure the peak of this process anew; its bytes now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _where(error: BaseException) -> str:
    """File and line of ours in which it was raised."""
    trace, ours = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if any(f"/{room}/" in name for room in ("tui", "runner", "advisor", "profiles")):
            ours = f"{'/'.join(Path(name).parts[-3:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return ours


def advisor(*arguments: str) -> Callable[[], object]:
    """A command as it is typed, without its output."""

    def call() -> None:
        out, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            code = main.run(list(arguments))
        assert isinstance(code, int)
        assert 0 <= code < 256, code
        assert "Traceback" not in told.getvalue()

    return call


def look_live(run: RunDir) -> None:
    """What the live screen does with a run, without a screen."""
    shown, reader = LiveRun(run), Reader(run)
    for _ in range(2):
        shown.apply(reader.poll())
    told = [shown.headline(80), shown.evaluation(), shown.slowness(), shown.symptoms()]
    told += [shown.silent_seconds(time.time()), shown.shares(), shown.seconds_left]
    told += panes.gpu_rows(shown, 60, 9, Symbols.BLOCK)
    told += panes.time_rows(shown, 60, 9, Symbols.BLOCK)
    told += [shown.loss.columns(60), shown.rate.columns(60), shown.memory.columns(60, log=True)]
    told += [last_look(run.id)]
    assert told


def look_around(run: RunDir) -> None:
    """What the other screens and the writers of a run read of it."""
    assert [home.row(*found) for found in home.look_at_runs()] or True
    console.tail(run.console)
    launch.console_tail(run)
    control.waiting(run)
    checkpoints.newest_sound(run)
    checkpoints.best(run)
    checkpoints.pins(run)


def read_all_ways(run: RunDir, tally: Tally, about: str) -> None:
    """Each command, then the app."""
    watched = Watched(tally, about, run)
    name, is_over = run.id, status(run).state.is_over
    lines = [["runs"], ["runs", "--json"], ["watch", name, "--json"], ["logs", name]]
    lines += [["profile", name], ["profile", name, "--json"], ["resume", name]]
    lines += [["resume", name, "--allow-changed"], ["recipe", "check", str(run.recipe)]]
    lines += [["run", str(run.path), "--dry-run", "--allow-changed", "--allow-outside"]]
    if is_over:  # who watches a run that works waits for its end, and a request is a file
        lines += [["watch", name, "--plain"], ["stop", name], ["stop", "--now", "--yes", name]]
    for line in lines:
        words = [word for word in line if not word.endswith((name, run.recipe.name))]
        watched.call(" ".join(words), advisor(*line))
    watched.call("live", lambda: look_live(run))
    watched.call("app", lambda: look_around(run))
    tally.num_directories += 1


@contextlib.contextmanager
def nothing_starts() -> Iterator[None]:
    """A resume that nothing forbids ends before it begins, and the machine is looked at once."""
    found = preflight.machine.probe(rundir.run_root())
    with (
        mock.patch.object(launch, "resume"),
        mock.patch.object(preflight.machine, "probe", return_value=found),
        mock.patch.object(control, "leave", side_effect=AssertionError("a request was left")),
    ):
        yield


def fuzz(place: Path, number: int, seed: int, first: int = 0) -> Tally:
    """Spoil `number` directories in `place`, and read each in all ways; TUNEDECK_HOME is set."""
    tally, base = Tally(), place / "base"
    sound = odd_runs.write_sound(rundir.run_root().parent, base)
    store = place / "sound"
    rundir.run_root().rename(store)
    with nothing_starts():
        for n in range(first, first + number):
            rng = random.Random(f"{seed} {n}")  # noqa: S311  # the same ones for ever
            run = rng.choice(sound)
            shutil.copytree(store / run.id, run.path)
            try:
                done = odd_runs.spoil(run, rng)
                read_all_ways(run, tally, f"{n} ({run.id[-5:]}: {'; '.join(done)})")
            finally:
                shutil.rmtree(rundir.run_root())
    return tally
