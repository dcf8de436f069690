"""How long one optimizer step takes on a machine.

Adds up what a micro-batch needs (traffic.py) at the rates that the device reaches (rates.py), and
what a step costs beside its micro-batches (links.py). A GPU whose rates are unknown gets no time at
all: another GPU's numbers are never used. It does not know about input pipelines, evaluation,
saving or throttling, nor the true lengths of rows: tokens count padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.cost.flops import Flops, flops_per_token, row_tokens
from advisor.cost.links import Beside, beside, leaves_node, optimizer_seconds
from advisor.cost.rates import BANDWIDTH_SHARE, Rates, Seconds, rates_of, seconds_of
from advisor.cost.traffic import work

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Gpu, Machine, Model

__all__ = ["Flops", "SpeedEstimate", "cost", "estimate", "flops_per_token"]

STEP_SECONDS: Final = 0.01
"""Of the trainer itself, once a step: data, logging, the schedule."""
CPU_CORE_FLOPS: Final = (6e9, 25e9, 80e9)
"""A rough guide: fp32 FLOP/s of one core in matmuls, old laptop to server with AVX-512."""
CPU_BYTES_PER_SECOND: Final = 20e9


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedEstimate:
    """Time of one optimizer step over all devices; tokens per second count padding."""

    low_step_seconds: float
    step_seconds: float
    high_step_seconds: float
    low_tokens_per_second: float
    tokens_per_second: float
    high_tokens_per_second: float
    terms: tuple[tuple[str, float], ...]
    """Expected seconds by cause; overlapping ones do not add up to the step."""
    model_flops_share: float | None
    """MFU: model FLOP/s over the data sheet's rate; None for a CPU."""
    rough: bool
    """Only a guide: no rate of this part is known."""


def estimate(model: Model, plan: Plan, machine: Machine) -> SpeedEstimate | None:
    """Seconds per optimizer step on `machine`, or None where its rates are not known."""
    if not machine.gpus:
        return _on_cpu(model, plan, machine)
    # All devices wait for the slowest; equal ones need one look.
    gpus = {_rating(gpu): gpu for gpu in machine.gpus[: plan.num_gpus]}.values()
    slowest: tuple[Rates, Gpu] | None = None
    for gpu in gpus:
        rates = rates_of(gpu, plan)
        if rates is None:
            return None
        if slowest is None or rates.narrow < slowest[0].narrow:
            slowest = rates, gpu
    assert slowest is not None  # a plan has at least one device
    return _on_gpu(model, plan, machine, slowest[1], slowest[0])


_rating = attrgetter(
    *("spec_id", "vendor", "bf16_flops", "fp16_flops", "fp32_flops"),
    *("memory_bytes_per_second", "achievable_share", "has_bf16"),
)
"""What tells devices of different speed apart."""


def cost(hours: float, price: float) -> float:
    """Money for `hours` of a machine at `price` an hour."""
    return hours * price


class _Case(NamedTuple):
    """How far the parts of a step may lie from what is expected of them."""

    device: float
    unmeasured: float
    """The same for a part whose best matmul rate was not measured."""
    launch: float
    """Hosts differ most: by their core's speed, and by the version of the libraries."""
    network: float
    between_nodes: float
    exposed: float
    """Share of the communication that computing does not hide, though it could."""


_LOW: Final = _Case(0.88, 0.75, 0.4, 0.8, 0.25, 0.2)
_EXPECTED: Final = _Case(1.0, 1.0, 1.0, 1.0, 1.0, 0.5)
_HIGH: Final = _Case(1.2, 1.4, 3.0, 2.0, 4.0, 1.0)
"""More than nine of ten published runs lie between the two (tests/bench/speed_accuracy.py)."""


def _on_gpu(model: Model, plan: Plan, machine: Machine, gpu: Gpu, rates: Rates) -> SpeedEstimate:
    tokens, times = plan.tokens_per_micro_batch, plan.accumulation
    row = row_tokens(plan)
    # A soft prompt lengthens every row.
    longer = 1 + plan.settings.num_virtual_tokens / row
    needed = work(model, plan)
    parts = seconds_of(needed, rates, model, round(tokens * longer), round(row * longer))
    outside = beside(model, plan, machine, gpu, BANDWIDTH_SHARE * rates.bandwidth)
    far, measured = leaves_node(plan, machine), rates.is_measured
    low, expected, high = [
        _step_seconds(parts, outside, times, case, far=far, measured=measured)
        for case in (_LOW, _EXPECTED, _HIGH)
    ]
    terms = (
        ("matmul", times * parts.matmul),
        ("attention", times * parts.attention),
        ("memory", times * parts.memory),
        ("dequantize", times * parts.dequantize),
        ("optimizer", outside.optimizer),
        ("launch", times * (parts.launch + outside.waiting)),
        ("communication", times * outside.per_micro_batch + outside.per_step),
    )
    flops = flops_per_token(model, plan).model_flops * tokens * times
    share = flops / expected / rates.sheet
    return _speed(plan, (low, expected, high), terms, share=share, rough=False)


def _step_seconds(
    parts: Seconds, outside: Beside, times: int, case: _Case, *, far: bool, measured: bool
) -> float:
    """The device computes while the host launches; communication hides behind both in part."""
    device = case.device if measured else case.unmeasured
    busy = max(device * parts.device, case.launch * parts.launch)
    busy = times * (busy + case.launch * outside.waiting)
    network = times * outside.per_micro_batch + outside.per_step
    network *= case.between_nodes if far else case.network
    exposed = max(network - busy, case.exposed * network)
    return busy + exposed + device * outside.optimizer + STEP_SECONDS


def _on_cpu(model: Model, plan: Plan, machine: Machine) -> SpeedEstimate:
    """A rough guide from the number of cores, with a wide interval; always in fp32."""
    plan = replace(plan, precision="fp32")
    tokens, times = plan.tokens_per_micro_batch, plan.accumulation
    flops = flops_per_token(model, plan).hardware_flops * tokens * times
    moved = work(model, plan).moved.at(tokens, row_tokens(plan)) * times
    memory = moved / CPU_BYTES_PER_SECOND + optimizer_seconds(model, plan, CPU_BYTES_PER_SECOND)
    slow, usual, fast = (max(1, machine.num_cores) * rate for rate in CPU_CORE_FLOPS)
    seconds = (flops / fast, flops / usual + memory, flops / slow + 2 * memory)
    terms = (("matmul", flops / usual), ("memory", memory))
    return _speed(plan, seconds, terms, share=None, rough=True)


def _speed(
    plan: Plan,
    seconds: tuple[float, float, float],
    terms: tuple[tuple[str, float], ...],
    *,
    share: float | None,
    rough: bool,
) -> SpeedEstimate:
    low, expected, high = seconds
    tokens = plan.effective_batch * plan.task.sequences_per_row * plan.seq_len
    return SpeedEstimate(
        low_step_seconds=low,
        step_seconds=expected,
        high_step_seconds=high,
        low_tokens_per_second=tokens / high,
        tokens_per_second=tokens / expected,
        high_tokens_per_second=tokens / low,
        terms=terms,
        model_flops_share=share,
        rough=rough,
    )
