"""A decoder layer, written down as its model's code computes it.

Decides which modules a family's layer has and in which order; each module is in modules.py and
experts.py. A model's layers differ in two ways that matter: attention over a window or over all
tokens, and a dense MLP or experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from advisor.graph.attention import attend, attention_of, behind_prefix, keys_per_query, rotary
from advisor.graph.experts import mixture
from advisor.graph.modules import LayerModules
from advisor.graph.outer import reaches_input
from advisor.registry.engines import SINGLE
from advisor.registry.optimizers import ADAMW
from advisor.tape import Tape, Value, per_token

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Latent, Model


@dataclass(frozen=True, slots=True)
class Kind:
    """Layers of one make."""

    count: int
    has_experts: bool
    is_sliding: bool
    is_adapted: bool = True
    """The method adds to them what it adds, or trains them."""
    has_graph: bool = True
    """Gradients pass through them: something trains in them or before them, if only an input."""


def kinds(model: Model, plan: Plan) -> tuple[Kind, ...]:
    """The makes of a model's layers under a plan; which of the dense ones slide is in proportion.

    A window that holds the whole row makes no difference: transformers then leaves the mask out.
    """
    experts = model.experts.num_layers if model.experts else 0
    sliding = model.num_sliding_layers if window_cuts(model, plan) else 0
    found: list[Kind] = []
    start = 0
    for has_experts, count in ((False, model.num_layers - experts), (True, experts)):
        slides = round(sliding * count / model.num_layers)
        for number, slide in ((count - slides, False), (slides, True)):
            found += _treated(Kind(number, has_experts, slide), model, plan, start)
            start += number
    return tuple([kind for kind in found if kind.count > 0])


def _treated(kind: Kind, model: Model, plan: Plan, start: int) -> Iterator[Kind]:
    """Layers from number `start` on: before all that the method treats, those, and the others."""
    method, layers = plan.method, plan.settings.adapted_layers(model.num_layers)
    lowest = 0 if _asks(model, plan) or not layers else layers[0]
    below = min(max(lowest - start, 0), kind.count)
    treated = sum([start <= number < start + kind.count for number in layers])
    treated = treated if layers or method.trains_base else kind.count
    yield replace(kind, count=below, is_adapted=False, has_graph=False)
    yield replace(kind, count=treated)
    yield replace(kind, count=kind.count - below - treated, is_adapted=False)


def _asks(model: Model, plan: Plan) -> bool:
    """The first layer's input has a gradient: TRL and PEFT ask for one where checkpoints are."""
    return reaches_input(model, plan) or (plan.method.asks_for_input and plan.checkpointing)


def window_cuts(model: Model, plan: Plan) -> bool:
    """Rows reach beyond the sliding window."""
    row = plan.tokens_per_micro_batch if plan.packing else plan.seq_len
    return model.sliding_window is not None and row >= model.sliding_window


@lru_cache(maxsize=256)  # several tables ask for one plan in turn
def any_batch(model: Model, plan: Plan) -> Plan:
    """One plan for all that differ in the batch alone, as far as tapes depend on that.

    They do so where there are several rows, several micro-batches, or rows beyond a window.
    """
    return replace(plan, **_batch(model, plan))


@lru_cache(maxsize=256)
def any_devices(model: Model, plan: Plan) -> Plan:
    """The same for plans that differ in optimizer, offload and devices too.

    Whether weights are gathered matters to the operations; by which engine does not.
    """
    engine, num_gpus = (plan.engine, 2) if plan.shards_weights else (SINGLE, 1)
    devices: dict[str, Any] = {"engine": engine, "num_gpus": num_gpus}
    return replace(plan, optimizer=ADAMW, offload="", **devices, **_batch(model, plan))


def _batch(model: Model, plan: Plan) -> dict[str, Any]:
    seq_len = (model.sliding_window or 1) if window_cuts(model, plan) else 1
    if plan.settings.num_prefix_keys:
        seq_len = plan.seq_len  # of each row's share in them
    return {
        "seq_len": seq_len,
        "micro_batch": min(2, plan.micro_batch),
        "accumulation": min(2, plan.accumulation),
    }


def layer_tape(
    model: Model, plan: Plan, kind: Kind, *, stream: int, trains: bool = True, first: bool = False
) -> Tape:
    """One layer on a residual stream of `stream` bytes an element.

    `first`: nothing before the layer trains, so its input needs no gradient. `trains`: its own
    weights do, where the method trains weights at all.
    """
    entry = per_token(stream * model.hidden_size)
    tape = Tape(entry, stream, needs_grad=not first)
    modules = LayerModules(
        tape, model, plan, trains=trains and kind.is_adapted, adapts=kind.is_adapted
    )
    x = tape.entry
    if model.parallel:
        _parallel(modules, x, kind)
    else:
        x = _branch(modules, x, _attention, kind)
        _branch(modules, x, _mlp, kind)
    return tape


Module = Callable[[LayerModules, Value, Kind], Value]


def _branch(modules: LayerModules, x: Value, compute: Module, kind: Kind) -> Value:
    """Norm, compute, and add to the stream; some families norm the branch again, or only then."""
    model, h = modules.model, modules.model.hidden_size
    if model.is_encoder:
        return _summed_then_normed(modules, x, compute, kind)
    after_only = model.model_type in {"olmo2", "olmo3", "exaone4"}
    y = x if after_only else modules.norm(x, h)
    entered, y = y, compute(modules, y, kind)
    modules.tape.hold(entered)
    if after_only or model.norms_per_layer == 4:
        y = modules.norm(y, h)
    if model.model_type.startswith("granite"):
        y = modules.value("scale", (y,), h, y.width)
    return modules.add(x, y)


def _summed_then_normed(modules: LayerModules, x: Value, compute: Module, kind: Kind) -> Value:
    """BERT's order; of what is computed a share is dropped, by a mask of a byte an element."""
    h = modules.model.hidden_size
    y = compute(modules, x, kind)
    y = modules.value("dropout", (y,), h, y.width, kept=per_token(h))
    return modules.norm(modules.add(x, y), h)


def _parallel(modules: LayerModules, x: Value, kind: Kind) -> Value:
    """Attention and MLP beside each other, each on its own norm or both on one."""
    h = modules.model.hidden_size
    y = modules.norm(x, h)
    z = modules.norm(x, h) if modules.model.norms_per_layer == 2 else y
    return modules.add(modules.add(_attention(modules, y, kind), _mlp(modules, z, kind)), x)


def _attention(modules: LayerModules, x: Value, kind: Kind) -> Value:
    return modules.behind(x, _attended(modules, x, kind), "attention")


def _mlp(modules: LayerModules, x: Value, kind: Kind) -> Value:
    return modules.behind(x, _fed_forward(modules, x, kind), "mlp")


def _attended(modules: LayerModules, x: Value, kind: Kind) -> Value:
    model = modules.model
    if model.latent:
        q, k, v = _latent_qkv(modules, x, model.latent)
    else:
        q, k, v = _qkv(modules, x)
    if (longer := keys_per_query(modules.plan)) > 1:
        k, v = (behind_prefix(modules, x, longer) for x in (k, v))
    heads = model.num_heads
    masked = is_masked(model, modules.plan, kind)
    out = attend(modules, q, k, v, heads=heads, masked=masked)
    out = modules.beside_attention(q, out)
    if _keeps_heads_first(model, modules.plan, masked=masked):
        out = modules.value("contiguous", (out,), out.elements, out.width)
    return modules.linear(out, "o_proj", round(out.elements), model.hidden_size)


PARTLY_ROTARY: Final = frozenset(
    {
        *("phi", "phi3", "gpt_neox", "gptj", "glm", "glm4", "glm4_moe", "stablelm", "persimmon"),
        *("nemotron", "minimax_m2"),
    }
)
"""Families that rotate a part of each head and join it to the rest: a new, heads-first tensor."""


def _keeps_heads_first(model: Model, plan: Plan, *, masked: bool) -> bool:
    """Flash attention's result is laid out like its queries; heads first, the linear copies it."""
    if plan.framework.heads_first:
        return not plan.framework.efficient_attention
    return attention_of(model, plan) == "sdpa" and not masked and model.model_type in PARTLY_ROTARY


def is_masked(model: Model, plan: Plan, kind: Kind) -> bool:
    """SDPA gets an explicit mask where rows are padded or packed, or the layer slides."""
    attention = attention_of(model, plan)
    if attention != "sdpa":
        return attention == "eager"
    if plan.shifted_attention:  # rows of one length, and none that is padded is divided so
        return False
    padded = (plan.packing or plan.sequences > 1) and not plan.framework.unmasked
    return padded or kind.is_sliding or plan.settings.num_prefix_keys > 0


def _qkv(modules: LayerModules, x: Value) -> tuple[Value, Value, Value]:
    model, tape = modules.model, modules.tape
    h, q_width, kv_width = model.hidden_size, model.query_width, model.kv_width
    if model.fused_qkv:
        if modules.plan.framework.grouped_adapters:
            whole = modules.grouped_linear(x, "qkv_proj", h, (q_width, kv_width, kv_width))
        else:
            whole = modules.linear(x, "qkv_proj", h, q_width + 2 * kv_width)
        q, k, v = (tape.part(whole, n) for n in (q_width, kv_width, kv_width))
    else:
        q = modules.linear(x, "q_proj", h, q_width)
        k = modules.linear(x, "k_proj", h, kv_width)
        v = modules.linear(x, "v_proj", h, kv_width)
    if model.qk_norm:
        whole_width = model.qk_norm == "full"
        q = modules.norm(q, q_width if whole_width else model.head_dim)
        k = modules.norm(k, kv_width if whole_width else model.head_dim)
    if model.num_positions:
        return q, k, v
    return rotary(modules, q), rotary(modules, k), v


def _latent_qkv(modules: LayerModules, x: Value, latent: Latent) -> tuple[Value, Value, Value]:
    """DeepSeek's queries and keys: a part without positions and a rotary part, joined again."""
    model, tape = modules.model, modules.tape
    h, heads = model.hidden_size, model.num_heads
    wide = heads * (latent.nope_dim + latent.rope_dim)
    if latent.query_rank is None:
        q = modules.linear(x, "q_proj", h, wide)
    else:
        low = modules.linear(x, "q_a_proj", h, latent.query_rank)
        low = modules.norm(low, latent.query_rank)
        q = modules.linear(low, "q_b_proj", latent.query_rank, wide)
    both = modules.linear(x, "kv_a_proj_with_mqa", h, latent.kv_rank + latent.rope_dim)
    low, k_rope = tape.part(both, latent.kv_rank), tape.part(both, latent.rope_dim)
    low = modules.norm(low, latent.kv_rank)
    kv = modules.linear(
        low, "kv_b_proj", latent.kv_rank, heads * (latent.nope_dim + latent.value_dim)
    )
    k_nope, v = tape.part(kv, heads * latent.nope_dim), tape.part(kv, heads * latent.value_dim)
    q_nope, q_rope = tape.part(q, heads * latent.nope_dim), tape.part(q, heads * latent.rope_dim)
    q = modules.value("join", (q_nope, rotary(modules, q_rope)), wide, q.width)
    k = modules.value("join", (k_nope, rotary(modules, k_rope)), wide, q.width)
    return q, k, v


def _fed_forward(modules: LayerModules, x: Value, kind: Kind) -> Value:
    model = modules.model
    if kind.has_experts and model.experts:
        return mixture(modules, x, model.experts)
    h, f = model.hidden_size, model.intermediate_size
    if not model.gated_mlp:
        inner = modules.activated(modules.linear(x, "up_proj", h, f))
    elif model.fused_gate_up:
        both = modules.linear(x, "gate_up_proj", h, 2 * f)
        inner = modules.gated(modules.tape.part(both, f), modules.tape.part(both, f))
    else:
        inner = modules.gated(
            modules.linear(x, "gate_proj", h, f), modules.linear(x, "up_proj", h, f)
        )
    return modules.linear(inner, "down_proj", f, h)
