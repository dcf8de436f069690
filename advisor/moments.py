"""What is alive at the three moments that can be the peak of a training step.

Decides the shares of each: loss backward, deepest layer backward, optimizer step. It knows TRL's
fused head, recomputed layers, what accumulation and paging keep where, and one device's part of a
sharded model. It adds nothing outside torch's own count: that, and which moment wins, is memory.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.activations import activation_bytes, has_mask, row_tokens
from advisor.precision import autocasts_adapters, autocasts_weights, element_bytes, stream_bytes
from advisor.weights import (
    adapter_bytes,
    base_bytes,
    cast_bytes,
    communication_bytes,
    embedding_params,
    gradient_bytes,
    is_fused,
    optimizer_bytes,
)

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

MOMENTS: Final = ("loss_backward", "layer_backward", "optimizer_step")

TILE_TOKENS: Final = 4096
TILE_VOCABULARY: Final = 32768
"""TRL 1.16: TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE; the buffer has this width always."""
CPU_TILE_BYTES: Final = 29
"""TRL's tile backward in plain torch, per tile element: five fp32 tiles and a product's parts."""


def shares_at_moments(
    model: Model, plan: Plan, *, on_cpu: bool
) -> tuple[tuple[str, dict[str, float]], ...]:
    """Bytes by component at each of `MOMENTS`, on one device."""
    sizes = _Sizes(model, plan, on_cpu=on_cpu)
    found = (_loss_backward(sizes), _layer_backward(sizes), _optimizer_step(sizes))
    return tuple(zip(MOMENTS, found, strict=True))


class _Sizes:
    """What several moments need, computed once."""

    __slots__ = (
        "activation",
        "adapters",
        "base",
        "cast_layer",
        "casts",
        "communication",
        "element",
        "embeddings",
        "gradients",
        "kept_gradients",
        "mask",
        "model",
        "moments",
        "moments_if_paged",
        "on_cpu",
        "plan",
        "residuals",
        "stream",
        "tokens",
    )

    def __init__(self, model: Model, plan: Plan, *, on_cpu: bool) -> None:
        self.model, self.plan, self.on_cpu = model, plan, on_cpu
        self.element, self.stream = element_bytes(plan), stream_bytes(plan)
        self.tokens = plan.tokens_per_micro_batch
        self.embeddings = embedding_params(model)
        self.activation = activation_bytes(model, plan, on_cpu=on_cpu) * self.tokens
        self.residuals = model.num_layers * self.stream * model.hidden_size * self.tokens
        self.mask = self.tokens * row_tokens(plan) if has_mask(plan) else 0
        self._set_static()

    def _set_static(self) -> None:
        model, plan = self.model, self.plan
        shards = plan.num_gpus if plan.strategy == "fsdp" else 1
        states = optimizer_bytes(model, plan)
        self.base = int(base_bytes(model, plan) / shards)
        self.adapters = adapter_bytes(model, plan) // shards
        self.gradients = gradient_bytes(model, plan) // shards
        self.moments, self.moments_if_paged = (int(n / shards) for n in states)
        # Between micro-batches the gradients stay; a single one frees them at the step.
        self.kept_gradients = self.gradients if plan.accumulation > 1 else 0
        self.cast_layer, self.casts = cast_bytes(model, plan)
        self.communication = communication_bytes(model, plan) if plan.num_gpus > 1 else 0


def _static_terms(sizes: _Sizes) -> dict[str, float]:
    return {
        "weights": sizes.base,
        "adapters": sizes.adapters,
        "optimizer": sizes.moments,
        "communication": sizes.communication,
    }


def _dequantized(sizes: _Sizes) -> float:
    """16-bit copy of the largest 4-bit linear and its fp32 block scales (bitsandbytes 0.50)."""
    if sizes.plan.method != "qlora":
        return 0
    h, q = sizes.model.hidden_size, sizes.model.query_width
    largest = h * max(sizes.model.intermediate_size * (2 if is_fused(sizes.model) else 1), q)
    return largest * (sizes.element + 4 / 64)


def _saved(sizes: _Sizes) -> int:
    """All activations kept at the end of the forward pass."""
    if sizes.plan.checkpointing:
        return sizes.residuals + sizes.mask
    return sizes.model.num_layers * sizes.activation + sizes.mask


def _loss_backward(sizes: _Sizes) -> dict[str, float]:
    """Moment (i): everything saved, and the head's share, which is the larger of three stages."""
    plan = sizes.plan
    shares = _static_terms(sizes)
    shares["gradients"] = sizes.kept_gradients
    shares["activations"] = _saved(sizes)
    # With checkpointing the casts die with the forward pass; else the graph holds them.
    shares["workspace"] = 0 if plan.checkpointing else sizes.casts
    head_gradient, logits, work, forward_logits = _head_stages(sizes)
    if plan.checkpointing and sizes.casts + forward_logits > head_gradient + logits + work:
        # The end of the forward pass: the casts of all layers still cached beside the loss.
        shares["workspace"] = sizes.casts
        shares["logits"] = forward_logits
        return shares
    shares["gradients"] += head_gradient
    shares["logits"] = logits
    shares["workspace"] += work
    return shares


def _head_stages(sizes: _Sizes) -> tuple[int, int, int, int]:
    """(head's gradient, logits, final norm's work) in the backward pass, logits in the forward.

    Chunked: hidden states and their fp32 gradient beside one tile (trl/kernels/chunked_logprob.py).
    Full: 12 V bytes per token, 10 V before the backward pass (§3.5). The final norm's backward
    alone takes 26 h per token in a 16-bit stream, 24 h in fp32: fp32 copies of its input and of
    each factor's gradient. [lab]
    """
    model, plan, h = sizes.model, sizes.plan, sizes.model.hidden_size
    full = plan.method == "full"
    kept = 12 if full and sizes.stream == 4 else (10 if full else 8)
    head_gradient = 0
    if full and plan.loss == "chunked":
        # Accumulated in fp32 whatever the weights are; the cast to them comes on top. With full
        # logits it is made after their peak.
        head_gradient = (6 if plan.precision == "bf16_pure" else 4) * sizes.embeddings
    if plan.loss == "chunked":
        forward = kept * h * sizes.tokens + _tile_bytes(sizes)
        logits = forward + 4 * h * sizes.tokens
    else:
        logits = kept * h * sizes.tokens + 12 * model.vocab_size * sizes.tokens
        if autocasts_weights(plan):
            logits += 2 * sizes.embeddings
        forward = logits - 2 * model.vocab_size * sizes.tokens
    norm = (26 if sizes.stream == 2 else 24) * h * sizes.tokens
    work = max(0, norm - logits)
    return head_gradient, logits, work, forward


def _tile_bytes(sizes: _Sizes) -> int:
    """One tile of TRL's fused head and what its loop allocates beside it. Checked on both paths."""
    model, element = sizes.model, sizes.element
    rows, columns = min(sizes.tokens, TILE_TOKENS), min(model.vocab_size, TILE_VOCABULARY)
    buffer = rows * TILE_VOCABULARY * element
    weight_cast = columns * model.hidden_size * element if autocasts_weights(sizes.plan) else 0
    if not sizes.on_cpu:
        return buffer + weight_cast
    return buffer + weight_cast + CPU_TILE_BYTES * rows * columns


def _layer_backward(sizes: _Sizes) -> dict[str, float]:
    """Moment (ii): one layer whole, its gradients in flight, and what the rest still holds.

    The first layer met holds all activations, the last one all gradients; the larger counts.
    """
    plan, model = sizes.plan, sizes.model
    shares = _static_terms(sizes)
    work = _layer_work(sizes)
    if plan.checkpointing:
        first = sizes.residuals + sizes.activation
    else:
        first = model.num_layers * sizes.activation
    head = sizes.embeddings * sizes.stream if plan.method == "full" else 0
    casts = sizes.cast_layer if plan.checkpointing else sizes.casts
    at_first = first + max(sizes.kept_gradients, head) + casts
    last = sizes.activation + (sizes.stream * model.hidden_size * sizes.tokens)
    at_last = last + sizes.gradients + sizes.cast_layer
    if at_first >= at_last:
        shares["gradients"] = max(sizes.kept_gradients, head)
        shares["activations"] = first + sizes.mask
    else:
        casts = sizes.cast_layer
        shares["gradients"] = sizes.gradients
        shares["activations"] = last + sizes.mask
    shares["workspace"] = work + casts + _dequantized(sizes)
    return shares


def _layer_work(sizes: _Sizes) -> int:
    """Gradients in flight inside a layer, at its largest stage; from live bytes of a Llama block.

    MLP stage: 4f (16-bit), 8f (fp32), 6f where down's input is not shared, with the gradient of
    the stream; fp32 adapters add their fp32 gradients (8h). Norm stage: 22h (16h in an fp32
    stream) once the MLP's share is freed.
    """
    model, plan, element = sizes.model, sizes.plan, sizes.element
    h, f = model.hidden_size, model.intermediate_size
    if plan.adapts and ("down_proj" not in plan.targets or autocasts_adapters(plan)):
        mlp = 3 * element * f
    else:
        mlp = 2 * element * f
    mlp += 2 * h if sizes.stream == 2 else 0
    if autocasts_adapters(plan) and not {"gate_proj", "up_proj"}.isdisjoint(plan.targets):
        mlp += 8 * h
    norm = (22 if sizes.stream == 2 else 16) * h
    freed = 4 * element * f
    return max(mlp, norm - freed) * sizes.tokens


def _optimizer_step(sizes: _Sizes) -> dict[str, float]:
    """Moment (iii): the activations are gone; fused AdamW makes no temporaries (§3.3)."""
    shares = _static_terms(sizes)
    shares["optimizer"] += sizes.moments_if_paged
    shares["gradients"] = sizes.gradients
    return shares
