"""What the live screen knows of a run: series, shares, time left, and how old the news is.

Fed with batches, asked by the panes. Knows neither files nor a screen.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from profiles.layer_facts import NO_LAYERS
from profiles.quantities import count_text, duration_text, percent_text
from profiles.runs.planned import planned
from profiles.runs.reading import words
from profiles.runs.records.metrics import PHASES
from profiles.runs.rundir import created, read_json
from profiles.runs.state import State
from tui.pages.result import short
from tui.store import Series
from tui.symptoms import Symptoms
from tui.terminal import clean

if TYPE_CHECKING:
    from advisor.rules.case import Finding
    from profiles.runs.records.metrics import Step
    from profiles.runs.records.sampler import Usage
    from profiles.runs.rundir import RunDir
    from profiles.runs.state import Status
    from tui.feed import Batch, Event

_WARMUP_STEPS = 5
_RECENT_STEPS = 200
_NUM_EVENTS = 50
_STALE_SECONDS = 10.0
_STALE_STEPS = 3
_SLOW = 0.5
"""Share of the planned speed: below it something else is at work."""
_STEADY_STEPS = 20
_WORKING = {State.STARTING, State.RUNNING, State.CHECKPOINTING, State.STOPPING}


class LiveRun:
    """One run, as far as it has been read."""

    def __init__(self, run: RunDir) -> None:
        manifest = read_json(run.manifest) or {}
        self.run = run
        self.name = f"{clean(words(manifest, 'name') or 'run', 34)} {clean(run.end, 10)}"
        self._created = created(run)
        self._planned = planned(run)
        self.status: Status | None = None
        self.phase = ""
        self.loss, self.rate, self.memory = Series(), Series(), Series()
        self.router_loss: float | None = None
        self.penalty_loss: float | None = None
        self.smoothing_loss: float | None = None
        self.sample: Usage | None = None
        self.layers = NO_LAYERS
        self.events: deque[Event] = deque(maxlen=_NUM_EVENTS)
        self.of_rows: tuple[str, ...] = ()
        self.num_damaged = 0
        self._newest = 0.0
        self._recent: deque[Step] = deque(maxlen=_RECENT_STEPS)
        self._num_steps_of_attempt = 0
        self._has_samples = False
        self._went_on_at = 0.0
        self._symptoms = Symptoms(run)

    @property
    def is_over(self) -> bool:
        """No process works on it any more."""
        return self.status is not None and self.status.state.is_over

    @property
    def obeys(self) -> bool:
        """Somebody answers requests, or nobody has looked yet."""
        return self.status is None or self.status.state.obeys

    @property
    def is_finished(self) -> bool:
        """All that was to be done is done."""
        return self.status is not None and self.status.state is State.FINISHED

    def apply(self, batch: Batch) -> None:
        """Take in what is new."""
        self.status, self.phase = batch.status, batch.phase
        self.sample = batch.sample or self.sample
        self.layers = batch.layers
        self.num_damaged = batch.num_damaged
        self._newest = max(self._newest, batch.status.since)
        self._went_on_at = max(self._went_on_at, batch.went_on_at)
        self.events.extend(batch.events)
        self.of_rows = batch.of_rows or self.of_rows
        self.router_loss = self.router_loss if batch.router_loss is None else batch.router_loss
        self.penalty_loss = self.penalty_loss if batch.penalty_loss is None else batch.penalty_loss
        if batch.smoothing_loss is not None:
            self.smoothing_loss = batch.smoothing_loss
        for step, loss in batch.losses:
            self.loss.add(step, loss)
        if batch.memory and not self._has_samples:
            # Peaks that the steps told were a stand-in until there are samples.
            self._has_samples, self.memory = True, Series()
        for unix_seconds, num_bytes in batch.memory:
            self.memory.add(unix_seconds, num_bytes / 2**30)
        for point in batch.steps:
            self._add_step(point)

    def _add_step(self, point: Step) -> None:
        if self._recent and self._recent[-1].attempt != point.attempt:
            self._recent.clear()
            self._num_steps_of_attempt = 0
        elif (
            self._recent and self._recent[-1].unix_seconds < self._went_on_at <= point.unix_seconds
        ):
            self._recent.clear()  # a pause is no part of the pace
        self._num_steps_of_attempt += 1
        # The first steps allocate and compile: they are shown until there are others.
        if self._num_steps_of_attempt == _WARMUP_STEPS + 1:
            self._recent.clear()
        self._recent.append(point)
        if point.seconds > 0 and point.tokens:
            self.rate.add(point.step, point.tokens / point.seconds)
        if not self._has_samples and point.peak_bytes:
            self.memory.add(point.unix_seconds, point.peak_bytes / 2**30)

    @property
    def planned_tokens_per_second(self) -> float | None:
        """As predicted when the run was started."""
        return self._planned.tokens_per_second

    @property
    def step(self) -> int:
        """The newest step anybody wrote of."""
        known = self._recent[-1].step if self._recent else 0
        return max(known, self.status.step if self.status else 0)

    @property
    def step_seconds(self) -> float | None:
        """Mean of the recent steps alone."""
        if not self._recent:
            return None
        return sum(point.seconds for point in self._recent) / len(self._recent)

    @property
    def seconds_left(self) -> float | None:
        """At the recent pace, evaluations and checkpoints included."""
        if self.status is None or not self.status.num_steps or not self._recent:
            return None
        first, last = self._recent[0], self._recent[-1]
        num_steps = last.step - first.step
        took = last.unix_seconds - first.unix_seconds
        pace = took / num_steps if num_steps > 0 and took > 0 else last.seconds
        return max(0, self.status.num_steps - self.step) * pace

    def shares(self) -> list[tuple[str, float]]:
        """Share of each phase in the recent steps; empty before the first step."""
        totals: Counter[str] = Counter()
        for point in self._recent:
            totals.update(point.phase_seconds)
        whole = sum(totals.values())
        return [(name, totals[name] / whole) for name in PHASES] if whole > 0 else []

    @property
    def num_recent(self) -> int:
        """Steps that shares and time left are taken from."""
        return len(self._recent)

    def silent_seconds(self, now: float) -> float | None:
        """Since the newest record, if that is longer than it should be."""
        if self.status is None or self.status.state not in _WORKING or not self._newest:
            return None
        silent = now - self._newest
        usual = max(_STALE_SECONDS, _STALE_STEPS * (self.step_seconds or 0.0))
        return silent if silent > usual else None

    def headline(self, width: int) -> str:
        """Name, state, progress, time left; the name gives way first."""
        rest = "  ".join(self._progress())
        name = clean(self.name, max(0, width - len(rest) - 2))
        return f"{name}  {rest}" if name else rest

    def _progress(self) -> list[str]:
        if self.status is None:
            return ["READING"]
        now, parts = self.status, [self._state_word(self.status)]
        if now.num_steps:
            parts.append(f"step {count_text(self.step)} of {count_text(now.num_steps)}")
            parts.append(percent_text(self.step / now.num_steps))
        elif self.step:
            parts.append(f"step {count_text(self.step)}")
        if now.state in {State.RUNNING, State.CHECKPOINTING} and self.seconds_left is not None:
            parts.append(f"eta {duration_text(self.seconds_left)}")
        if now.state is State.STARTING and (expected := self._expected()):
            parts.append(expected)
        if now.attempt > 1:
            parts.append(f"attempt {now.attempt}")
        return parts

    def _expected(self) -> str:
        """When the first step was predicted to begin; nothing is predicted of a second start."""
        seconds = self._planned.until_first_step
        if seconds is None or (self.status is not None and self.status.attempt > 1):
            return ""
        left = self._created + seconds - time.time()
        if left < 0:
            return f"first step expected {duration_text(-left)} ago"
        return f"first step in about {duration_text(left)}"

    def _state_word(self, now: Status) -> str:
        # The heartbeat's phase tells what a long start or end is busy with.
        is_long = self.phase.startswith(("evaluating", "answering", "finishing"))
        says_more = now.state is State.STARTING or is_long
        phase = f" ({clean(self.phase, 24)})" if self.phase and says_more else ""
        return now.state.upper() + ("" if now.state.is_over else phase)

    def evaluation(self) -> str:
        """Whether the model is better than the base model by now, in a few words."""
        return "not evaluated yet" if self.status is None else short(self.status.result)

    def slowness(self) -> str:
        """That steps take more than twice the planned time, and how busy the machine is."""
        rate, recent = self.planned_tokens_per_second, self.rate.mean_of_last(self.num_recent)
        if not rate or recent is None or self.num_recent < _STEADY_STEPS or self.is_over:
            return ""
        if recent > _SLOW * rate:
            return ""
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        return (
            f"{percent_text(recent / rate)} of the planned speed; the load of this machine is "
            f"{load:.1f} on {cores} cores, and `advisor probe` shows who else uses its GPUs"
        )

    def symptoms(self) -> tuple[Finding, ...]:
        """What the curves say of the model so far, the worst first; as after the last look."""
        return self._symptoms.look(self.loss, self.status, self.layers)
