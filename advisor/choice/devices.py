"""Which of a machine's GPUs train together, and how a wanted batch divides over them.

Decides the numbers of GPUs worth trying: a GPU that somebody else fills would limit all others,
so the emptiest come first and a fuller one may be left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from advisor.choice.ladder import spread
from advisor.choice.lengths import Lengths
from advisor.framework import BEFORE_AMPERE, ON_APPLE, ON_CPU, OURS, Framework
from advisor.plan import Plan
from profiles.facts import GIB, Gpu, Machine

_AMPERE: Final = 8.0
_NOTABLY_FULLER: Final = 0.05
"""Of a GPU's memory: a smaller difference is a driver's reserve, not a reason to idle a GPU."""

_DRIVERS_OWN_BYTES: Final = GIB
"""Held memory below this need not be anybody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The rows of an optimizer step that are wanted."""

    rows: int
    asked: bool = False
    """By the user: then it is kept exactly wherever the plan can; else it is rounded up."""
    lengths: Lengths | None = None
    """Of the rows; None where only the longest is known."""

    def rows_per_gpu(self, num_gpus: int) -> int:
        """Rows that each of `num_gpus` takes; at least one."""
        if self.asked:
            return max(1, (2 * self.rows + num_gpus) // (2 * num_gpus))
        return -(-self.rows // num_gpus)

    def divides(self, num_gpus: int) -> bool:
        """The batch is kept with this many GPUs; one of our own choosing always is."""
        return not self.asked or self.rows % num_gpus == 0


def emptiest(machine: Machine) -> tuple[Gpu, ...]:
    """The GPUs, those with the most free memory first, as a run takes them."""
    return tuple(sorted(machine.gpus, key=lambda gpu: gpu.vram_free_bytes, reverse=True))


def with_emptiest(machine: Machine, num_gpus: int) -> Machine:
    """The machine as a run on its `num_gpus` emptiest GPUs sees it."""
    return replace(machine, gpus=emptiest(machine)[:num_gpus])


def budget_bytes(machine: Machine, num_gpus: int) -> int:
    """Free bytes on the fullest of the `num_gpus` emptiest GPUs, or of RAM without a GPU."""
    gpus = emptiest(machine)
    return gpus[min(num_gpus, len(gpus)) - 1].vram_free_bytes if gpus else machine.ram_free_bytes


def crowded(machine: Machine, num_gpus: int, needed_bytes: int) -> tuple[Gpu, ...]:
    """Of the `num_gpus` emptiest GPUs, those that hold a need only once others have left.

    A GPU that is too small even when empty is none of them: nobody is in the way there.
    """
    return tuple(
        gpu
        for gpu in emptiest(machine)[:num_gpus]
        if gpu.vram_free_bytes < needed_bytes <= gpu.vram_bytes
        and gpu.held_bytes > _DRIVERS_OWN_BYTES
    )


def framework_on(machine: Machine) -> Framework:
    """How our runner computes there."""
    if not machine.gpus:
        return ON_CPU
    if machine.backend == "mps":
        return ON_APPLE
    return framework_with([g.compute_capability for g in machine.gpus if g.vendor == "nvidia"])


def framework_with(capabilities: Iterable[str | None]) -> Framework:
    """How it computes on GPUs of these compute capabilities: flash attention needs 8.0."""
    old = any(float(capability) < _AMPERE for capability in capabilities if capability)
    return BEFORE_AMPERE if old else OURS


def layouts(machine: Machine, plan: Plan, batch: Batch) -> Iterator[Plan]:
    """`plan` over the GPUs in each way worth trying, the least communication first."""
    for num_gpus in _counts(machine, batch):
        yield from spread(plan, num_gpus)


def _counts(machine: Machine, batch: Batch) -> list[int]:
    """Numbers of GPUs, the largest first; where one keeps the batch, those that do not come last.

    All of them, those before each notable step in free memory, and for each the largest number
    that divides the batch: idle GPUs are otherwise no plan.
    """
    gpus = emptiest(machine)
    if not gpus:
        return [1]
    ends = {len(gpus)} | {
        n
        for n in range(1, len(gpus))
        if gpus[n - 1].vram_free_bytes - gpus[n].vram_free_bytes
        > _NOTABLY_FULLER * gpus[n - 1].vram_bytes
    }
    kept = {next(n for n in range(end, 0, -1) if batch.divides(n)) for end in ends}
    return [*sorted(kept, reverse=True), *sorted(ends - kept, reverse=True)]
