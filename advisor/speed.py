"""How long one optimizer step takes, and the FLOPs behind it.

Decides FLOPs per token exactly and seconds by a simple roofline. A GPU whose rates are unknown gets
no time at all: another GPU's numbers are never used. It does not know about input pipelines,
evaluation, saving or throttling, nor the true lengths of rows: tokens count padding.

Symbols as in reference/bottlenecks.md §3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from advisor.activations import activation_bytes, has_mask, row_tokens
from advisor.weights import adapter_params, adapter_shapes, is_fused, linear_params

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Gpu, Machine, Model

DEFAULT_SHARES: Final = {"nvidia": 0.78, "amd": 0.60, "apple": 0.70}
"""Best matmul rate over the data sheet, where not measured on the part: middle of 70-87 % and
51-68 % (§0.5); Apple's is an assumption."""
STEP_SHARE: Final = 0.85
"""Of the best matmul rate, reached by the shapes of a training step (§3.1, not yet calibrated)."""
SLOW_SHARE: Final = 0.60
"""Small and narrow matmuls; also the rank-r ones of adapters."""
ELEMENTWISE_PASSES: Final = 4
"""A saved tensor is written, read on, read again in the backward pass, its gradient written."""
LOGIT_PASSES: Final = {"chunked": 8, "full": 20}
"""Bytes moved per token and vocabulary entry: two tiles of two bytes, written and read; or the
fp32 copies of §3.5."""
KERNELS_PER_LAYER: Final = 35
KERNELS_PER_ADAPTER: Final = 6
LAUNCH_SECONDS: Final = 5e-6
"""Per kernel, from Python; only the floor where a GPU waits for its host."""
NVLINK_BYTES_PER_SECOND: Final = 20e9
"""One link, one direction, of 25 GB/s nominal (NVLink 3 and 4)."""
PCIE_LANE_BYTES_PER_SECOND: Final = {3: 0.8e9, 4: 1.6e9, 5: 3.2e9, 6: 6.4e9}
"""Practical, one direction; about four fifths of nominal."""
UNKNOWN_LINK: Final = {"nvlink": 100e9, "pcie": 12e9}
"""Where links or lanes were not reported: a small NVLink bridge; PCIe 3 x16."""
CPU_CORE_FLOPS: Final = (6e9, 25e9, 80e9)
"""A rough guide: fp32 FLOP/s of one core in matmuls, old laptop to server with AVX-512."""
CPU_BYTES_PER_SECOND: Final = 20e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Per token of a micro-batch, forward and backward."""

    model_flops: int
    """What training needs: counts attention over the full square, without recomputation."""
    hardware_flops: int
    """What is executed: with recomputed layers and loss tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedEstimate:
    """Time of one optimizer step over all devices; tokens per second count padding."""

    low_step_seconds: float
    step_seconds: float
    high_step_seconds: float
    low_tokens_per_second: float
    tokens_per_second: float
    high_tokens_per_second: float
    tokens_per_step: int
    terms: tuple[tuple[str, float], ...]
    """Expected seconds by cause; overlapping ones do not add up to the step."""
    model_flops_share: float | None
    """MFU: model FLOP/s over the data sheet's rate; None for a CPU."""
    rough: bool
    """Only a guide: no rate of this part is known."""


def flops_per_token(model: Model, plan: Plan) -> Flops:
    """FLOPs per token, forward and backward (§3.1).

    Full: 6(N_l + N_head) + 3A. Adapters: 4(N_l + N_head) + 3A + 6P, less what the first layer need
    not pass on to its input. Equal to torch's FlopCounterMode with eager attention.
    """
    linears = linear_params(model)
    head = model.vocab_size * model.hidden_size
    attention = _attention_flops(model, plan)
    adapters = adapter_params(model, plan)
    if plan.method == "full":
        needed = 6 * (linears + head) + 3 * attention
    else:
        needed = 4 * (linears + head) + 3 * attention + 6 * adapters
        # With checkpointing TRL makes the embedding's output require a gradient.
        needed -= 0 if plan.checkpointing else _first_layer_saving(model, plan)
    extra = _recomputed_layer_flops(model, plan, adapters) if plan.checkpointing else 0
    if plan.loss == "chunked":
        extra += 2 * head
    return Flops(model_flops=needed, hardware_flops=needed + extra)


def estimate(model: Model, plan: Plan, machine: Machine) -> SpeedEstimate | None:
    """Seconds per optimizer step on `machine`, or None where its rates are not known."""
    if not machine.gpus:
        return _on_cpu(model, plan, machine)
    timed = [(gpu, _peak_rate(gpu, plan)) for gpu in machine.gpus[: plan.num_gpus]]
    known = [(rate, gpu) for gpu, rate in timed if rate and gpu.memory_bytes_per_second]
    if len(known) < len(timed):
        return None
    # All devices wait for the slowest.
    rate, gpu = min(known, key=lambda pair: pair[0])
    return _on_gpu(model, plan, machine, gpu, rate)


def _attention_flops(model: Model, plan: Plan) -> int:
    """A = 4 L q T: scores and their product with v, per token, over the full square."""
    return 4 * model.num_layers * model.query_width * row_tokens(plan)


def _recomputed_layer_flops(model: Model, plan: Plan, adapters: int) -> int:
    """Second forward pass of all layers; it stops once the last saved tensor is back (§3.1)."""
    h, f, layers = model.hidden_size, model.intermediate_size, model.num_layers
    whole = 2 * linear_params(model) + _attention_flops(model, plan) + 2 * adapters
    if plan.method != "full" and "down_proj" in plan.targets:
        return whole - 2 * plan.rank * h * layers
    return whole - 2 * layers * h * f


def _first_layer_saving(model: Model, plan: Plan) -> int:
    """Backward FLOPs per token that layer 0 skips, as its input needs no gradient.

    Follows, linear by linear, which inputs need a gradient. `2 q T` is one of the four matmuls of
    the attention's backward: dV, dP, dQ, dK.
    """
    targets, rank = set(plan.targets), plan.rank
    if is_fused(model):
        # One adapter serves q, k and v, another gate and up.
        for group in ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}):
            targets |= group if targets & group else set()
    h, q, kv, f = model.hidden_size, model.query_width, model.kv_width, model.intermediate_size
    adapted = len(targets & {"q_proj", "k_proj", "v_proj"})
    saved = 2 * h * (q + 2 * kv) + 2 * rank * h * (min(adapted, 1) if is_fused(model) else adapted)
    needs_q, needs_k, needs_v = (name in targets for name in ("q_proj", "k_proj", "v_proj"))
    done = needs_v + (needs_q or needs_k) + needs_q + needs_k
    saved += (4 - done) * 2 * q * row_tokens(plan)
    flows = adapted > 0
    if not flows:
        saved += 2 * q * h + (2 * rank * q if "o_proj" in targets else 0)
    flows = flows or "o_proj" in targets
    if not flows:
        pair = len(targets & {"gate_proj", "up_proj"})
        saved += 4 * h * f + 2 * rank * h * (min(pair, 1) if is_fused(model) else pair)
        if not pair:
            saved += 2 * h * f + (2 * rank * f if "down_proj" in targets else 0)
    return saved


def _peak_rate(gpu: Gpu, plan: Plan) -> float | None:
    """Data-sheet FLOP/s of the precision that the matmuls run in."""
    if plan.precision == "fp32":
        return gpu.fp32_flops
    if plan.precision == "fp16":
        return gpu.fp16_flops
    return None if gpu.has_bf16 is False else gpu.bf16_flops


def _executed_flops(model: Model, plan: Plan) -> float:
    """Per token, as kernels run them: flash attention skips half the square of a causal mask.

    Its backward pass is 2.5 forward passes (§3.1); with an explicit mask nothing is skipped.
    """
    flops = float(flops_per_token(model, plan).hardware_flops)
    if plan.attention == "eager":
        return flops
    attention = _attention_flops(model, plan)
    passes = 2 if plan.checkpointing else 1
    square = 1.0 if has_mask(plan) else 0.5
    return flops + attention * (square * (passes + 2.5) - (passes + 2))


def _on_gpu(model: Model, plan: Plan, machine: Machine, gpu: Gpu, rate: float) -> SpeedEstimate:
    tokens = plan.tokens_per_micro_batch
    bandwidth = gpu.memory_bytes_per_second or 1.0
    best = rate * (gpu.achievable_share or DEFAULT_SHARES.get(gpu.vendor, SLOW_SHARE))
    matmul = _executed_flops(model, plan) * tokens * plan.accumulation / best
    memory = _moved_bytes(model, plan) * plan.accumulation / bandwidth
    update = _optimizer_traffic(model, plan) / bandwidth
    launch = _launch_seconds(model, plan) * plan.accumulation
    network = _network_seconds(model, plan, machine, gpu)
    # Low: matmuls at their best, all communication hidden. High: narrow shapes, nothing hidden.
    low = max(matmul + memory, launch) + update
    busy = max(matmul / STEP_SHARE + memory, launch)
    high = max(matmul / SLOW_SHARE + 1.5 * memory, 2 * launch) + update + network
    # Half the network's time can hide behind computing the neighbouring layer.
    expected = busy + update + max(network / 2, network - busy)
    terms = (
        ("matmul", matmul / STEP_SHARE),
        ("memory", memory),
        ("optimizer", update),
        ("launch", launch),
        ("communication", network),
    )
    flops = flops_per_token(model, plan).model_flops * tokens * plan.accumulation
    return _speed(plan, (low, expected, high), terms, share=flops / expected / rate, rough=False)


def _moved_bytes(model: Model, plan: Plan) -> float:
    """Bytes through device memory in one micro-batch, outside the matmuls' own operands.

    Elementwise work, logits, and for QLoRA each weight's 4 bits read, 16 bits written and read.
    """
    layers, tokens = model.num_layers, plan.tokens_per_micro_batch
    passes = ELEMENTWISE_PASSES + (2 if plan.checkpointing else 0)
    moved = float(passes * activation_bytes(model, plan) * layers * tokens)
    moved += LOGIT_PASSES[plan.loss] * model.vocab_size * tokens
    if plan.method == "qlora":
        uses = 3 if plan.checkpointing else 2
        moved += uses * linear_params(model) * (0.516 + 2 + 2)
    return moved


def _optimizer_traffic(model: Model, plan: Plan) -> float:
    """Bytes that AdamW reads and writes per step: 28 per fp32 parameter (§3.1), 14 in bf16.

    With 8-bit moments: weights and gradients as before, moments read and written at one byte.
    """
    full = plan.method == "full"
    trained = float(model.num_params if full else adapter_params(model, plan))
    if plan.strategy == "fsdp":
        trained /= plan.num_gpus
    narrow = plan.precision == "bf16_pure" or plan.method == "qlora"
    if plan.optimizer == "adamw":
        return trained * (14 if narrow else 28)
    return trained * (10 if narrow else 16)


def _launch_seconds(model: Model, plan: Plan) -> float:
    """Host time to start the kernels of one micro-batch: the backward pass has two a forward."""
    adapted = len(adapter_shapes(model, plan.targets)) if plan.adapts else 0
    kernels = model.num_layers * (KERNELS_PER_LAYER + KERNELS_PER_ADAPTER * adapted)
    return LAUNCH_SECONDS * kernels * (4 if plan.checkpointing else 3)


def _network_seconds(model: Model, plan: Plan, machine: Machine, gpu: Gpu) -> float:
    """Ring collectives of one step: (n - 1)/n of the bytes leave each device, per pass.

    DDP reduces the gradients once (two passes); FSDP gathers the weights twice and scatters the
    gradients in every micro-batch.
    """
    count = plan.num_gpus
    if count < 2:
        return 0.0
    narrow = 2 if plan.precision != "fp32" else 4
    if plan.method == "full":
        gradients = float(model.num_params * (2 if plan.precision == "bf16_pure" else 4))
    else:
        gradients = float(adapter_params(model, plan) * (2 if plan.method == "qlora" else 4))
    if plan.strategy == "fsdp":
        linears = linear_params(model)
        per_linear = 0.516 if plan.method == "qlora" else narrow
        weights = linears * per_linear + max(0, model.num_params - linears) * narrow
        moved = (2 * weights + gradients) * plan.accumulation
    else:
        moved = 2 * gradients
    return moved * (count - 1) / count / _link_rate(machine, gpu)


def _link_rate(machine: Machine, gpu: Gpu) -> float:
    """Bytes per second, one direction, between two of the machine's GPUs."""
    if machine.interconnect == "nvlink":
        links = gpu.num_nvlinks * NVLINK_BYTES_PER_SECOND
        return links or UNKNOWN_LINK["nvlink"]
    lane = PCIE_LANE_BYTES_PER_SECOND.get(gpu.pcie_generation or 0, 0.0)
    return lane * (gpu.pcie_lanes or 0) or UNKNOWN_LINK["pcie"]


def _on_cpu(model: Model, plan: Plan, machine: Machine) -> SpeedEstimate:
    """A rough guide from the number of cores, with a wide interval; always in fp32."""
    plan = replace(plan, precision="fp32")
    flops = flops_per_token(model, plan).hardware_flops
    work = flops * plan.tokens_per_micro_batch * plan.accumulation
    memory = _moved_bytes(model, plan) * plan.accumulation / CPU_BYTES_PER_SECOND
    memory += _optimizer_traffic(model, plan) / CPU_BYTES_PER_SECOND
    slow, usual, fast = (max(1, machine.num_cores) * rate for rate in CPU_CORE_FLOPS)
    seconds = (work / fast, work / usual + memory, work / slow + 2 * memory)
    terms = (("matmul", work / usual), ("memory", memory))
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
    tokens = plan.effective_batch * plan.seq_len
    return SpeedEstimate(
        low_step_seconds=low,
        step_seconds=expected,
        high_step_seconds=high,
        low_tokens_per_second=tokens / high,
        tokens_per_second=tokens / expected,
        high_tokens_per_second=tokens / low,
        tokens_per_step=tokens,
        terms=terms,
        model_flops_share=share,
        rough=rough,
    )
