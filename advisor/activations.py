"""Bytes that one layer saves for its backward pass, per token, from dimensions alone.

Decides what norms, attention, MLP and the inputs of trained linears keep, for each precision,
attention, mask and subset of adapters. It does not know how many layers keep them, nor when: that
is moments.py. Symbols and "Checked" as in memory.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.precision import autocasts_adapters, autocasts_weights, element_bytes, stream_bytes
from advisor.weights import adapter_shapes, is_fused

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model


def activation_bytes(model: Model, plan: Plan, *, on_cpu: bool = False) -> int:
    """Bytes one layer saves for its backward pass, per token (§3.4). Checked."""
    inputs = _input_bytes(model, plan, on_cpu=on_cpu)
    return (
        _norm_bytes(model, plan) + _attention_bytes(model, plan) + _mlp_bytes(model, plan) + inputs
    )


def row_tokens(plan: Plan) -> int:
    """Length of a row that attention sees; packing flattens the micro-batch to one row (TRL)."""
    return plan.tokens_per_micro_batch if plan.packing else plan.seq_len


def has_mask(plan: Plan) -> bool:
    """SDPA gets an explicit mask where rows are padded or packed, else it is told "causal"."""
    return plan.attention == "sdpa" and (plan.packing or plan.micro_batch > 1)


def _norm_bytes(model: Model, plan: Plan) -> int:
    """Two RMS norms: fp32 input and 1/rms; the normalised value too where its weight trains."""
    h, q, kv = model.hidden_size, model.query_width, model.kv_width
    element, full = element_bytes(plan), plan.method == "full"
    # Gemma and OLMo 2 multiply by the weight before they cast back.
    upcast = model.model_type in {"gemma", "olmo2"}
    normalised = 4 if upcast else stream_bytes(plan)
    total = 2 * (4 * h + 4 + (normalised * h if full else 0))
    if model.qk_norm:
        total += 4 * (q + kv)
        total += 8 if model.model_type == "olmo2" else 4 * (model.num_heads + model.num_kv_heads)
        if full:
            total += (4 if upcast else element) * (q + kv)
    return total


def _attention_bytes(model: Model, plan: Plan) -> int:
    """Rotated q, k, v, the output, and the softmax statistics or the whole scores."""
    q, kv, heads, element = model.query_width, model.kv_width, model.num_heads, element_bytes(plan)
    length = row_tokens(plan)
    if plan.attention == "eager":
        scores = 4 if element == 4 else 6
        return 3 * element * q + scores * heads * length
    total = element * (2 * q + 2 * kv) + 4 * heads
    if has_mask(plan):
        # With a mask, grouped keys and values are repeated for every head, and each layer converts
        # the mask to numbers (sdpa_attention.py, aten convert_boolean_attn_mask).
        total += 2 * element * (q - kv) + element * length
    if is_fused(model):
        # v is a view: it keeps the whole q, k, v output.
        total += element * (q + kv)
    return total


def _mlp_bytes(model: Model, plan: Plan) -> int:
    """Gate before and after its activation, and up."""
    return 3 * element_bytes(plan) * model.intermediate_size


def _input_bytes(model: Model, plan: Plan, *, on_cpu: bool) -> int:
    """Inputs of the linears whose weights (or adapters) train, dropout, and the rank-r values."""
    h, q, f = model.hidden_size, model.query_width, model.intermediate_size
    element = element_bytes(plan)
    fused = is_fused(model)
    # The attention output is itself saved by SDPA, in o's own layout unless v is a view.
    shared_o = element * q if fused or plan.attention == "eager" else 0
    if plan.method == "full":
        copies = (2 if fused else 5) if autocasts_weights(plan) else 2
        return element * (copies * h + f) + shared_o
    shapes = adapter_shapes(model, plan.targets)
    adapters = element * plan.rank * len(shapes)
    if plan.dropout > 0:
        # Each adapter drops its own copy. CUDA keeps a byte mask, the CPU a factor per element.
        factor = (4 if autocasts_adapters(plan) else element) if on_cpu else 1
        return adapters + (element + factor) * sum(width for width, _ in shapes)
    if autocasts_adapters(plan):
        # The fp32 input of each fp32 adapter is cast back for its own matmul.
        return adapters + element * sum(width for width, _ in shapes)
    targets = plan.targets
    shared = h if "q_proj" in targets or "k_proj" in targets or "v_proj" in targets else 0
    shared += h if "gate_proj" in targets or "up_proj" in targets else 0
    shared += f if "down_proj" in targets else 0
    return adapters + element * shared + (shared_o if "o_proj" in targets else 0)
