"""`advisor runs`, `watch`, `stop`, `pause`, `checkpoint`, `resume`, `logs`."""

from __future__ import annotations

from profiles import rundir
from profiles.state import State, status
from runner import control, launch
from tui import plain
from tui.follow import follow as follow_run
from tui.follow import headline
from tui.pages import status as page
from tui.terminal import clean, look_at_terminal

_SAID = {
    "stop": "asked to save and stop",
    "stop_now": "asked to stop without saving",
    "pause": "asked to pause",
    "checkpoint": "asked for a checkpoint",
    "unpause": "asked to go on",
}


def runs(*, as_json: bool) -> int:
    """List every run with its state."""
    found = [(run, status(run)) for run in rundir.all_runs()]
    if as_json:
        plain.show_json([{"id": r.id, "path": str(r.path), **plain.jsonable(s)} for r, s in found])
    elif found:
        plain.show(page.runs(found))
    else:
        plain.say(f"no runs yet in {rundir.run_root()}")
    return 0


def watch(text: str | None, *, plain: bool, as_json: bool) -> int:
    """The live screen, or lines where there is none."""
    run = rundir.find(text)
    if as_json:
        show_status(run)
        return 0
    if plain or not look_at_terminal().interactive:
        return follow_run(run)
    from tui.commands.start import open_app  # noqa: PLC0415

    return open_app(run.id)


def show_status(run: rundir.RunDir) -> None:
    """The state of one run as JSON."""
    plain.show_json({"id": run.id, "path": str(run.path), **plain.jsonable(status(run))})


def ask(text: str | None, verb: str) -> int:
    """Leave a request; the run answers at its next step."""
    run = rundir.find(text)
    control.send(run, verb)
    plain.say(f"{run.id} {_SAID[verb]}")
    return 0


def resume(text: str | None, *, follow: bool) -> int:
    """Let a paused run go on, or start the next attempt of one that is over."""
    run = rundir.find(text)
    now = status(run)
    if now.state is State.PAUSED:
        control.send(run, "unpause")
        plain.say(f"{run.id} {_SAID['unpause']}")
    else:
        step = launch.resume(run)
        plain.say(f"was {headline(now)}; goes on from step {step}")
        plain.show([run.id])
    return follow_run(run) if follow else 0


def _harmless(line: str) -> str:
    """Cleaned, with the indentation that a traceback needs."""
    indent = len(line) - len(line.lstrip(" "))
    return " " * min(indent, 40) + clean(line, 400)


def logs(text: str | None, num_lines: int) -> int:
    """The last lines of the console log, made harmless for the terminal."""
    run = rundir.find(text)
    try:
        content = run.console.read_text(errors="replace")
    except OSError:
        content = ""
    plain.show(_harmless(line) for line in content.splitlines()[-num_lines:])
    return 0
