"""`advisor runs`, `watch`, `stop`, `pause`, `checkpoint`, `resume`, `logs`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from profiles.errors import ExitCode, UserError
from profiles.runs import (
    advice,
    find_run,
    identity,
    listing,
    notices,
    parents,
    processes,
    reading,
    rundir,
)
from profiles.runs.journal import last_record, read_all
from profiles.runs.layers import LayerLog
from profiles.runs.records.metrics import Loss
from profiles.runs.records.worker import Paused
from profiles.runs.state import State, status
from runner.supervision import control, launch, leftovers
from runner.supervision.console import LIMIT_BYTES
from runner.supervision.escalation import FORCE_AFTER_SECONDS
from tui import plain
from tui.commands import asking
from tui.context import working_runs
from tui.follow import follow as follow_run
from tui.follow import headline
from tui.pages import layers
from tui.pages import status as page
from tui.source import Source
from tui.terminal import clean, look_at_terminal

_POLL_SECONDS = 0.1
_COMMAND_CELLS = 100
_MOST_NAMES = 5
_SAID = {
    "stop": "asked to save and stop",
    "stop_now": "asked to stop without saving",
    "pause": "asked to pause",
    "checkpoint": "asked for a checkpoint",
    "unpause": "asked to go on",
}


def runs(*, as_json: bool) -> int:
    """List every run with its state."""
    found = [(run, status(run)) for run in listing.all_runs()]
    if as_json:
        plain.show_json([_of_run(r) | plain.jsonable(s) for r, s in found])
    elif found:
        plain.show(page.runs(found))
    else:
        plain.say(f"no runs yet in {rundir.run_root()}")
    if others := len(listing.others()):
        are = "1 run of another user is" if others == 1 else f"{others} runs of other users are"
        plain.say(f"{are} not shown: this user may not look into them")
    if folders := listing.not_listed():
        names = ", ".join(clean(name, 40) for name in folders[:_MOST_NAMES])
        more = f" and {len(folders) - _MOST_NAMES} more" if len(folders) > _MOST_NAMES else ""
        plain.say(f"not listed (no run in it, a link, or no name to type): {names}{more}")
    return 0


def watch(text: str | None, *, plain: bool, as_json: bool) -> int:
    """The live screen, or lines where there is none; without a name the newest that works."""
    run = _working(text)
    if as_json:
        show_status(run)
        return 0
    if plain or not look_at_terminal().interactive:
        return follow_run(run)
    from tui.commands.start import open_app  # noqa: PLC0415

    return open_app(str(run.path))


_LOSSES = ("loss", "router_loss", "penalty_loss", "smoothing_loss")


def _working(text: str | None) -> rundir.RunDir:
    """The run that is named; without a name the newest that works, else the newest."""
    found = working_runs() if text is None else []
    return found[0] if found else find_run.find(text)


def show_status(run: rundir.RunDir) -> None:
    """The state of one run as JSON, with its newest training loss, and what its layers do."""
    newest = None
    with suppress(OSError):  # what cannot be read is among the notices of the state
        newest = last_record(run.metrics, Loss)
    losses = {name: getattr(newest, name, None) for name in _LOSSES}
    known = layers.as_json(LayerLog().add(Source(run.layers).poll()))
    plain.show_json(_of_run(run) | plain.jsonable(status(run)) | losses | known)


def _of_run(run: rundir.RunDir) -> dict[str, Any]:
    """What does not depend on how it goes."""
    begun_with = plain.jsonable(parents.of_run(run))
    return {"id": run.id, "path": str(run.path), "parents": begun_with}


def ask(text: str | None, verb: str) -> int:
    """Leave a request; the run answers at its next step."""
    run = _working(text)
    if verb == "stop" and (lacking := _lack_of_room(run)):
        plain.say(f"! {lacking}")
    control.send(run, verb)
    plain.say(f"{run.id} {_SAID[verb]}")
    return 0


def _lack_of_room(run: rundir.RunDir) -> str:
    """What the run says as it waits for room to save; empty if it does not."""
    now = status(run)
    waits = [event.reason for event in read_all(run.worker_events) if isinstance(event, Paused)]
    is_full = notices.DISK_FULL in now.notice or waits[-1:] == ["disk_full"]
    return now.notice if now.state is State.PAUSED and is_full else ""


def stop_now(text: str | None, *, sure: bool) -> int:
    """Name what would be ended, ask unless `sure`, then end it without saving."""
    run = _working(text)
    rundir.refuse_newer(run)
    is_over, named = status(run).state.is_over, processes.marked(run)
    if not is_over or (named and not launch.is_supervised(run)):
        for who in named:
            plain.say(f"pid {who.pid}: {clean(identity.command_of(who), _COMMAND_CELLS)}")
        if not (sure or _agrees(run, len(named))):
            plain.say("nothing was ended")
            return 0
    if is_over and _end_leftovers(run):
        return 0
    control.send(run, "stop_now")
    plain.say(f"{run.id} {_SAID['stop_now']}")
    _see_to_it(run)
    return 0


def _agrees(run: rundir.RunDir, number: int) -> bool:
    """A person at the terminal says yes; UserError where there is nobody to ask."""
    what = "this process" if number == 1 else f"these {number} processes"
    if asking.can_ask():
        return asking.agrees(f"end {what} of {run.id}, without saving?")
    raise UserError(
        f"nobody is there to confirm that {what} may be ended",
        why="what was not saved yet is lost then",
        do=advice.command("stop", run, "--now", "--yes"),
        where=str(run.path),
        code=ExitCode.REFUSED,
    )


def change(text: str | None, changes: dict[str, int | None]) -> int:
    """Leave a request for other intervals; UserError if none is named."""
    wanted = {name: steps for name, steps in changes.items() if steps is not None}
    if not wanted:
        raise UserError(
            "nothing to change was named",
            why="a run can be asked for other intervals of logging and of evaluation",
            do="add --log-every N or --eval-every N",
            where="advisor change",
            code=ExitCode.USAGE,
        )
    run = _working(text)
    control.send(run, "change", wanted)
    told = ", ".join(f"{name.replace('_', ' ')} {steps} steps" for name, steps in wanted.items())
    plain.say(f"{run.id} asked to {told}, from its next step on")
    return 0


def _see_to_it(run: rundir.RunDir) -> None:
    """Where no supervisor is left to end a worker that does not answer, this command does."""
    deadline = time.monotonic() + FORCE_AFTER_SECONDS
    while not launch.is_supervised(run) and not status(run).state.is_over:
        if time.monotonic() > deadline:
            _end_leftovers(run)
            return
        time.sleep(_POLL_SECONDS)


def _end_leftovers(run: rundir.RunDir) -> bool:
    """What no supervisor will end is ended at once; False if there is nothing of the kind."""
    rundir.refuse_newer(run)
    if launch.is_supervised(run):
        return False
    done, left = leftovers.end(run)
    if done:
        plain.say(f"{run.id} ended leftover processes: {', '.join(str(w.pid) for w in done)}")
    for text in leftovers.stuck(left):
        plain.say(f"! {text}")
    return bool(done or left)


def resume(
    text: str | None, *, follow: bool, share: bool = False, allow_changed: bool = False
) -> int:
    """Let a paused run go on, or start the next attempt of one that is over."""
    run = find_run.find(text)
    now = status(run)
    if now.state is State.PAUSED:
        control.send(run, "unpause")
        plain.say(f"{run.id} {_SAID['unpause']}")
    else:
        from runner.checks import preflight  # noqa: PLC0415  # 0.2 s that watching can spare

        launch.refuse_resume(run, now)
        ready = preflight.check_resume(run, share=share, allow_changed=allow_changed)
        for warning in ready.warnings:
            plain.say(f"! {warning}")
        launch.resume(run, ready.devices, plain.starting)
        plain.say(f"was {headline(now)}; {ready.start.what}")
        plain.show([run.id if listing.is_at_home(run) else str(run.path)])
    return follow_run(run) if follow else 0


def _harmless(line: str) -> str:
    """Cleaned, with the indentation that a traceback needs."""
    indent = len(line) - len(line.lstrip(" "))
    return " " * min(indent, 40) + clean(line.lstrip(" "), 400)


def logs(text: str | None, num_lines: int) -> int:
    """The last lines of the console log, made harmless for the terminal."""
    run = find_run.find(text)
    try:
        content = reading.end_of(run.console, LIMIT_BYTES).decode(errors="replace")
    except FileNotFoundError:
        content = ""
    except OSError as error:
        raise UserError(
            f"the console log cannot be read: {reading.reason(error)}",
            why="it is a file that the worker writes",
            do=f"look at what lies there; {advice.command('watch', run)} tells what is recorded",
            where=str(run.console),
            code=ExitCode.IO_ERROR,
        ) from error
    plain.show(_harmless(line) for line in content.splitlines()[-num_lines:])
    return 0
