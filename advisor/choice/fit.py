"""The search for the batch: micro-batch x accumulation x checkpointing x devices that fits.

Keeps the wanted effective batch and takes the fastest configuration whose *high* estimate fits in
free memory, and which RAM and disk hold too. Estimates are few: what the parameters alone rule out
is not tried, the largest useful micro-batch comes first, recomputed activations only where kept
ones leave too small a batch, the next layout only where the last leaves something to wish for.
Which method to use is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from advisor.choice import storage
from advisor.choice.bound import least_bytes
from advisor.choice.devices import Batch, budget_bytes, framework_on, layouts, with_emptiest
from advisor.choice.ladder import runs, spread
from advisor.choice.lengths import Lengths
from advisor.choice.storage import Host
from advisor.cost import memory, speed
from advisor.cost.memory import MemoryEstimate
from advisor.cost.sharding import shares_of
from advisor.cost.speed import SpeedEstimate
from advisor.plan import Plan
from advisor.registry.engine_spec import EngineSpec
from profiles.facts import Machine, Model

_MAX_MICRO_BATCH: Final = 64
_NEARLY: Final = 0.95
"""Below the accuracy of the speed estimate, so not a reason to choose."""
_SLOW_LINK: Final = 0.3
"""Share of a step in communication from which one GPU alone may be faster."""
_LONG_ROW: Final = {"gpu": 1024, "cpu": 256}
"""Tokens of a typical row that keeps a device about busy by itself,"""
_LARGE_ROW: Final = 4e12
"""if the weights are many: tokens times parameters. Else a GPU waits for its kernels to start."""
_ENOUGH_TOKENS: Final = {"gpu": 8192, "cpu": 2048}
"""A micro-batch of this size keeps the device busy; a larger one only adds padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A plan with its predicted memory and speed on a machine."""

    plan: Plan
    memory: MemoryEstimate
    speed: SpeedEstimate | None
    """None where the device's rate is not known, and from the search where it does not fit.
    For micro-batches full of rows as long as the longest."""
    real_tokens_per_second: float | None
    """Without padding, for rows as long as the data's; None where those or the speed are not
    known."""
    budget_bytes: int
    """Free memory of the fullest device it would use."""
    host_bytes: int
    """RAM that all processes together need at the worst time; 0 where it is the device's memory."""
    host_budget_bytes: int
    """Free RAM."""
    disk_bytes: int
    """What a run writes with the fewest checkpoints."""
    disk_budget_bytes: int
    """Free disk."""

    @property
    def fits(self) -> bool:
        """The upper end of the estimate fits in free memory; so do RAM and disk."""
        return not self.missing_bytes

    @property
    def rates(self) -> tuple[float, float, float] | None:
        """Tokens per second that are planned with: low, expected and high.

        Without padding where the data's rows are known; None where the speed is not.
        """
        speed = self.speed
        if speed is None:
            return None
        share = (self.real_tokens_per_second or speed.tokens_per_second) / speed.tokens_per_second
        low, high = speed.low_tokens_per_second, speed.high_tokens_per_second
        return low * share, speed.tokens_per_second * share, high * share

    @property
    def runs(self) -> bool:
        """Our runner can run it today."""
        return runs(self.plan)

    @property
    def short_bytes(self) -> int:
        """What a device lacks; 0 if nothing."""
        return max(0, self.memory.high_bytes - self.budget_bytes)

    @property
    def short_ram_bytes(self) -> int:
        """What the RAM lacks; 0 if nothing."""
        return max(0, self.host_bytes - self.host_budget_bytes)

    @property
    def short_disk_bytes(self) -> int:
        """What the disk lacks; 0 if nothing."""
        return max(0, self.disk_bytes - self.disk_budget_bytes)

    @property
    def missing_bytes(self) -> int:
        """How far it is from fitting, all together; 0 if it fits."""
        return self.short_bytes + self.short_ram_bytes + self.short_disk_bytes


def judge(model: Model, machine: Machine, plan: Plan, lengths: Lengths | None = None) -> Fit:
    """Memory and speed of exactly this plan, on the emptiest GPUs."""
    return _timed(model, machine, weighed(model, machine, plan), lengths)


def best(
    model: Model, machine: Machine, base: Plan, batch: Batch, *, runs_only: bool = False
) -> Fit:
    """The fastest plan of `base`'s method that fits; if none does, the one nearest to fitting.

    `runs_only`: among those that our runner can run, if there are any.
    """
    plans = list(layouts(machine, base, batch))
    can_run = [plan for plan in plans if runs(plan)]
    if runs_only and can_run:
        plans = can_run
    search = _Search(model, machine, base, batch, wants_runner=bool(can_run))
    for plan in plans:
        if any(search.leaves_nothing(fit) for fit in search.in_layout(plan)):
            break
    if not search.fitting:
        if fewer := _with_fewer(search, max(plan.num_gpus for plan in plans)):
            found = best(model, with_emptiest(machine, fewer), base, batch, runs_only=runs_only)
            if found.fits:
                return found
        return search.nearest(plans)
    return search.alone_if_faster(search.preferred())


def _with_fewer(search: _Search, num_gpus: int) -> int:
    """How many GPUs may do where all are too many; 0 if no other number is worth trying."""
    if num_gpus == 1 or search.lacks("short_disk_bytes"):
        return 0
    if not search.lacks("short_ram_bytes"):
        return 1  # NCCL and buckets can be what is too much: one GPU has neither
    counts = range(num_gpus - 1, (num_gpus - 1) // 2, -1)
    return next((n for n in counts if search.loads_with(n)), 0)


def smallest(plan: Plan, rows_per_gpu: int) -> Plan:
    """The plan's configuration with the least memory."""
    least = _divided(plan, plan.task.least_micro_batch, rows_per_gpu)
    return replace(least, checkpointing=plan.method.recomputes)


def _divided(plan: Plan, size: int, rows_per_gpu: int) -> Plan:
    """With so many rows at a time; a task that compares rows may need more than are wanted."""
    return replace(plan, micro_batch=size, accumulation=max(1, rows_per_gpu // size))


def weighed(model: Model, machine: Machine, plan: Plan, host: Host | None = None) -> Fit:
    """Without its speed, which costs more to predict; `host` if it is known already."""
    if plan.framework.on_cpu is bool(machine.gpus):  # made for another machine
        plan, host = replace(plan, framework=framework_on(machine)), None
    host = host or storage.host(model, plan)
    return Fit(
        plan=plan,
        memory=memory.estimate(model, plan),
        speed=None,
        real_tokens_per_second=None,
        budget_bytes=budget_bytes(machine, plan.num_gpus),
        host_bytes=host.ram_bytes,
        host_budget_bytes=machine.ram_free_bytes,
        disk_bytes=host.disk_bytes,
        disk_budget_bytes=machine.disk_free_bytes,
    )


def _timed(model: Model, machine: Machine, fit: Fit, lengths: Lengths | None) -> Fit:
    plan, used = fit.plan, with_emptiest(machine, fit.plan.num_gpus)
    fit = replace(fit, speed=speed.estimate(model, plan, used))
    if lengths is None:
        return fit
    usual = replace(plan, seq_len=min(plan.seq_len, lengths.padded(plan.sequences)))
    timed = speed.estimate(model, usual, used)
    if timed is None:
        return fit
    texts = plan.effective_batch * plan.task.sequences_per_row
    real = lengths.mean * texts / timed.step_seconds
    return replace(fit, real_tokens_per_second=real)


class _Search:
    """One method's plans on one machine, as they are tried."""

    def __init__(
        self, model: Model, machine: Machine, base: Plan, batch: Batch, *, wants_runner: bool
    ) -> None:
        self.model, self.machine, self.base, self.batch = model, machine, base, batch
        self.wants_runner = wants_runner
        self.device = "gpu" if machine.gpus else "cpu"
        self.enough = _ENOUGH_TOKENS[self.device]
        self.fitting: list[Fit] = []
        self.failed: list[Fit] = []
        self._hosts: dict[tuple[EngineSpec, int], Host] = {}

    def in_layout(self, plan: Plan) -> Iterator[Fit]:
        """The configurations worth comparing that fit over given devices."""
        if least_bytes(self.model, plan) > budget_bytes(self.machine, plan.num_gpus):
            return
        sizes = self._sizes(plan)
        found = [self._largest(plan, sizes[-1:])]
        if not found[0]:
            if not self._try(smallest(plan, self._rows(plan))):
                return
            found = [self._largest(plan, sizes[:-1])]
            if plan.method.recomputes:
                found.append(self._largest(replace(plan, checkpointing=True), sizes))
        for largest in found:
            for fit in self._up_to(largest, sizes) if largest else ():
                self.fitting.append(_timed(self.model, self.machine, fit, self.batch.lengths))
                yield self.fitting[-1]

    def _up_to(self, largest: Fit, sizes: Sequence[int]) -> Iterator[Fit]:
        """The largest that fits; smaller ones pad less, single rows need no attention mask."""
        yield largest
        plan, rows = largest.plan, self._rows(largest.plan)
        smaller = [n for n in sizes if 1 < n < plan.micro_batch and self.batch.lengths]
        least = plan.task.least_micro_batch
        if plan.micro_batch > least and self._busy_with_one(plan):
            smaller.append(least)
        for size in smaller:
            one = self._try(_divided(plan, size, rows))
            if one:
                yield one

    def _busy_with_one(self, plan: Plan) -> bool:
        """Single rows let attention skip half its square; long ones keep a device busy enough."""
        lengths = self.batch.lengths
        row = min(plan.seq_len, lengths.mean) if lengths else plan.seq_len
        if row < _LONG_ROW[self.device]:
            return False
        return self.device == "cpu" or row * self.model.num_params >= _LARGE_ROW

    def _rows(self, plan: Plan) -> int:
        return self.batch.rows_per_gpu(plan.num_gpus)

    def _sizes(self, plan: Plan) -> list[int]:
        """Micro-batches that divide a device's rows, up to the first that keeps it busy."""
        rows, least = self._rows(plan), plan.task.least_micro_batch
        # Where weights are gathered for every micro-batch, larger ones save network time
        if shares_of(plan).weights == 1 and self._busy_with_one(plan):
            return [least]
        divisors = [n for n in range(least, min(rows, _MAX_MICRO_BATCH) + 1) if rows % n == 0]
        divisors = divisors or [least]
        each = plan.seq_len * plan.task.sequences_per_row
        large = [n for n in divisors if n * each >= self.enough]
        return [n for n in divisors if not large or n <= large[0]]

    def _largest(self, plan: Plan, sizes: Sequence[int]) -> Fit | None:
        """By bisection: more rows at once never need less memory."""
        rows, found = self._rows(plan), None
        low, high = 0, len(sizes)
        while low < high:
            middle = (low + high) // 2
            size = sizes[middle]
            fit = self._try(_divided(plan, size, rows))
            found = fit or found
            low, high = (middle + 1, high) if fit else (low, middle)
        return found

    def _try(self, plan: Plan) -> Fit | None:
        fit = self._weighed(plan)
        if fit.fits:
            return fit
        self.failed.append(fit)
        return None

    def _weighed(self, plan: Plan) -> Fit:
        """RAM and disk do not depend on the batch."""
        layout = (plan.engine, plan.num_gpus)
        if layout not in self._hosts:
            self._hosts[layout] = storage.host(self.model, plan)
        return weighed(self.model, self.machine, plan, self._hosts[layout])

    def lacks(self, what: str) -> bool:
        """Every plan that was tried lacks this."""
        return bool(self.failed) and all(getattr(fit, what) for fit in self.failed)

    def loads_with(self, num_gpus: int) -> bool:
        """The RAM is enough for so many processes, and they keep the batch."""
        if not self.batch.divides(num_gpus):
            return False
        plans = spread(replace(self.base, num_gpus=1), num_gpus)
        free = self.machine.ram_free_bytes
        return any(storage.host(self.model, plan).ram_bytes <= free for plan in plans)

    def leaves_nothing(self, fit: Fit) -> bool:
        """No other layout can be much better: it needs no compromise."""
        plan = fit.plan
        return (
            not plan.checkpointing
            and plan.micro_batch == self._sizes(plan)[-1]
            and self.batch.divides(plan.num_gpus)
            and (fit.runs or not self.wants_runner)
        )

    def nearest(self, plans: Sequence[Plan]) -> Fit:
        """Of those that fail, the one with the least missing; the last layouts shard the most."""
        last = smallest(plans[-1], self._rows(plans[-1]))
        self.failed.append(self._weighed(last))
        return min(self.failed, key=lambda fit: fit.missing_bytes)

    def preferred(self) -> Fit:
        """Of those about as fast as the fastest: what runs, keeps activations, needs least."""
        exact = [fit for fit in self.fitting if self.batch.divides(fit.plan.num_gpus)]
        fitting = exact or self.fitting
        rates = [_rate(fit) for fit in fitting]
        about_as_fast = [
            fit for fit, rate in zip(fitting, rates, strict=True) if rate >= _NEARLY * max(rates)
        ]

        def convenience(fit: Fit) -> tuple[bool, bool, int]:
            return fit.runs, not fit.plan.checkpointing, -fit.plan.micro_batch

        return max(about_as_fast, key=convenience)

    def alone_if_faster(self, found: Fit) -> Fit:
        """One GPU where the network between several costs more than they bring."""
        plan, rate = found.plan, found.speed
        is_whole = plan.num_gpus > 1 and not plan.engine.divides
        if not is_whole or rate is None:
            return found
        if dict(rate.terms).get("communication", 0.0) < _SLOW_LINK * rate.step_seconds:
            return found
        rows = self.batch.rows_per_gpu(1)
        if rows % plan.micro_batch:
            return found
        accumulation = rows // plan.micro_batch
        one = replace(spread(plan, 1)[0], accumulation=accumulation)
        alone = judge(self.model, self.machine, one, self.batch.lengths)
        return alone if alone.fits and _NEARLY * _rate(alone) > _rate(found) else found


def _rate(fit: Fit) -> float:
    """Tokens per second, real ones where rows are known."""
    return fit.rates[1] if fit.rates else 0.0
