"""Parameters, and the bytes that exist because of them: weights, gradients, optimizer, copies.

Decides what the base, the adapters and AdamW's states weigh, and how large the copies are that
autocast, DDP and FSDP make of weights or gradients. All are bytes of the whole model: what one
device keeps of them, and at which moment, is for moments.py to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.plan import ALL_TARGETS
from advisor.precision import (
    adapter_element_bytes,
    autocasts_adapters,
    autocasts_weights,
    base_element_bytes,
    element_bytes,
)

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

NF4_BYTES: Final = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Per weight: 4 bits, 8-bit block scales, fp32 scales of those (QLoRA paper §3)."""
TWO_8BIT_MOMENTS: Final = 2 + 2 * 4 / 256
"""Bytes per parameter; bitsandbytes keeps one fp32 scale per block of 256."""
MIN_8BIT_ELEMENTS: Final = 4096
"""Smaller tensors keep fp32 moments (bitsandbytes optimizer.py)."""
MIN_PAGED_ELEMENTS: Final = 100_000


def linear_params(model: Model) -> int:
    """Weights of the seven linears over all layers: N_l = L(2hq + 2h kv + 3hf) (§3)."""
    h = model.hidden_size
    per_layer = 2 * h * (model.query_width + model.kv_width) + 3 * h * model.intermediate_size
    return model.num_layers * per_layer


def adapter_shapes(model: Model, targets: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """(in, out) of each adapted linear of a layer; fused families join q,k,v and gate,up."""
    h, q, kv, f = model.hidden_size, model.query_width, model.kv_width, model.intermediate_size
    if is_fused(model):
        fused = []
        if "q_proj" in targets or "k_proj" in targets or "v_proj" in targets:
            fused.append((h, q + 2 * kv))
        if "o_proj" in targets:
            fused.append((q, h))
        if "gate_proj" in targets or "up_proj" in targets:
            fused.append((h, 2 * f))
        if "down_proj" in targets:
            fused.append((f, h))
        return tuple(fused)
    shapes = {
        "q_proj": (h, q),
        "k_proj": (h, kv),
        "v_proj": (h, kv),
        "o_proj": (q, h),
        "gate_proj": (h, f),
        "up_proj": (h, f),
        "down_proj": (f, h),
    }
    return tuple(shapes[name] for name in ALL_TARGETS if name in targets)


def adapter_params(model: Model, plan: Plan) -> int:
    """Trainable LoRA weights: P = L r sum(in + out) over the adapted linears (§3.1)."""
    shapes = adapter_shapes(model, plan.targets) if plan.adapts else ()
    return model.num_layers * plan.rank * sum([a + b for a, b in shapes])


def is_fused(model: Model) -> bool:
    """One linear computes q, k and v, another gate and up."""
    return model.model_type == "phi3"


def embedding_params(model: Model) -> int:
    """Weights of the embedding; as many in the head, where it is not tied."""
    return model.vocab_size * model.hidden_size


def base_bytes(model: Model, plan: Plan) -> float:
    """Base weights; 4-bit loading leaves embeddings, head, norms and biases in 16 bits (§3.2)."""
    element = base_element_bytes(plan)
    linear = NF4_BYTES if plan.method == "qlora" else element
    return linear_params(model) * linear + _other_params(model) * element


def adapter_bytes(model: Model, plan: Plan) -> int:
    """Weights of the adapters."""
    return adapter_params(model, plan) * adapter_element_bytes(plan) if plan.adapts else 0


def gradient_bytes(model: Model, plan: Plan) -> int:
    """One gradient for each trained weight, in the weight's own type."""
    if plan.method == "full":
        return model.num_params * (2 if plan.precision == "bf16_pure" else 4)
    return adapter_params(model, plan) * adapter_element_bytes(plan)


def optimizer_bytes(model: Model, plan: Plan) -> tuple[float, float]:
    """AdamW's two moments: (always on the device, only at the step because paged) (§3.3)."""
    full = plan.method == "full"
    width = 2 if plan.precision == "bf16_pure" else 4
    if plan.optimizer == "adamw":
        if full:
            return 2 * width * model.num_params, 0
        return 2 * adapter_element_bytes(plan) * adapter_params(model, plan), 0
    paged = plan.optimizer.startswith("paged")
    if full:
        # transformers' Trainer overrides nn.Embedding to 32-bit moments; a tied head goes with it.
        embedding = embedding_params(model)
        narrow = TWO_8BIT_MOMENTS * max(0, model.num_params - embedding)
        total = 8 * embedding + narrow
        return (0, total) if paged else (total, 0)
    resident = moving = 0.0
    for pair in adapter_shapes(model, plan.targets):
        for side in pair:
            count = side * plan.rank
            state = count * (TWO_8BIT_MOMENTS if count >= MIN_8BIT_ELEMENTS else 8)
            if paged and count >= MIN_PAGED_ELEMENTS:
                moving += state
            else:
                resident += state
    return resident * model.num_layers, moving * model.num_layers


def cast_bytes(model: Model, plan: Plan) -> tuple[int, int]:
    """Autocast's 2-byte copies: of one layer, of all during the forward pass (§3.2)."""
    if autocasts_weights(plan):
        # FSDP casts the gathered layer itself.
        total = 0 if plan.strategy == "fsdp" else 2 * linear_params(model)
    else:
        total = 2 * adapter_params(model, plan) if autocasts_adapters(plan) else 0
    return total // model.num_layers, total


def communication_bytes(model: Model, plan: Plan) -> int:
    """DDP's buckets, or FSDP2's gathered units and reduce buffer (§3.6)."""
    if plan.strategy == "ddp":
        return gradient_bytes(model, plan)
    if plan.strategy != "fsdp":
        return 0
    narrow = min(1.0, element_bytes(plan) / 4) if autocasts_weights(plan) else 1.0
    copies = 1 if model.tied_embeddings else 2
    outside = embedding_params(model) * copies * element_bytes(plan)
    others = _other_params(model) * base_element_bytes(plan)
    layer = narrow * (base_bytes(model, plan) - others) / model.num_layers
    # Two layers (current and prefetched); the root unit (embedding, head) stays gathered.
    reduce_buffer = gradient_bytes(model, plan) // model.num_layers
    return int(2 * layer + outside + reduce_buffer)


def _other_params(model: Model) -> int:
    """All that is no linear of a layer: embeddings, head, norms, biases."""
    return max(0, model.num_params - linear_params(model))
