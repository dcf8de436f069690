"""What a rehearsal says: about the formula's numbers, and about the device.

Decides how a rehearsed peak moves the device's interval, and when the two levels of the estimate
cannot be compared. Knows no torch, so any program may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from advisor.choice.fit import Fit
from advisor.cost import memory
from advisor.cost.allocator import EXPANDABLE
from advisor.cost.memory import MemoryEstimate
from advisor.plan import Plan

_SAME_MOMENT: Final = {
    "loss_forward": "forward",
    "first_layer_backward": "layer_backward",
    "last_layer_backward": "layer_backward",
    "embedding_backward": "layer_backward",
}
"""The formula's moments, of which there are more, by the rehearsal's names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """Memory of one device at the peak, in bytes: what torch counts and what lies outside it."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        """The high end fits in what is free."""
        return self.high_bytes <= self.free_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What was alive, beside what the formula says of the same plan on one device."""

    asked: Plan
    """The plan that the rehearsal was wanted for."""
    plan: Plan
    """As it was rehearsed: whole, on one device."""
    peak_bytes: int
    """In torch's own count."""
    winner: str
    """The moment of the peak."""
    moments: dict[str, int]
    """Peaks of the passes, by the rehearsal's four names."""
    seconds: float
    formula: MemoryEstimate | None
    """None where no formula holds."""

    @property
    def divided(self) -> bool:
        """The plan asked for divides something over devices; both levels are of it undivided."""
        return self.asked.num_gpus > 1 and bool(self.asked.engine.divides)

    @property
    def difference(self) -> float | None:
        """The rehearsed peak over the formula's, less 1; None without a formula."""
        return self.peak_bytes / self.formula.allocated_bytes - 1 if self.formula else None

    @property
    def formula_moments(self) -> dict[str, int]:
        """The formula's peaks under the rehearsal's names; empty without a formula."""
        found: dict[str, int] = {}
        for moment in self.formula.moments if self.formula else ():
            name = _SAME_MOMENT.get(moment.name, moment.name)
            found[name] = max(found.get(name, 0), moment.total_bytes)
        return found

    def on_device(self, fit: Fit) -> DeviceUse | None:
        """The interval of `fit` with the rehearsed peak in place of the formula's.

        None where they cannot be compared: `fit` is of another plan, or of a divided one.
        """
        if self.formula is None or self.divided or fit.plan != self.asked:
            return None
        more = self.peak_bytes - self.formula.allocated_bytes
        return DeviceUse(
            low_bytes=fit.memory.low_bytes + more,
            expected_bytes=fit.memory.expected_bytes + more,
            high_bytes=fit.memory.high_bytes + more,
            free_bytes=fit.budget_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One method of a model that no formula holds for, with the least memory it can have."""

    plan: Plan
    on_gpu: bool
    free_bytes: int
    rehearsed: Rehearsed | None
    """None where the weights alone are too many."""
    why: str = ""
    """Why it was not rehearsed."""

    @property
    def device(self) -> DeviceUse | None:
        """Use of the device by the formula's rules for what lies outside tensors; None unknown."""
        if self.rehearsed is None:
            return None
        allocated = self.rehearsed.peak_bytes
        low, usual, high = memory.CONTEXT_BYTES if self.on_gpu else memory.PROCESS_BYTES
        some, most = EXPANDABLE[False]
        return DeviceUse(
            low_bytes=allocated + low,
            expected_bytes=int((1 + some) * allocated) + usual,
            high_bytes=int((1 + most) * allocated) + high,
            free_bytes=self.free_bytes,
        )

    @property
    def fits(self) -> bool:
        """It was rehearsed, and the high end fits in what is free."""
        return self.device is not None and self.device.fits
