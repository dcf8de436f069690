"""A run as lines, until it ends: what `--follow`, `watch --plain` and logs of CI show."""

from __future__ import annotations

import time
from collections.abc import Iterator

from profiles.errors import ExitCode
from profiles.quantities import count_text, duration_text
from profiles.runs.journal import Record, Tail
from profiles.runs.notices import ENDING
from profiles.runs.reading import whole
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, Status, status
from tui import plain
from tui.terminal import clean

_POLL_SECONDS = 0.5
_STEP_LINE_SECONDS = 5.0
_CODES = {
    State.FINISHED: ExitCode.FINISHED,
    State.STOPPED: ExitCode.STOPPED,
    State.LOST: ExitCode.STOPPED,
}


def follow(run: RunDir) -> int:
    """Print events as they come; returns the run's exit code. Ctrl-C leaves the run alone."""
    try:
        for line in _lines(run):
            plain.say(line)
    except KeyboardInterrupt:
        plain.say(f"\nleft; the run goes on: advisor watch {run.id}")
        return 0
    ended = status(run)
    plain.say(f"{ended.state}: {clean(ended.reason, 300)}")
    if ended.exit_code is None:  # nobody could record it
        return int(_CODES.get(ended.state, ExitCode.INTERNAL))
    return ended.exit_code


def _lines(run: RunDir) -> Iterator[str]:
    events, metrics = Tail(run.worker_events), Tail(run.metrics)
    last_line, record, num_steps, told = 0.0, None, 0, ""
    while True:
        now = status(run)
        for event in events.stream():
            num_steps = whole(event, "num_steps", num_steps)
            if text := describe(event):
                told = _words(event) or told
                yield text
        if now.notice not in (told, ENDING) and (told := now.notice):
            yield f"! {clean(told, 300)}"
        for found in metrics.stream():  # a long past goes by, its newest loss stays
            record = found if found["kind"] == "loss" else record
        if record and time.monotonic() - last_line > _STEP_LINE_SECONDS:
            last_line = time.monotonic()
            yield step_line(record, num_steps)
            record = None
        if now.state.is_over:
            return
        time.sleep(_POLL_SECONDS)


def step_line(record: Record, num_steps: int) -> str:
    """Like "step 40/300  loss 3.412"."""
    return f"step {record.get('step')}/{num_steps}  loss {_loss(record)}"


def _loss(record: Record) -> str:
    loss = record.get("loss")
    return f"{loss:.4f}" if isinstance(loss, int | float) else "not finite"


def describe(event: Record) -> str:
    """One line for an event that a person wants to know of; empty for the others."""
    kind, step = event["kind"], event.get("step", 0)
    if kind == "prepared":
        cut = event.get("num_at_max_length", 0)
        return (
            f"ready in {duration_text(event['seconds'])}: {count_text(event['num_train'])} rows, "
            f"{count_text(event['num_trainable'])} trained weights on {event['device']}"
            + (f"\n! {count_text(cut)} rows reach data.max_length and are cut there" if cut else "")
        )
    if kind == "evaluated":
        when = "base model" if step == 0 else f"step {step}"
        return f"{when}: evaluation loss {_loss(event)} ({duration_text(event['seconds'])})"
    if kind == "checkpoint":
        return f"step {step}: checkpoint saved"
    texts = {
        "resumed": _words(event) or f"resumed from step {event.get('from_step')}",
        "paused": f"paused at step {step}" + (f": {words}" if (words := _words(event)) else ""),
        "unpaused": "going on",
        "progressing": "going on",
        "guard": f"! {_words(event)}",
        "oom": f"! {_words(event)}",
        "stalled": f"! {_words(event)}",
        "stop_accepted": f"stopping at step {step}",
        "drift": "! changed since the run began: " + ", ".join(_changed(event)),
        "train_begun": f"training begins, {event.get('num_steps')} steps",
    }
    return texts.get(kind, "")


def _changed(event: Record) -> list[str]:
    names = event.get("changed")
    return [clean(str(name), 60) for name in names[:8]] if isinstance(names, list) else []


def _words(event: Record) -> str:
    """The event's own sentence, if it brings one."""
    return clean(str(event.get("what", "")), 300)


def headline(now: Status) -> str:
    """State and progress in a few words."""
    of = f" of {now.num_steps}" if now.num_steps else ""
    return f"{now.state}, step {now.step}{of}"
