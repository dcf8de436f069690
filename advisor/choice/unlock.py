"""What would make a plan fit that does not: each way tried on the estimate before it is told.

Decides how short rows must be, how many more GPUs it takes, and whether memory that somebody else
holds would do. That another method fits is not its business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from advisor.choice import words
from advisor.choice.devices import budget_bytes, emptiest
from advisor.choice.fit import Fit, smallest
from advisor.choice.ladder import spread
from advisor.cost import memory
from advisor.plan import Plan
from profiles.facts import Gpu, Machine, Model

_LENGTH_STEP: Final = 8
_SHORTEST: Final = 64
"""Tokens: below this, rows hold no prompt with its reply."""
_MOST_GPUS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """One change that makes the plan fit; `value` in its kind's own unit."""

    kind: str
    """"release" (bytes), "optimizer" (bits), "loss" (0), "rows" (tokens), "gpus" (more of them),
    "memory" (bytes for each device) or "ram" (bytes)."""
    value: int
    words: str


def unlocks(
    model: Model, machine: Machine, found: Fit, *, on_more: bool = True
) -> tuple[Unlock, ...]:
    """The ways that help a plan that does not fit, the cheapest for the user first.

    `on_more`: more GPUs are tried too.
    """
    if found.fits:
        return ()
    short = found.memory.high_bytes - found.budget_bytes
    if short <= 0:
        ram = found.host_bytes - found.host_budget_bytes
        return (Unlock(kind="ram", value=ram, words=words.more_ram(found)),)
    ways = (
        _release(machine, found),
        _chunked_loss(model, found),
        _rows(model, found),
        _gpus(model, machine, found) if on_more else None,
        Unlock(kind="memory", value=short, words=words.more_memory(found)),
    )
    return tuple(way for way in ways if way)


def _release(machine: Machine, found: Fit) -> Unlock | None:
    """Memory that other processes hold, on any of the GPUs."""
    holders = [process for gpu in machine.gpus for process in gpu.holders]
    freed = replace(machine, gpus=tuple(_freed(gpu) for gpu in machine.gpus))
    if not holders or found.memory.high_bytes > budget_bytes(freed, found.plan.num_gpus):
        return None
    held = sum(process.vram_bytes for process in holders)
    return Unlock(kind="release", value=held, words=words.released(holders))


def _freed(gpu: Gpu) -> Gpu:
    held = sum(process.vram_bytes for process in gpu.holders)
    return replace(gpu, vram_free_bytes=gpu.vram_free_bytes + held, holders=())


def _chunked_loss(model: Model, found: Fit) -> Unlock | None:
    if found.plan.loss != "full" or found.plan.task.head != "lm":
        return None
    if not _fits(model, replace(found.plan, loss="chunked"), found.budget_bytes):
        return None
    return Unlock(kind="loss", value=0, words="the chunked loss")


def _rows(model: Model, found: Fit) -> Unlock | None:
    """The longest rows, in steps of eight tokens, that fit one by one and recomputed."""
    plan = smallest(found.plan, found.plan.accumulation * found.plan.micro_batch)

    def fits(steps: int) -> bool:
        shorter = replace(plan, seq_len=steps * _LENGTH_STEP)
        return _fits(model, shorter, found.budget_bytes)

    longest = _last(fits, _SHORTEST // _LENGTH_STEP, plan.seq_len // _LENGTH_STEP)
    if longest is None:
        return None
    seq_len = longest * _LENGTH_STEP
    return Unlock(kind="rows", value=seq_len, words=words.shorter_rows(seq_len))


def _last(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The last number from `low` up to `high` for which it holds; it holds up to there."""
    if low > high or not holds(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _gpus(model: Model, machine: Machine, found: Fit) -> Unlock | None:
    """The fewest further GPUs, as free as those of the plan, tried at n + 1, 2n, 4n and 8n."""
    used = found.plan.num_gpus
    if not machine.gpus or found.plan.offload:
        return None
    counts = [n for n in (used + 1, 2 * used, 4 * used, 8 * used) if used < n <= _MOST_GPUS]
    gpu = emptiest(machine)[0]
    if gpu.alone or not counts or not spread(found.plan, counts[0])[-1].engine.divides:
        return None

    def over(num_gpus: int) -> Plan:
        plan = smallest(found.plan, max(1, found.plan.effective_batch // num_gpus))
        return spread(plan, num_gpus)[-1]

    for count in dict.fromkeys(counts):
        plan = over(count)
        if _fits(model, plan, found.budget_bytes):
            text = words.more_gpus(gpu, count - used, plan.engine.name)
            return Unlock(kind="gpus", value=count - used, words=text)
    return None


def _fits(model: Model, plan: Plan, budget: int) -> bool:
    return memory.estimate(model, plan).high_bytes <= budget
