"""A mixture of experts as operations on a tape, as transformers 5 runs it: one grouped matmul.

Tokens are copied for each expert they visit, sorted by expert, and summed back (grouped_mm of
transformers' integrations/moe.py). Adapters on experts are PEFT's target parameters: their product
is a weight-sized tensor of its own. So is what experts of 4 bits are made whole to. Both live to
the end of the pass (torch's parametrizations cache them) and are kept for the inputs' gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.graph.expert_modules import looped
from advisor.graph.matmuls import DEQUANTIZED_SCALES
from advisor.graph.modules import INDEX, LayerModules
from advisor.registry.low_rank import OWN_EXPERTS, ROUTER
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

RESTORE: Final = "restore"
"""Name of the operation that makes weights of few bits whole for others than the next."""


def mixture(modules: LayerModules, x: Value, experts: Experts) -> Value:
    """Router, routed experts, and the shared ones that every token visits."""
    h = modules.model.hidden_size
    shares = _router(modules, x, experts)
    routed = looped if modules.plan.framework.expert_modules else _routed
    out = routed(modules, x, shares, experts)
    if experts.shared_width:
        shared = _shared(modules, x, experts)
        out = modules.add(out, shared)
    assert out.elements == h
    return out


def _router(modules: LayerModules, x: Value, experts: Experts) -> Value:
    """Scores of all experts, fp32 softmax, the best k with their weights."""
    h, n, k = modules.model.hidden_size, experts.num_experts, experts.top_k
    plan = modules.plan
    rank = plan.method.rank(plan.settings, modules.model, ROUTER) if modules.adapts else 0
    trains = modules.trains or (modules.adapts and plan.settings.trains_router)
    count = rank * (h + n) if rank else h * n
    flow = 2 if modules.autocasts else modules.base_width
    modules.tape.add_matrix(ROUTER, h, n, rank=rank)
    scores = modules.value(
        name=ROUTER,
        inputs=(modules.cast(x, flow),),
        size=n,
        width=flow,
        saved=(x,) if rank or trains else (),
        # an adapter's product is added to the weights (PEFT's ParamWrapper)
        kept=once(h * n * modules.base_width) if rank else NOTHING,
        weight_grad=once(count * modules.trained) if rank or trains else NOTHING,
        flops=2 * h * n,
        weight_flops=2 * h * n if rank or trains else 0,
    )
    shares = modules.value("softmax", (modules.cast(scores, 4),), n, 4, saves_output=True)
    best = modules.value("top_k", (shares,), k, 4, kept=per_token(2 * INDEX * k))
    weights = modules.value("normalise", (best,), k, 4, saved=(best,))
    return weights if modules.model.model_type in FP32_ROUTED else modules.cast(weights, x.width)


def _routed(modules: LayerModules, x: Value, shares: Value, experts: Experts) -> Value:
    """Every chosen expert's gated MLP on its copy of the token."""
    h, f, k = modules.model.hidden_size, experts.width, experts.top_k
    start = len(modules.tape.ops)
    picked = modules.value("gather", (x,), k * h, x.width, kept=per_token(INDEX * k))
    both = _grouped(modules, picked, "gate_up", (h, 2 * f, experts.num_experts), k)
    gate, up = modules.tape.part(both, k * f), modules.tape.part(both, k * f)
    product = modules.gated(gate, up)
    down = _grouped(modules, product, "down", (f, h, experts.num_experts), k)
    width = max(down.width, shares.width)
    weighed = modules.value(
        name="weigh",
        inputs=(modules.promoted(down, width), shares),
        size=k * h,
        width=width,
        saved=(down, shares),
        back_work=per_token(k * h * width),
    )
    ordered = modules.value("gather", (weighed,), k * h, weighed.width, kept=per_token(INDEX * k))
    summed = modules.value("sum", (ordered,), h, ordered.width)
    result = modules.cast(summed, x.width)
    made = {"gate_up.lora_B", "down.lora_B"} if _rank(modules, "down") else {RESTORE}
    cached = [op.output for op in modules.tape.ops[start:] if op.name in made]
    modules.tape.hold(picked, shares, *cached)
    return result


def _rank(modules: LayerModules, name: str) -> int:
    """Of an adapter on the experts: PEFT gives the joined gate and up the ranks of both."""
    plan = modules.plan
    rank = plan.method.expert_rank(plan.settings) if modules.adapts else 0
    return rank * (2 if name == "gate_up" else 1)


def _restored(modules: LayerModules, weights: int) -> Value:
    """All experts' matrices out of their 4 bits; the scales come out of their 8 bits first."""
    scales = DEQUANTIZED_SCALES * weights if modules.framework.double_quant else 0
    width = modules.base_width
    return modules.tape.op(RESTORE, (), once(width * weights), width, work=once(scales))


def _packs(modules: LayerModules) -> bool:
    """The routed experts have 4 bits."""
    own = modules.model.model_type in OWN_EXPERTS
    return modules.plan.quantizes_experts and not modules.trains and not own


def _grouped(
    modules: LayerModules, x: Value, name: str, shape: tuple[int, int, int], top_k: int
) -> Value:
    """A matmul of sorted tokens with their experts' slices of one weight tensor."""
    n_in, n_out, count = shape
    weights, flops = n_in * n_out * count, 2 * top_k * n_in * n_out
    width = modules.base_width
    x = modules.cast(x, width)
    rank, quantized = _rank(modules, name), _packs(modules)
    modules.tape.add_matrix(name, n_in, n_out, copies=count, rank=rank, quantizable=quantized)
    whole = (_restored(modules, weights),) if quantized else ()
    if rank:
        whole = (_adapted(modules, name, weights, rank * (n_in + n_out) * count),)
    grad, work = modules.weight_gradient(weights, width) if modules.trains else (NOTHING, NOTHING)
    return modules.value(
        name=name,
        inputs=(x, *whole) if rank else (x,),
        size=top_k * n_out,
        width=width,
        saved=((x,) if rank or modules.trains else ()) + (whole if x.needs_grad else ()),
        weight_grad=grad,
        back_work=work,
        flops=flops,
        weight_flops=flops if modules.trains else 0,
    )


def _adapted(modules: LayerModules, name: str, weights: int, factors: int) -> Value:
    """All experts' matrices with what their adapters add, as PEFT's ParamWrapper makes them.

    Their gradient is as large, and the factors' come out of it. What was restored for it is let go.
    """
    tape, width = modules.tape, modules.base_width
    restored = [op.output for op in tape.ops[-1:] if op.name == RESTORE]
    grad, work = modules.weight_gradient(factors, width)
    added = tape.op(
        f"{name}.lora_B",
        (),
        once(weights * width),
        width,
        kept=once(factors * width) if modules.trained != width else NOTHING,
        weight_grad=grad,
        back_work=work,
        weight_flops=1,
    )
    tape.hold(*restored)
    return added


def _shared(modules: LayerModules, x: Value, experts: Experts) -> Value:
    h, f = modules.model.hidden_size, experts.shared_width
    gate = modules.linear(x, "gate_proj", h, f)
    up = modules.linear(x, "up_proj", h, f)
    out = modules.linear(modules.gated(gate, up), "down_proj", f, h)
    if not experts.shared_gate:
        return out
    score = modules.linear(x, "shared_gate", h, 1)
    score = modules.value("sigmoid", (score,), 1, score.width, saves_output=True)
    return modules.value(
        name="weigh",
        inputs=(out, score),
        size=h,
        width=out.width,
        saved=(out, score),
        back_work=per_token(h * out.width),
    )
