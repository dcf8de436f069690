"""Everything behind a memory estimate, as lines: moments, terms, and what they were made from.

For people who check the numbers. Decides only what is shown and how it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor import precision
from advisor.cost import sharding, weights
from advisor.graph.network import network
from profiles.facts import GIB
from profiles.quantities import bytes_text, count_text
from tui.pages.memory import component, when_and_where
from tui.plain import table, wrap

if TYPE_CHECKING:
    from advisor.choice.fit import Fit
    from advisor.cost.memory import MemoryEstimate
    from advisor.cost.moments import Moment
    from advisor.plan import Plan
    from advisor.tape import Size
    from profiles.facts import Model

LEVEL = "level 1: formula"
_HOW = "From the model's dimensions, operation by operation; nothing was run."
_HEADS = {
    "forward": ("forward", "ends"),
    "loss_forward": ("loss", "forward"),
    "loss_backward": ("loss", "backward"),
    "first_layer_backward": ("last", "layer"),
    "last_layer_backward": ("first", "layer"),
    "embedding_backward": ("embed-", "ding"),
    "optimizer_step": ("opti-", "mizer"),
}
"""Two lines each: seven moments stand side by side in 80 columns."""
_LARGE = 4 * GIB
"""Below it, numbers in MiB tell more."""


def lines(model: Model, fit: Fit, width: int, *, on_gpu: bool) -> list[str]:
    """The whole appendix."""
    estimate, plan = fit.memory, fit.plan
    return [
        "",
        f"the estimate, term by term ({LEVEL})",
        *wrap(_HOW, width, indent="  "),
        "",
        *_moments(estimate),
        "",
        *wrap(_peak_title(estimate), width, indent="  ", first=""),
        *_peak(estimate, plan),
        "",
        "what the terms are made from",
        *table(_ingredients(model, plan), indent="  ", width=width),
        "",
        "from torch's count to the device",
        *_device(estimate, width, on_gpu=on_gpu),
    ]


def _moments(estimate: MemoryEstimate) -> list[str]:
    """Components down, moments across; the winner is marked."""
    divisor, unit, digits = (GIB, "GiB", 2)
    if estimate.allocated_bytes < _LARGE:
        divisor, unit, digits = (1 << 20, "MiB", 0)
    order = [name for name in _HEADS if any(m.name == name for m in estimate.moments)]
    moments = sorted(estimate.moments, key=lambda moment: order.index(moment.name))
    shares = [{t.component: t.num_bytes for t in moment.terms} for moment in moments]
    names = list(dict.fromkeys(name for share in shares for name in share))
    header = [unit, *(_HEADS[moment.name][0] for moment in moments)]
    rows = [["", *(_HEADS[moment.name][1] for moment in moments)]]
    for name in names:
        values = [share.get(name, 0) for share in shares]
        rows.append([component(name), *(f"{v / divisor:.{digits}f}" if v else "-" for v in values)])
    rows.append(["sum", *(f"{m.total_bytes / divisor:.{digits}f}" for m in moments)])
    rows.append(["", *("peak" if m.name == estimate.winner else "" for m in moments)])
    right = range(1, len(moments) + 1)
    return table(rows, header=header, indent="  ", right=right)


def _peak_title(estimate: MemoryEstimate) -> str:
    peak = estimate.peak
    pairs = f", pairs in rows of {count_text(peak.row)}" if _has_pairs(peak) else ""
    return f"the peak, {when_and_where(peak)}: {count_text(peak.tokens)} tokens{pairs}"


def _has_pairs(moment: Moment) -> bool:
    """Something grows with the square of a row: scores, masks."""
    return any(size.per_pair for size in moment.candidate.shares.values())


def _peak(estimate: MemoryEstimate, plan: Plan) -> list[str]:
    """Each term as the linear form that it is."""
    peak = estimate.peak
    tokens, row, pairs = peak.tokens, peak.row, _has_pairs(peak)
    header = ["component", "fixed", "each token", *(["each pair"] if pairs else [])]
    rows = [
        [component(name), *_form(size, pairs=pairs), bytes_text(size.at(tokens, row))]
        for name, size in peak.candidate.shares.items()
        if size.at(tokens, row) >= 1
    ]
    if peak.candidate.has_tile and peak.tile_bytes:
        fixed = [bytes_text(peak.tile_bytes), "", *([""] if pairs else [])]
        rows.append([f"tile of the {plan.loss} loss", *fixed, bytes_text(peak.tile_bytes)])
    return table(rows, header=[*header, "together"], indent="  ", right=range(1, len(header) + 1))


def _form(size: Size, *, pairs: bool) -> list[str]:
    parts = [bytes_text(size.once) if size.once else "", _each(size.per_token)]
    return [*parts, _each(size.per_pair)] if pairs else parts


def _each(num_bytes: float) -> str:
    return f"{num_bytes:,.0f} B".replace(",", " ") if num_bytes else ""


def _ingredients(model: Model, plan: Plan) -> list[tuple[str, str, str]]:
    """Weights by type, what trains, and what a layer keeps."""
    trained, width = weights.trained_params(model, plan), precision.trained_width(plan)
    resident, paged = weights.optimizer_bytes(model, plan)
    shares = sharding.shares_of(plan)
    rows = [
        *_weights(model, plan),
        _row("trained", f"{count_text(trained)} weights", f"{_type(plan, width)}"),
        _row("gradients", bytes_text(weights.gradient_bytes(model, plan)), f"{width} B a weight"),
        _row("optimizer", bytes_text(resident), _per(resident, trained, plan.optimizer.name)),
        _row("paged states", bytes_text(paged), "there for the step only") if paged else None,
        *_layers(model, plan),
    ]
    if plan.num_gpus > 1:
        divided = f"weights by {shares.weights}, gradients by {shares.gradients}"
        rows.append(_row("on each GPU", plan.engine.name, f"{divided}, states by {shares.states}"))
    return [row for row in rows if row]


def _row(name: str, value: str, reason: str) -> tuple[str, str, str]:
    return name, value, reason


def _per(num_bytes: float, trained: int, name: str) -> str:
    return f"{name}, {num_bytes / trained:.3g} B a trained weight" if trained else name


def _weights(model: Model, plan: Plan) -> list[tuple[str, str, str]]:
    """The base by the types it is stored in."""
    whole = weights.base_bytes(model, plan)
    if plan.base_bits == 16:
        return [_row("weights", bytes_text(whole), _wide(model, plan))]
    narrow = weights.linear_params(model, plan)
    scales, leftover = weights.scale_bytes(model, plan), precision.leftover_width(plan)
    rest = model.num_params - narrow
    packed = any(m.is_stack and m.quantizable for m in weights.matrices(model, plan))
    count = f"{count_text(narrow)} in {plan.base_bits} bits: the layers' linears"
    count += ", experts" if packed else ""
    beside = f"{count_text(rest)} in {_type(plan, leftover)}: embeddings, head, norms"
    beside += ", experts" if model.experts and not packed else ""
    return [
        _row("weights", bytes_text(narrow * plan.base_bits / 8), count),
        _row("", bytes_text(scales), "scales of the quantized blocks"),
        _row("", bytes_text(leftover * rest), beside),
    ]


def _wide(model: Model, plan: Plan) -> str:
    """Like "70 553 706 496 in bf16"; frozen parts beside trained fp32 stay in 16 bits."""
    width, frozen = precision.base_width(plan), model.vision_params
    if plan.method.trains_base:
        frozen = model.num_params - weights.trained_params(model, plan)
    if width == 2 or not frozen:
        return f"{count_text(model.num_params)} in {_type(plan, width)}"
    trained = f"{count_text(model.num_params - frozen)} in {_type(plan, width)}"
    return f"{trained}, {count_text(frozen)} frozen in {_type(plan, 2)}"


def _type(plan: Plan, width: int) -> str:
    if width == 4:
        return "fp32"
    return "fp16" if plan.precision.startswith("fp16") else "bf16"


def _layers(model: Model, plan: Plan) -> list[tuple[str, str, str]]:
    """What a token leaves behind in a layer of each make, and what a recomputed layer keeps."""
    net = network(model, plan)
    rows = []
    for layers in net.layers:
        kind = layers.kind
        make = " with experts" if kind.has_experts else ""
        make += " with a window" if kind.is_sliding else ""
        saved = layers.profile.saved
        pair = f", {_each(saved.per_pair)} a pair of tokens" if saved.per_pair else ""
        kept = f"a token leaves in each of {kind.count} layers{make}{pair}"
        rows.append(_row("a layer", _each(saved.per_token), kept))
    if plan.checkpointing:
        words = "is kept of a token instead: layers are computed again"
        rows.append(_row("recomputed", _each(net.entry.per_token), words))
    return rows


def _device(estimate: MemoryEstimate, width: int, *, on_gpu: bool) -> list[str]:
    outside = [
        _row("allocated", bytes_text(estimate.allocated_bytes), "all tensors at the peak"),
        _row("fragmentation", bytes_text(estimate.fragmentation_bytes), _worst(estimate)),
        _row(
            component("context", on_gpu=on_gpu),
            bytes_text(estimate.context_bytes),
            "of every process that uses the GPU" if on_gpu else "libraries, outside the tensors",
        ),
    ]
    if estimate.communication_bytes:
        outside.append(_row("NCCL", bytes_text(estimate.communication_bytes), "its buffers"))
    ends = f"{bytes_text(estimate.low_bytes)} to {bytes_text(estimate.high_bytes)}"
    reasons = "; ".join(estimate.reasons)
    outside.append(_row("expected", bytes_text(estimate.expected_bytes), f"{ends}: {reasons}"))
    if on_gpu:
        low, middle, high = (bytes_text(number) for number in estimate.counted_bytes)
        words = f"{low} to {high}: what torch.cuda.max_memory_allocated() will say"
        outside.append(_row("torch counts", middle, words))
    return table(outside, indent="  ", width=width)


def _worst(estimate: MemoryEstimate) -> str:
    worst = estimate.reserved_high_bytes - estimate.allocated_bytes
    return f"up to {bytes_text(worst)}: free blocks that cannot be used again"
