"""What a run must not go on with, or a person should know: decided from numbers alone.

The loss and the gradient are judged where they are logged, so that nothing waits for a device;
weights that are not finite are never saved, whatever is seen here. Progress is judged by the
heartbeat's thread.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

NUM_ZEROS = 3
"""Logs in a row with a loss or a gradient of exactly 0 before nothing is learnt for sure."""
NUM_NONFINITE_GRADIENTS = 20
"""Logs in a row: a loss scaler halves 2^16 down to 1 in 16 steps, and skips those."""

SPIKE_WINDOW = 100
SPIKE_FACTOR = 2.0
SPIKE_PATIENCE = 4
SPIKE_MIN_LOSSES = 20
"""The numbers of llm-foundry's KillLossSpike callback (window, multiplier, patience)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something is wrong with the numbers of a step."""

    kind: str
    """nonfinite_loss, zero_loss, zero_gradient, nonfinite_gradient or loss_spike."""
    what: str
    ends_run: bool


class LossGuard:
    """Looks at each logged loss and gradient norm."""

    def __init__(self, *, has_scaler: bool, can_be_solved: bool = False) -> None:
        """`has_scaler`: a loss scaler skips steps whose gradient is not finite (fp16).

        `can_be_solved`: the loss of rows that are told apart is 0, and no fault.
        """
        self._has_scaler, self._can_be_solved = has_scaler, can_be_solved
        self._zero_losses = 0
        self._zero_gradients = 0
        self._nonfinite_gradients = 0
        self._spikes = SpikeWatch()

    def look(self, loss: float, gradient: float | None) -> Fault | None:
        """The gravest fault of this log, or None."""
        if not math.isfinite(loss):
            return Fault("nonfinite_loss", f"the loss became {loss}", ends_run=True)
        return self._nothing_learnt(loss, gradient) or self._wild(gradient) or self._spike(loss)

    def _nothing_learnt(self, loss: float, gradient: float | None) -> Fault | None:
        solved = self._can_be_solved and loss == 0.0
        self._zero_losses = self._zero_losses + 1 if loss == 0.0 and not solved else 0
        self._zero_gradients = self._zero_gradients + 1 if gradient == 0.0 and not solved else 0
        if self._zero_losses >= NUM_ZEROS:
            what = f"the loss was exactly 0 at {NUM_ZEROS} logs in a row: nothing is being trained"
            return Fault("zero_loss", what, ends_run=True)
        if self._zero_gradients >= NUM_ZEROS:
            what = f"the gradient was 0 at {NUM_ZEROS} logs in a row: nothing is being trained"
            return Fault("zero_gradient", what, ends_run=True)
        return None

    def _wild(self, gradient: float | None) -> Fault | None:
        if gradient is None or math.isfinite(gradient):
            self._nonfinite_gradients = 0
            return None
        self._nonfinite_gradients += 1
        ends = not self._has_scaler or self._nonfinite_gradients >= NUM_NONFINITE_GRADIENTS
        if ends or self._nonfinite_gradients == 1:
            return Fault("nonfinite_gradient", f"the gradient became {gradient}", ends_run=ends)
        return None

    def _spike(self, loss: float) -> Fault | None:
        factor = self._spikes.add(loss)
        if factor is None:
            return None
        what = f"the loss is {factor:.1f} times its average, for {SPIKE_PATIENCE} logs in a row"
        return Fault("loss_spike", what, ends_run=False)


class SpikeWatch:
    """A loss that stays far above its running average."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._high: list[float] = []

    def add(self, loss: float) -> float | None:
        """How many times the average the loss is, once a spike; None otherwise."""
        if len(self._losses) < SPIKE_MIN_LOSSES:
            self._losses.append(loss)
            return None
        factor = loss / fmean(self._losses) if fmean(self._losses) > 0 else 0.0
        if factor <= SPIKE_FACTOR:
            self._losses.extend([*self._high, loss])  # a short outburst belongs to the average
            self._high.clear()
            return None
        self._high.append(loss)
        if len(self._high) < SPIKE_PATIENCE:
            return None
        self._losses.extend(self._high)
        self._high.clear()
        return factor


MIN_STALL_SECONDS = 300.0
STALL_FACTOR = 10.0
_PHASE_LIMITS = {
    "importing": 1800.0,
    "reading": 1800.0,
    "loading": 1800.0,
    "checking": 1800.0,
    "answering": 1800.0,
    "longest": 1800.0,
    "tokenising": 3600.0,
    "hashing": 1800.0,
    "preparing": 1800.0,
    "evaluating": 1800.0,
    "checkpoint": 1800.0,
    "finishing": 3600.0,
}
"""Seconds without any sign of progress that are normal in a phase; a pause may last for ever."""


def stall_limit(phase: str, step_seconds: float) -> float:
    """Seconds after which no progress in `phase` is a stall (reliability protocol: 10 medians)."""
    if phase == "paused":
        return math.inf
    return max(STALL_FACTOR * step_seconds, _PHASE_LIMITS.get(phase, MIN_STALL_SECONDS))


@dataclass(slots=True)
class StallWatch:
    """Tells when progress stops, and when it comes back."""

    clock: Callable[[], float]
    stalled: bool = False
    _mark: object = None
    _since: float = field(default=0.0)

    def look(self, mark: object, phase: str, step_seconds: float) -> float | None:
        """Seconds without progress when a stall begins, 0.0 when it ends, None otherwise.

        `mark` is anything that changes with progress.
        """
        now = self.clock()
        if mark != self._mark:
            self._mark, self._since = mark, now
            if self.stalled:
                self.stalled = False
                return 0.0
            return None
        waited = now - self._since
        if self.stalled or waited < stall_limit(phase, step_seconds):
            return None
        self.stalled = True
        return waited
