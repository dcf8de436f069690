"""A run as lines, until it ends: what `--follow`, `watch --plain` and logs of CI show."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from profiles.errors import ExitCode
from profiles.runs import advice, caveats, notices
from profiles.runs.journal import Tail
from profiles.runs.layers import LayerLog
from profiles.runs.records import Record
from profiles.runs.records.metrics import Loss, beside_text, loss_text
from profiles.runs.records.worker import TrainBegun
from profiles.runs.rundir import RunDir
from profiles.runs.state import State, Status, status
from tui import plain
from tui.pages.result import sentence
from tui.source import Source
from tui.store import Series
from tui.symptoms import Symptoms
from tui.terminal import clean

_POLL_SECONDS = 0.5
_STEP_LINE_SECONDS = 5.0
_MORE = "collapsed_layers"
"""In the evidence of a finding that is told again where there are others."""
_LIMIT = 300
"""Cells of a line that a record tells."""
_CODES = {
    State.FINISHED: ExitCode.FINISHED,
    State.STOPPED: ExitCode.STOPPED,
    State.LOST: ExitCode.STOPPED,
    State.DAMAGED: ExitCode.BAD_DATA,
    State.UNKNOWN: ExitCode.IO_ERROR,
}


def follow(run: RunDir) -> int:
    """Print events as they come; returns the run's exit code. Ctrl-C leaves the run alone."""
    try:
        for line in _lines(run):
            plain.say(line)
    except KeyboardInterrupt:
        plain.say(f"\nleft; the run goes on: {advice.line('watch', run)}")
        return 0
    ended = status(run)
    plain.say(f"{ended.state}: {clean(ended.reason or ended.notice, _LIMIT)}")
    plain.say(sentence(ended.result))
    if ended.exit_code is None:  # nobody could record it
        return int(_CODES.get(ended.state, ExitCode.INTERNAL))
    return ended.exit_code


def _lines(run: RunDir) -> Iterator[str]:
    events, losses = Tail(run.worker_events), _Losses(run)
    num_steps, told, num_damaged = 0, "", 0
    while True:
        now = status(run)
        for event in events.stream():
            num_steps = event.num_steps if isinstance(event, TrainBegun) else num_steps
            if text := describe(event):
                told = event.notice or told
                yield text
        if now.notice not in (told, notices.ENDING) and (told := now.notice):
            yield f"! {clean(told, _LIMIT)}"
        yield from losses.lines(now, num_steps)
        if num_damaged < (num_damaged := events.num_damaged + losses.source.num_damaged):
            yield f"! {notices.passed_over(num_damaged)}"
        if now.state.is_over or (now.state is State.UNKNOWN and caveats.unreadable(run)):
            return
        time.sleep(_POLL_SECONDS)


class _Losses:
    """Losses as lines: the newest now and then, and once each what they say of the model."""

    def __init__(self, run: RunDir) -> None:
        self.source = Source(run.metrics)
        self._of_layers, self._layers = Source(run.layers), LayerLog()
        self._all = Series()
        self._newest: Loss | None = None
        self._symptoms, self._known = Symptoms(run), set[tuple[str, float]]()
        self._last_line = 0.0

    def lines(self, now: Status, num_steps: int) -> Iterator[str]:
        """What is new."""
        for found in self.source.poll():
            if isinstance(found, Loss):
                self._newest = found
                self._all.add(found.step, math.nan if found.loss is None else found.loss)
        layers = self._layers.add(self._of_layers.poll())
        for symptom in self._symptoms.look(self._all, now, layers):
            told = symptom.title, symptom.evidence.get(_MORE, 0.0)
            if told not in self._known:
                self._known.add(told)
                yield f"! {clean(f'{symptom.title}: {symptom.sentence}', _LIMIT)}"
        if self._newest and time.monotonic() - self._last_line > _STEP_LINE_SECONDS:
            self._last_line = time.monotonic()
            yield step_line(self._newest, num_steps)
            self._newest = None


def step_line(record: Loss, num_steps: int) -> str:
    """Like "step 40/300  loss 3.412"."""
    beside = beside_text(record.router_loss, record.penalty_loss, record.smoothing_loss)
    told = f"{loss_text(record.loss)}, {beside}" if beside else loss_text(record.loss)
    return f"step {record.step}/{num_steps}  loss {told}"


def describe(event: Record) -> str:
    """What an event tells people, each warning on a line of its own; empty if nothing."""
    lines = [clean(event.words, _LIMIT)] if event.words else []
    lines += [f"! {clean(warning, _LIMIT)}" for warning in event.warnings]
    return "\n".join(lines)


def headline(now: Status) -> str:
    """State and progress in a few words."""
    of = f" of {now.num_steps}" if now.num_steps else ""
    return f"{now.state}, step {now.step}{of}"
