"""What would make a plan fit that does not: each way tried on the estimate before it is told.

Decides how short rows must be, how many GPUs it takes, whether other loading needs less RAM, and
whether memory that somebody else holds would do. That another method fits is not its business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from advisor.choice import storage, words
from advisor.choice.devices import emptiest
from advisor.choice.fit import Fit, smallest, weighed
from advisor.choice.ladder import runs, spread
from advisor.choice.storage import Host
from advisor.plan import Plan
from advisor.registry.lookup import ENGINES
from profiles.facts import Gpu, Machine, Model, Origin

_LENGTH_STEP: Final = 8
_SHORTEST: Final = 64
"""Tokens: below this, rows hold no prompt with its reply."""
_MOST_GPUS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """One change that makes the plan fit; `value` in its kind's own unit."""

    kind: str
    """"release" (bytes), "optimizer" (bits), "loss" (0), "rows" (tokens), "stored" (bytes of RAM
    that it then takes), "engine" (the same), "processes" (GPUs), "gpus" (more of them), "memory"
    (bytes for each device), "ram" (bytes) or "disk" (bytes)."""
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
    box = _Budgets(model, machine, found)
    ways: list[Unlock | None] = []
    if found.short_bytes:
        ways += [_release(box), _chunked_loss(box), _rows(box), _gpus(box) if on_more else None]
    elif found.short_ram_bytes:
        ways += [_stored(box), _engine(box), _processes(box)]
    return tuple([way for way in (*ways, _hardware(found)) if way])


class _Budgets:
    """What a plan that does not fit has to fit into."""

    def __init__(self, model: Model, machine: Machine, found: Fit) -> None:
        self.model, self.machine, self.found = model, machine, found
        self._host = storage.host(model, found.plan)
        self._more_disk = found.disk_bytes - self._host.disk_bytes

    def judge(self, plan: Plan, model: Model | None = None, host: Host | None = None) -> Fit:
        """Another plan with the same bytes free; `host` if it is known already."""
        fit = weighed(model or self.model, self.machine, plan, host)
        return replace(
            fit,
            budget_bytes=self.found.budget_bytes,
            host_budget_bytes=self.found.host_budget_bytes,
            disk_bytes=fit.disk_bytes + self._more_disk,
            disk_budget_bytes=self.found.disk_budget_bytes,
        )

    def holds(self, plan: Plan) -> bool:
        """A plan over the same devices with another batch or loss fits there."""
        return self.judge(plan, host=self._host).fits

    def holds_over_more(self, plan: Plan) -> bool:
        """The same over more devices: assumed RAM and disk grow with them."""
        fit, machine = self.judge(plan), self.machine
        if machine.ram_origin is Origin.DEFAULT:
            each = machine.ram_free_bytes // len(machine.gpus)
            fit = replace(fit, host_budget_bytes=each * plan.num_gpus)
        if machine.disk_origin is Origin.DEFAULT:
            each = machine.disk_free_bytes // len(machine.gpus)
            fit = replace(fit, disk_budget_bytes=each * plan.num_gpus)
        return fit.fits


def _hardware(found: Fit) -> Unlock:
    """More of what is short, all of it together."""
    short = (
        ("memory", found.short_bytes),
        ("ram", found.short_ram_bytes),
        ("disk", found.short_disk_bytes),
    )
    kind, value = next((kind, value) for kind, value in short if value)
    return Unlock(kind=kind, value=value, words=words.more_memory(found))


def _stored(box: _Budgets) -> Unlock | None:
    """Files in the type that the weights are loaded in, so that they are no copies."""
    plan, dtype = box.found.plan, storage.loaded_type(box.found.plan)
    if not storage.converts(box.model, plan):
        return None
    fit = box.judge(plan, replace(box.model, dtype=dtype))
    if not fit.fits:
        return None
    return Unlock(kind="stored", value=fit.host_bytes, words=words.stored_as(dtype, fit))


def _engine(box: _Budgets) -> Unlock | None:
    """One that reads the weights once, if our runner has it."""
    plan = box.found.plan
    for engine in ENGINES:
        other = replace(plan, engine=engine)
        fits = engine.reads_once and not plan.engine.reads_once and plan.num_gpus > 1
        if fits and runs(other) and (fit := box.judge(other)).fits:
            return Unlock(kind="engine", value=fit.host_bytes, words=words.another_engine(fit))
    return None


def _processes(box: _Budgets) -> Unlock | None:
    """The most GPUs below all for whose processes the RAM is enough."""
    plan = box.found.plan
    for count in range(plan.num_gpus - 1, 0, -1):
        for other in spread(smallest(plan, max(1, plan.effective_batch // count)), count):
            if (fit := box.judge(other)).fits:
                text = words.fewer_processes(fit)
                return Unlock(kind="processes", value=count, words=text)
    return None


def _release(box: _Budgets) -> Unlock | None:
    """Memory that other processes hold, on any of the GPUs."""
    machine, plan = box.machine, box.found.plan
    holders = [process for gpu in machine.gpus for process in gpu.holders]
    freed = replace(machine, gpus=tuple(_freed(gpu) for gpu in machine.gpus))
    if not holders or not weighed(box.model, freed, plan).fits:
        return None
    held = sum(process.vram_bytes for process in holders)
    return Unlock(kind="release", value=held, words=words.released(holders))


def _freed(gpu: Gpu) -> Gpu:
    held = sum(process.vram_bytes for process in gpu.holders)
    return replace(gpu, vram_free_bytes=gpu.vram_free_bytes + held, holders=())


def _chunked_loss(box: _Budgets) -> Unlock | None:
    plan = box.found.plan
    if plan.loss != "full" or plan.task.head != "lm":
        return None
    if not box.holds(replace(plan, loss="chunked")):
        return None
    return Unlock(kind="loss", value=0, words="the chunked loss")


def _rows(box: _Budgets) -> Unlock | None:
    """The longest rows, in steps of eight tokens, that fit one by one and recomputed."""
    found = box.found
    plan = smallest(found.plan, found.plan.accumulation * found.plan.micro_batch)

    def fits(steps: int) -> bool:
        return box.holds(replace(plan, seq_len=steps * _LENGTH_STEP))

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


def _gpus(box: _Budgets) -> Unlock | None:
    """The fewest further GPUs, as free as those of the plan, tried at n + 1, 2n, 4n and 8n."""
    machine, found = box.machine, box.found
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
        if box.holds_over_more(plan):
            text = words.more_gpus(gpu, count - used, plan.engine.name)
            return Unlock(kind="gpus", value=count - used, words=text)
    return None
