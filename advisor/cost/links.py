"""What a step costs beside its micro-batches: the optimizer, other devices, and host memory.

Rings pass (n - 1)/n of the bytes through each device's link. Between nodes, and to the host's
memory, rates are assumptions that the interval has to cover; they are named here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.cost.sharding import shares_of
from advisor.cost.weights import (
    base_bytes,
    gradient_bytes,
    optimizer_bytes,
    trained_params,
)
from advisor.graph.layer import any_batch
from advisor.precision import autocasts, base_width, flow_width, trained_width

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Gpu, Machine, Model

LINK_SHARE: Final = 0.8
"""Of a link's nominal rate, reached by large messages (stas00/ml-engineering, network)."""
NVLINK_BYTES_PER_SECOND: Final = 25e9
"""One link, one direction, nominal (NVLink 3 and 4)."""
USUAL_NVLINK: Final = {"7.0": 150e9, "8.0": 300e9, "9.0": 450e9, "10.0": 900e9, "10.3": 900e9}
"""One direction of a whole card by compute capability, where the links were not counted."""
SMALL_NVLINK: Final = 56e9
"""A bridge between two cards."""
PCIE_LANE_BYTES_PER_SECOND: Final = {3: 0.985e9, 4: 1.97e9, 5: 3.94e9, 6: 7.88e9}
"""Nominal, one direction."""
UNKNOWN_PCIE: Final = 15.8e9
"""PCIe 3 x16."""
THROUGH_HOST: Final = 0.5
"""Between GPUs on PCIe, bytes go down to the host's memory and up again."""
PAGING_SHARE: Final = 0.3
"""Of PCIe's rate, where pages of a paged optimizer come and go by faults; assumed."""
NODE_BYTES_PER_SECOND: Final = 12.5e9
"""Between nodes: 100 Gbit/s, assumed, for nothing on one node can tell."""
HOST_BYTES_PER_SECOND: Final = 80e9
"""Memory of a server for an optimizer on its cores, assumed: half of eight DDR4-3200 channels."""
ADAM_ACCESSES: Final = 7
"""A fused kernel reads weight, gradient and two moments, and writes all but the gradient."""
FOREACH_ACCESSES: Final = 25
"""torch.optim's multi-tensor AdamW: each of its ten passes reads and writes whole lists."""
CLIP_ACCESSES: Final = 3
"""Norm of the gradients, then scaling them."""


class Beside(NamedTuple):
    """Seconds of one optimizer step outside of the devices' own micro-batches."""

    optimizer: float
    per_micro_batch: float
    """Communication that each micro-batch repeats."""
    per_step: float
    """Communication once a step."""
    waiting: float
    """Of each micro-batch, for the host to gather sharded weights."""


class _Amounts(NamedTuple):
    """Bytes of one step on one device."""

    update: float
    """Through the memory that the optimizer works in."""
    micro: float
    """Over the link, in each micro-batch."""
    step: float
    """Over the link, once."""
    hosted_micro: float
    """Over PCIe, in each micro-batch."""
    hosted_step: float
    static: float
    """Weights and gradients on the device."""
    paged: float
    """States of a paged optimizer."""


def beside(model: Model, plan: Plan, machine: Machine, gpu: Gpu, bandwidth: float) -> Beside:
    """Optimizer and communication of one step; `bandwidth` is that of the device's memory."""
    amounts = _amounts(model, plan)
    link, pcie = link_rate(machine, gpu, far=leaves_node(plan, machine)), pcie_rate(gpu)
    memory = HOST_BYTES_PER_SECOND if plan.offload else bandwidth
    overflow = min(amounts.paged, max(0.0, amounts.static + amounts.paged - gpu.vram_bytes))
    return Beside(
        amounts.update / memory + 2 * overflow / (PAGING_SHARE * pcie),
        amounts.micro / link + amounts.hosted_micro / pcie,
        amounts.step / link + amounts.hosted_step / pcie,
        _units(model, plan) * plan.engine.unit_seconds,
    )


def optimizer_seconds(model: Model, plan: Plan, bandwidth: float) -> float:
    """Time of the update where nothing is on other devices."""
    return _amounts(model, plan).update / bandwidth


def _units(model: Model, plan: Plan) -> int:
    """Sharded units gathered in one micro-batch: layers, and with FSDP1 parts of the method."""
    per_layer, framework = 1, plan.framework
    if framework.fsdp1 and not framework.replicated_adapters:
        per_layer += plan.method.units(plan.settings)
    return model.num_layers * per_layer * (3 if plan.checkpointing else 2)


def _amounts(model: Model, plan: Plan) -> _Amounts:
    return _known_amounts(model, any_batch(model, plan))


@lru_cache(maxsize=4096)
def _known_amounts(model: Model, plan: Plan) -> _Amounts:
    shares = shares_of(plan)
    static = base_bytes(model, plan) / shares.weights
    if not plan.updates_in_backward:
        static += gradient_bytes(model, plan) / shares.gradients
    micro, step = _collective_bytes(model, plan)
    hosted_micro, hosted_step = _host_bytes(model, plan)
    return _Amounts(
        update=_update_bytes(model, plan),
        micro=micro,
        step=step,
        hosted_micro=hosted_micro,
        hosted_step=hosted_step,
        static=static,
        paged=optimizer_bytes(model, plan)[1] / shares.states,
    )


def _update_bytes(model: Model, plan: Plan) -> float:
    """What clipping and the update read and write; on a host all of its devices' together."""
    shares, trained, width = shares_of(plan), trained_params(model, plan), trained_width(plan)
    if plan.offload:
        return float(trained * ADAM_ACCESSES * width)
    kind = plan.optimizer
    if kind.bits == 8:
        each = 3 * width + 2 * kind.states
    elif kind.states == 2 and plan.framework.foreach_optimizer:
        each = width * FOREACH_ACCESSES
    else:
        each = width * (3 + 2 * kind.states + kind.extra_accesses)
    clipping = CLIP_ACCESSES * width * trained / shares.gradients
    return each * trained / shares.states + clipping


def _collective_bytes(model: Model, plan: Plan) -> tuple[float, float]:
    """Bytes over a device's link: (per micro-batch, per step).

    DDP and ZeRO-1 reduce whole gradients: two passes. ZeRO-2 and 3 and FSDP scatter them in every
    micro-batch: one pass, and for ZeRO-2 one more to gather the new weights.
    """
    n = plan.num_gpus
    if n < 2:
        return 0.0, 0.0
    part, shares = (n - 1) / n, shares_of(plan)
    gradients = float(gradient_bytes(model, plan))
    if shares.weights > 1:
        return part * (2 * gathered_bytes(model, plan) + gradients), 0.0
    if shares.gradients > 1:
        return part * gradients, part * gradients
    return 0.0, 2 * part * gradients


def _host_bytes(model: Model, plan: Plan) -> tuple[float, float]:
    """Bytes over PCIe: gradients down and weights up once a step; streamed weights twice."""
    if not plan.offload:
        return 0.0, 0.0
    shares = shares_of(plan)
    gradients = gradient_bytes(model, plan) / shares.gradients
    weights = 2.0 * trained_params(model, plan) / shares.states
    if plan.offload == "optimizer":
        return 0.0, gradients + weights
    streamed = 2 * gathered_bytes(model, plan) / shares.weights
    return streamed, gradients + weights


def gathered_bytes(model: Model, plan: Plan) -> float:
    """All weights in the type that they are gathered in."""
    whole = base_bytes(model, plan)
    return whole * flow_width(plan) / base_width(plan) if autocasts(plan) else whole


def leaves_node(plan: Plan, machine: Machine) -> bool:
    """The plan's devices are in more than one node; `Machine.gpus` are those of one."""
    return machine.num_nodes > 1 and plan.num_gpus > len(machine.gpus)


def link_rate(machine: Machine, gpu: Gpu, *, far: bool) -> float:
    """Bytes per second, one direction, of the slowest link of a ring; `far`: between nodes."""
    linked = machine.interconnect == "nvlink"
    inside = nvlink_rate(gpu) if linked else THROUGH_HOST * pcie_rate(gpu)
    return min(inside, NODE_BYTES_PER_SECOND) if far else inside


def nvlink_rate(gpu: Gpu) -> float:
    """As counted, as the part's table has it, or usual for the generation."""
    counted = gpu.num_nvlinks * NVLINK_BYTES_PER_SECOND or gpu.nvlink_bytes_per_second
    return LINK_SHARE * (counted or USUAL_NVLINK.get(gpu.compute_capability or "", SMALL_NVLINK))


def pcie_rate(gpu: Gpu) -> float:
    """To the host: as reported, or the slowest that is usual."""
    lane = PCIE_LANE_BYTES_PER_SECOND.get(gpu.pcie_generation or 0, 0.0)
    return LINK_SHARE * (lane * (gpu.pcie_lanes or 0) or UNKNOWN_PCIE)
