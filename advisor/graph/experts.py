"""A mixture of experts as operations on a tape, as transformers 5 runs it: one grouped matmul.

Tokens are copied for each expert they visit, sorted by expert, and summed back (grouped_mm of
transformers' integrations/moe.py). Adapters on experts are PEFT's target parameters: their product
is a weight-sized tensor of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.graph.expert_modules import looped
from advisor.graph.pieces import INDEX, Pieces
from advisor.precision import base_width
from advisor.tape import NOTHING, Value, once, per_token

if TYPE_CHECKING:
    from profiles.facts import Experts


FP32_ROUTED: Final = frozenset(
    {
        *("deepseek_v2", "deepseek_v3", "dots1", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa"),
        *("minimax_m2", "nemotron_h"),
    }
)
"""Families whose routing weights stay fp32, and so the products with them."""


def mixture(pieces: Pieces, x: Value, experts: Experts) -> Value:
    """Router, routed experts, and the shared ones that every token visits."""
    h = pieces.model.hidden_size
    shares = _router(pieces, x, experts)
    routed = looped if pieces.plan.stack.expert_modules else _routed
    out = routed(pieces, x, shares, experts)
    if experts.shared_width:
        shared = _shared(pieces, x, experts)
        out = pieces.add(out, shared)
    assert out.elements == h
    return out


def _router(pieces: Pieces, x: Value, experts: Experts) -> Value:
    """Scores of all experts, fp32 softmax, the best k with their weights."""
    h, n, k = pieces.model.hidden_size, experts.num_experts, experts.top_k
    grad = once(h * n * pieces.trained) if pieces.trains else NOTHING
    flow = 2 if pieces.autocasts else base_width(pieces.plan)
    pieces.tape.add_matrix("router", h, n)
    scores = pieces.value(
        name="router",
        inputs=(pieces.cast(x, flow),),
        size=n,
        width=flow,
        saved=(x,) if pieces.trains else (),
        weight_grad=grad,
        flops=2 * h * n,
        weight_flops=2 * h * n if pieces.trains else 0,
    )
    shares = pieces.value("softmax", (pieces.cast(scores, 4),), n, 4, saves_output=True)
    best = pieces.value("top_k", (shares,), k, 4, kept=per_token(2 * INDEX * k))
    weights = pieces.value("normalise", (best,), k, 4, saved=(best,))
    return weights if pieces.model.model_type in FP32_ROUTED else pieces.cast(weights, x.width)


def _routed(pieces: Pieces, x: Value, shares: Value, experts: Experts) -> Value:
    """Every chosen expert's gated MLP on its copy of the token."""
    h, f, k = pieces.model.hidden_size, experts.width, experts.top_k
    picked = pieces.value("gather", (x,), k * h, x.width, kept=per_token(INDEX * k))
    both = _grouped(pieces, picked, "gate_up", (h, 2 * f, experts.num_experts), k)
    gate, up = pieces.tape.part(both, k * f), pieces.tape.part(both, k * f)
    product = pieces.gated(gate, up)
    down = _grouped(pieces, product, "down", (f, h, experts.num_experts), k)
    width = max(down.width, shares.width)
    weighed = pieces.value(
        name="weigh",
        inputs=(pieces.promoted(down, width), shares),
        size=k * h,
        width=width,
        saved=(down, shares),
        back_work=per_token(k * h * width),
    )
    ordered = pieces.value("gather", (weighed,), k * h, weighed.width, kept=per_token(INDEX * k))
    summed = pieces.value("sum", (ordered,), h, ordered.width)
    return pieces.cast(summed, x.width)


def _grouped(pieces: Pieces, x: Value, name: str, shape: tuple[int, int, int], top_k: int) -> Value:
    """A matmul of sorted tokens with their experts' slices of one weight tensor.

    Adapted, the tensor's sum with the product of its low-rank factors is made whole and kept
    (PEFT's ParamWrapper); its gradient is as large again.
    """
    n_in, n_out, count = shape
    weights, flops = n_in * n_out * count, 2 * top_k * n_in * n_out
    width = base_width(pieces.plan)
    x = pieces.cast(x, width)
    # PEFT gives the joined gate and up the ranks of both.
    plan = pieces.plan
    rank = plan.method.expert_rank(plan.settings) * (2 if name == "gate_up" else 1)
    pieces.tape.add_matrix(name, n_in, n_out, copies=count, rank=rank)
    if rank:
        factors = rank * (n_in + n_out) * count
        whole, casts = once(weights * width), once(factors * width)
        grad, work = pieces.weight_gradient(factors, width)
        work, kept = work.plus(whole), whole.plus(casts)
    elif pieces.trains:
        (grad, work), kept = pieces.weight_gradient(weights, width), NOTHING
    else:
        grad = work = kept = NOTHING
    return pieces.value(
        name=name,
        inputs=(x,),
        size=top_k * n_out,
        width=width,
        saved=(x,) if rank or pieces.trains else (),
        kept=kept,
        weight_grad=grad,
        back_work=work,
        flops=flops,
        weight_flops=flops if rank or pieces.trains else 0,
    )


def _shared(pieces: Pieces, x: Value, experts: Experts) -> Value:
    h, f = pieces.model.hidden_size, experts.shared_width
    gate = pieces.linear(x, "gate_proj", h, f)
    up = pieces.linear(x, "up_proj", h, f)
    out = pieces.linear(pieces.gated(gate, up), "down_proj", f, h)
    if not experts.shared_gate:
        return out
    score = pieces.linear(x, "shared_gate", h, 1)
    score = pieces.value("sigmoid", (score,), 1, score.width, saves_output=True)
    return pieces.value(
        name="weigh",
        inputs=(out, score),
        size=h,
        width=out.width,
        saved=(out, score),
        back_work=per_token(h * out.width),
    )
