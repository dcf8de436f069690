"""The heartbeat of a training process: proof of life, and what its main thread cannot see."""

from __future__ import annotations

import contextlib
import faulthandler
import threading
import time
from collections import deque
from collections.abc import Iterator
from statistics import median

from profiles.runs import durable
from profiles.runs.journal import Journal
from profiles.runs.records.worker import Progressing, Stalled
from profiles.runs.rundir import RunDir
from runner.supervision import control
from runner.training.guard import StallWatch
from runner.training.stopping import VERBS, StopFlag

_BEAT_SECONDS = 2.0
_MEDIAN_OF = 100
"""Steps whose median says how long one usually takes."""


class Heartbeat(threading.Thread):
    """Proof of life every two seconds, with the step and phase that training is in.

    Also watches what the training thread cannot: that it makes progress, and, before training
    begins, that nobody asks it to stop.
    """

    def __init__(self, run: RunDir, events: Journal, stop: StopFlag) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self.step = 0
        self.phase, self.done, self.total = "starting", 0, 0
        self._run = run
        self._events = events
        self._stop_flag = stop
        self._ticks = self._counter = 0
        self._writing = threading.Lock()
        self._seconds: deque[float] = deque(maxlen=_MEDIAN_OF)
        self._stall = StallWatch(time.monotonic)

    def end_step(self, step: int, seconds: float) -> None:
        """An optimizer step is done; it took this long."""
        self.step = step
        self._seconds.append(seconds)

    @contextlib.contextmanager
    def during(self, phase: str, total: int = 0) -> Iterator[None]:
        """What goes on inside; `total`: how many ticks it takes, 0 if nobody knows."""
        before = self.phase, self.done, self.total
        self.phase, self.done, self.total = phase, 0, total
        self._write()  # an import may keep the thread that beats from its turn for seconds
        try:
            yield
        finally:
            self.phase, self.done, self.total = before

    def expect(self, total: int) -> None:
        """So many ticks from here on, in the same phase."""
        self.done, self.total = 0, total

    def tick(self, number: int = 1) -> None:
        """Something smaller than a step is done."""
        self._ticks += number
        self.done += number

    def run(self) -> None:
        """Beat for ever; a full disk is no reason to stop training."""
        while True:
            self._counter += 1
            self._write()
            self._look_for_stall()
            if self._stop_flag.is_late:
                self._answer_late()
            elif self._stop_flag.may_interrupt and not self._stop_flag.asked:
                self._look_for_stop()
            time.sleep(_BEAT_SECONDS)

    def _write(self) -> None:
        """Put down where training is; nothing before the first beat."""
        with self._writing, contextlib.suppress(OSError):
            if self._counter:
                line = f"{self._counter} {self.step} {self.phase} {self.done} {self.total}\n"
                durable.overwrite(self._run.worker_heartbeat, line.encode())

    def _look_for_stall(self) -> None:
        seconds = median(self._seconds) if self._seconds else 0.0
        waited = self._stall.look((self.step, self.phase, self._ticks), self.phase, seconds)
        if waited is None:
            return
        if waited == 0.0:
            self._events.append(Progressing(step=self.step))
            return
        usual = f" (median {seconds:.1f} s)" if seconds else ""
        minutes = f"{waited / 60:.0f} min{usual}"
        what = f"alive but no step for {minutes}; stacks are in {self._run.stacks.name}"
        self._events.append(
            Stalled(step=self.step, phase=self.phase, seconds=round(waited, 1), what=what)
        )
        with contextlib.suppress(OSError), self._run.stacks.open("a") as stacks:
            faulthandler.dump_traceback(file=stacks, all_threads=True)

    def _answer_late(self) -> None:
        """No step looks at requests any more; "stop now" is the supervisor's to force."""
        for request in control.pending(self._run):
            if request.verb != "stop_now":
                control.answer(self._run, request, control.TOO_LATE)

    def _look_for_stop(self) -> None:
        attempt = self._run.attempt()
        for request in control.pending(self._run):
            if request.attempt == attempt and request.verb in VERBS:
                self._stop_flag.raise_from_thread()
                control.answer(self._run, request, "obeyed")
                return
