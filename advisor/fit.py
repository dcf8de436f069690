"""The search for the batch: micro-batch x accumulation x checkpointing x sharding that fits.

Keeps the wanted effective batch and takes the fastest configuration whose *high* estimate fits in
free memory. Which method to use is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from advisor import memory, speed
from advisor.memory import MemoryEstimate
from advisor.plan import Plan
from advisor.speed import SpeedEstimate
from profiles.facts import Machine, Model

_MAX_MICRO_BATCH = 64
_NEARLY = 0.95
"""Below the accuracy of the speed estimate, so not a reason to choose."""
_ENOUGH_TOKENS = {"gpu": 8192, "cpu": 2048}
"""A micro-batch of this size keeps the device busy; a larger one only adds padding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A plan with its predicted memory and speed on a machine."""

    plan: Plan
    memory: MemoryEstimate
    speed: SpeedEstimate | None
    """None where the device's rate is not known."""
    budget_bytes: int
    """Free memory of the fullest device it would use."""

    @property
    def fits(self) -> bool:
        """The upper end of the estimate fits in free memory."""
        return self.memory.high_bytes <= self.budget_bytes


def budget_bytes(machine: Machine, num_gpus: int) -> int:
    """Free bytes on the fullest of the `num_gpus` emptiest GPUs, or of RAM without a GPU."""
    free = sorted((gpu.vram_free_bytes for gpu in machine.gpus), reverse=True)
    return free[num_gpus - 1] if free else machine.ram_free_bytes


def best(model: Model, machine: Machine, base: Plan, effective_batch: int) -> Fit:
    """The fastest plan of `base`'s method that fits; if none does, the one that needs least."""
    tried = [judge(model, machine, p) for p in _candidates(machine, base, effective_batch)]
    fitting = [fit for fit in tried if fit.fits]
    if not fitting:
        return min(tried, key=lambda fit: fit.memory.high_bytes - fit.budget_bytes)
    return _preferred(fitting, _ENOUGH_TOKENS["gpu" if machine.gpus else "cpu"])


def judge(model: Model, machine: Machine, plan: Plan) -> Fit:
    """Memory and speed of exactly this plan."""
    backend = "cuda" if machine.gpus else "cpu"
    return Fit(
        plan=plan,
        memory=memory.estimate(model, plan, backend=backend),
        speed=speed.estimate(model, plan, machine),
        budget_bytes=budget_bytes(machine, plan.num_gpus),
    )


def _preferred(fitting: list[Fit], enough_tokens: int) -> Fit:
    """Among those about as fast as the fastest: kept activations, then large enough batches."""
    rates = [fit.speed.tokens_per_second if fit.speed else 0.0 for fit in fitting]
    about_as_fast = [
        fit for fit, rate in zip(fitting, rates, strict=True) if rate >= _NEARLY * max(rates)
    ]

    def convenience(fit: Fit) -> tuple[bool, int, int]:
        tokens = min(fit.plan.tokens_per_micro_batch, enough_tokens)
        return not fit.plan.checkpointing, tokens, -fit.plan.micro_batch

    return max(about_as_fast, key=convenience)


def _candidates(machine: Machine, base: Plan, effective_batch: int) -> Iterator[Plan]:
    for strategy, num_gpus in _layouts(machine):
        rows_per_gpu = max(1, effective_batch // num_gpus)
        micro_batch = 1
        while micro_batch <= min(rows_per_gpu, _MAX_MICRO_BATCH):
            for checkpointing in (False, True):
                yield replace(
                    base,
                    strategy=strategy,
                    num_gpus=num_gpus,
                    micro_batch=micro_batch,
                    accumulation=max(1, round(rows_per_gpu / micro_batch)),
                    checkpointing=checkpointing,
                )
            micro_batch *= 2


def _layouts(machine: Machine) -> Iterator[tuple[str, int]]:
    """All GPUs together; one alone only where there is one, for idle GPUs are no plan."""
    num_gpus = len(machine.gpus)
    if num_gpus > 1:
        yield "ddp", num_gpus
        yield "fsdp", num_gpus
    else:
        yield "single", 1
