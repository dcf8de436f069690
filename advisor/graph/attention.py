"""Attention as operations on a tape: rotary positions, and softmax by each of torch's kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from advisor.tape import Value, per_pair, per_token

if TYPE_CHECKING:
    from advisor.graph.matmuls import Matmuls
    from advisor.plan import Plan
    from profiles.facts import Model

GROUPS: Final = 4
"""Into which shifted sparse attention divides a row (LongLoRA, arXiv 2309.12307)."""
STATISTIC: Final = 4
"""Bytes of a row's fp32 statistic."""
SOFTCAPPED: Final = frozenset({"gemma2"})
"""Families that squeeze attention scores and logits through tanh."""
WITHOUT_SDPA: Final = SOFTCAPPED | {"gpt_oss"}
"""Families whose attention transformers runs eagerly unless flash-attn is asked for."""
READ_ACROSS: Final = frozenset({"opt", "bloom", "falcon", "mpt", "gpt_oss", "lfm2", "qwen3_next"})
"""Documents packed into one row read each other, as measured on small models of each family."""


def attention_of(model: Model, plan: Plan) -> str:
    """The attention that transformers takes for this family."""
    if plan.attention != "sdpa":
        return plan.attention
    if model.model_type in WITHOUT_SDPA:
        return "eager"
    if plan.framework.unfused_attention:
        return "math"
    # Falcon-7B hands its one key head over as it is, which only SDPA's plain math takes.
    return "math" if model.model_type == "falcon" and model.num_kv_heads == 1 else "sdpa"


def rotary(tape: Matmuls, x: Value) -> Value:
    """Make x cos + rotate_half(x) sin: products and the rotated copy pass by."""
    if tape.plan.framework.fused_rope:
        return tape.value("rotary", (x,), x.elements, x.width, hands_on=True)
    passing = per_token(2 * x.elements * x.width)
    return tape.value("rotary", (x,), x.elements, x.width, work=passing, back_work=passing)


def keys_per_query(plan: Plan) -> float:
    """Over those of a row: more where each layer has keys of the method's own before them."""
    if plan.shifted_attention:
        return 1 / GROUPS
    return 1 + plan.settings.num_prefix_keys / plan.seq_len


def behind_prefix(tape: Matmuls, x: Value, share: float) -> Value:
    """Keys or values with a trained prefix before them, as a cache joins and keeps them."""
    joined = tape.value(
        name="join",
        inputs=(x,),
        size=x.elements * share,
        width=x.width,
        hands_on=True,
        weight_flops=1,
    )
    tape.tape.cached.append(joined)
    return joined


def attend(tape: Matmuls, q: Value, k: Value, v: Value, *, heads: int, masked: bool) -> Value:
    """Softmax attention by the plan's kernel; the result has v's width for every head."""
    if tape.autocasts:
        q, k, v = (tape.cast(x, 2) for x in (q, k, v))
    if tape.plan.shifted_attention:
        if tape.model.num_kv_heads % 2:  # one is of both halves of the heads
            k, v = (tape.value("repeat_kv", (x,), q.elements, x.width) for x in (k, v))
        q, k, v = (_shifted(tape, x) for x in (q, k, v))
        return _shifted(tape, _attend(tape, q, k, v, heads=heads, masked=masked))
    return _attend(tape, q, k, v, heads=heads, masked=masked)


def _shifted(tape: Matmuls, x: Value) -> Value:
    """Half of the heads rolled, and joined with the others."""
    passing = per_token(x.elements * x.width / 2)
    return tape.value("shift", (x,), x.elements, x.width, work=passing, back_work=passing)


def _attend(tape: Matmuls, q: Value, k: Value, v: Value, *, heads: int, masked: bool) -> Value:
    kernel, longer = attention_of(tape.model, tape.plan), keys_per_query(tape.plan)
    if kernel == "eager":
        return _eager(tape, q, k, v, heads * longer)
    if kernel == "math":
        return _math(tape, q, k, v, heads * longer)
    if tape.plan.attention == "flash":
        # transformers casts for flash-attn, which knows 16-bit types only.
        q, k, v = tape.cast(q, 2), tape.cast(k, 2), tape.cast(v, 2)
    if masked or tape.plan.framework.expanded_kv:
        k, v = _expanded(tape, k, q), _expanded(tape, v, q)
    size = q.elements * v.elements / k.elements
    pairs = 2 * (q.elements + size) * longer
    kept = per_token(STATISTIC * heads)
    back = per_token(STATISTIC * heads)
    if masked and tape.plan.attention == "sdpa":
        # aten turns the boolean mask into numbers once a call.
        kept = kept.plus(per_pair(q.width * longer))
    elif not tape.plan.framework.efficient_attention:
        # flash-attn 2: fp32 sums of dq; dk and dv for every query head where heads share them.
        shared = 2 * (q.elements - k.elements) * q.width
        back = back.plus(per_token(4 * q.elements + shared))
    return tape.value(
        name="attention",
        inputs=(q, k, v),
        size=size,
        width=q.width,
        saved=(q, k, v),
        saves_output=True,
        kept=kept,
        back_work=back,
        pair_flops=pairs,
    )


def _expanded(tape: Matmuls, x: Value, q: Value) -> Value:
    """Keys or values for every query head; a single one is only looked at several times."""
    elements = q.elements * keys_per_query(tape.plan)
    if x.elements == elements:
        return x
    if tape.model.num_kv_heads == 1 and not tape.plan.framework.heads_first:
        return tape.tape.expanded(x, elements)
    return tape.value("repeat_kv", (x,), elements, x.width)


def _eager(tape: Matmuls, q: Value, k: Value, v: Value, heads: float) -> Value:
    """Scores as tensors: product, scaled, masked, fp32 softmax, cast, times v.

    `heads`: as many times as there are keys for a query.
    """
    k, v = _expanded(tape, k, q), _expanded(tape, v, q)
    width, n = q.width, heads
    scores = _pairs(tape, "scores", (q, k), n, width, saved=(q, k), flops=2 * q.elements)
    scores = _pairs(tape, "scale", (scores,), n, width)
    if tape.model.model_type in SOFTCAPPED:
        scores = _pairs(tape, "divide", (scores,), n, width)
        scores = _pairs(tape, "tanh", (scores,), n, width, saves_output=True)
        scores = _pairs(tape, "multiply", (scores,), n, width)
    scores = _pairs(tape, "mask", (scores,), n, width, hands_on=True)
    if width != 4 and tape.plan.precision != "fp16":
        # Only fp16 scores are read as they are by the fp32 softmax (aten softmax, CUDA).
        scores = _pairs(tape, "cast", (scores,), n, 4)
    # CUDA's softmax backward makes grad * output first (aten SoftMax.cu).
    shares = _pairs(
        tape,
        name="softmax",
        inputs=(scores,),
        heads=n,
        width=4,
        saves_output=True,
        back_work=per_pair(4 * n),
    )
    if width != 4:
        shares = _pairs(tape, "cast", (shares,), n, width)
    out = tape.tape.op(
        "attention",
        (shares, v),
        per_token(q.elements * width),
        width,
        saved=(shares, v),
        pair_flops=2 * q.elements,
    )
    return tape.value("contiguous", (out,), q.elements, width)


def _math(tape: Matmuls, q: Value, k: Value, v: Value, heads: float) -> Value:
    """SDPA without a kernel: scaled fp32 queries and keys, fp32 scores (attention.cpp)."""
    width, n = q.width, heads
    wide = width if tape.plan.framework.narrow_math else 4
    v = tape.cast(v, wide)
    q, k = (tape.value("scale", (tape.cast(x, wide),), x.elements, wide) for x in (q, k))
    scores = _pairs(tape, "scores", (q, k), n, wide, saved=(q, k), flops=2 * q.elements)
    scores = _pairs(tape, "mask", (scores,), n, wide, hands_on=True)
    shares = _pairs(
        tape,
        name="softmax",
        inputs=(scores,),
        heads=n,
        width=wide,
        saves_output=True,
        back_work=per_pair(wide * n),
    )
    size = per_token(q.elements * wide)
    flops = 2 * q.elements
    out = tape.tape.op(
        name="attention",
        inputs=(shares, v),
        size=size,
        width=wide,
        saved=(shares, v),
        pair_flops=flops,
    )
    return tape.cast(out, width)


def _pairs(
    tape: Matmuls,
    name: str,
    inputs: tuple[Value, ...],
    heads: float,
    width: int,
    *,
    flops: float = 0,
    **kw: Any,
) -> Value:
    return tape.tape.op(name, inputs, per_pair(heads * width), width, pair_flops=flops, **kw)
