"""Parameters, and the bytes that exist because of them: weights, gradients, optimizer states.

All are bytes of the whole model: what one device keeps of them, and when, is for moments.py to
say. Which matrices a layer has comes from its tape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.graph.network import network
from advisor.plan import LLAMA_ADAPTERS, SOFT_PROMPTS, WHOLE_METHODS
from advisor.precision import base_width, leftover_width, trained_width
from advisor.tape import Matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from advisor.plan import Plan
    from profiles.facts import Model

NF4_SCALES: Final = 4 / 64
"""Bytes per weight of 4 bits: an fp32 scale for 64 of them (QLoRA paper §3)."""
NF4_DOUBLE_SCALES: Final = 1 / 64 + 4 / (64 * 256)
"""The scales in 8 bits, with an fp32 scale for 256 of those."""
GPTQ_SCALE: Final = 2 + 0.5
"""A 16-bit scale and a 4-bit zero."""
GPTQ_INDEX: Final = 4
SCALE_BYTES: Final = 4
"""LLM.int8: one fp32 scale for each output row."""
TWO_8BIT_MOMENTS: Final = 2 + 2 * 4 / 256
"""Bytes per parameter; bitsandbytes keeps one fp32 scale per block of 256."""
MIN_8BIT_ELEMENTS: Final = 4096
"""Smaller tensors keep fp32 moments (bitsandbytes optimizer.py)."""
MIN_PAGED_ELEMENTS: Final = 100_000
LOW_RANK: Final = {"galore": 128, "apollo": 256}
"""Rank of the projected moments: the defaults of galore-torch and apollo-torch."""
PROMPTS: Final = 10
UNPROMPTED: Final = 2
"""lit-gpt's LLaMA-Adapter: prompts of a layer, and layers that have none."""
P_TUNING_WIDTH: Final = 1
"""Hidden size of P-tuning's encoder over the model's (PEFT's default)."""


class Optimizer(NamedTuple):
    """What an optimizer keeps per trained parameter."""

    moments: int
    """Values kept for each parameter."""
    in_8bit: bool = False
    paged: bool = False


OPTIMIZERS: Final = {
    "adamw": Optimizer(2),
    "adamw_8bit": Optimizer(2, in_8bit=True),
    "paged_adamw": Optimizer(2, paged=True),
    "paged_adamw_8bit": Optimizer(2, in_8bit=True, paged=True),
    "lion": Optimizer(1),
    "lion_8bit": Optimizer(1, in_8bit=True),
    "sgd": Optimizer(0),
    "adafactor": Optimizer(0),
    "galore": Optimizer(2),
    "apollo": Optimizer(2),
    "lomo": Optimizer(0),
}


def linear_params(model: Model, plan: Plan) -> int:
    """Weights of the layers' plain linears, which a quantized base stores in few bits."""
    return sum([m.n_in * m.n_out * m.copies for m in _matrices(model, plan) if m.quantizable])


def adapter_params(model: Model, plan: Plan) -> int:
    """Trainable LoRA weights: P = r sum(in + out) over the adapted linears (§3.1)."""
    if not plan.adapts:
        return 0
    return sum([m.rank * (m.n_in + m.n_out) * m.copies for m in _matrices(model, plan) if m.rank])


def embedding_params(model: Model) -> int:
    """Weights of the embedding; as many in the head, where it is not tied."""
    return model.vocab_size * model.hidden_size


def trained_params(model: Model, plan: Plan) -> int:
    """Parameters that get a gradient."""
    text = model.num_params - model.vision_params
    if plan.method == "full":
        return text
    if plan.method == "freeze":
        outside = embedding_params(model) * (1 if model.tied_embeddings else 2)
        kept = (text - outside) * (model.num_layers - plan.frozen_layers) // model.num_layers
        return kept + outside // 2
    if plan.adapts:
        return adapter_params(model, plan)
    return added_params(model, plan) or _small_part(model, plan)


def added_params(model: Model, plan: Plan) -> int:
    """Weights that the method adds to the model (PEFT 0.21)."""
    h, layers = model.hidden_size, model.num_layers
    if plan.adapts:
        return adapter_params(model, plan)
    if plan.method in SOFT_PROMPTS:
        return _prompt_params(model, plan)
    if plan.method == "adapter":
        bottleneck = max(1, h // plan.reduction)
        return layers * 2 * (2 * h * bottleneck + bottleneck + h)
    if plan.method == "ia3":
        return layers * (2 * model.kv_width + model.intermediate_size)
    return _llama_adapter(model, plan) if plan.method in LLAMA_ADAPTERS else 0


def _prompt_params(model: Model, plan: Plan) -> int:
    """A prompt; keys and values for every layer; or a prompt with the MLP that encodes it."""
    h, tokens = model.hidden_size, plan.virtual_tokens
    if plan.method == "prefix_tuning":
        return tokens * model.num_layers * 2 * model.kv_width
    if plan.method == "prompt_tuning":
        return tokens * h
    wide = P_TUNING_WIDTH * h
    return tokens * h + 2 * h * wide + wide * wide + 2 * wide + h


def _llama_adapter(model: Model, plan: Plan) -> int:
    """Prompts and gates of the layers; in v2 a scale and a bias for each output of a linear."""
    prompts = PROMPTS * model.hidden_size + model.num_heads
    outputs = sum([m.n_out * m.copies for m in _matrices(model, plan)]) + model.vocab_size
    scales = 2 * outputs if plan.method == "llama_adapter_v2" else 0
    return (model.num_layers - UNPROMPTED) * prompts + scales


def _small_part(model: Model, plan: Plan) -> int:
    """Biases, or norms, of the model itself."""
    h, layers = model.hidden_size, model.num_layers
    q, kv, f = model.query_width, model.kv_width, model.intermediate_size
    if plan.method == "ln_tuning":
        return h * (layers * model.norms_per_layer + 1)
    biases = (q + 2 * kv) * model.attention_bias + h * model.output_bias
    biases += ((2 if model.gated_mlp else 1) * f + h) * model.mlp_bias
    norms = h * model.norms_per_layer if model.norm == "layer" else 0
    return layers * (biases + norms)


def base_bytes(model: Model, plan: Plan) -> float:
    """Base weights; quantized loading leaves embeddings, head, norms, experts in 16 bits (§3.2)."""
    width, leftover = base_width(plan), leftover_width(plan)
    if plan.base_bits == 16 or plan.method in WHOLE_METHODS:
        if plan.method == "freeze" and width == 4:
            trained = trained_params(model, plan)
            return 4 * trained + 2 * (model.num_params - trained)
        # A frozen tower stays in 16 bits where trained weights are fp32.
        return width * (model.num_params - model.vision_params) + 2 * model.vision_params
    narrow = sum([m.n_in * m.n_out * m.copies for m in _quantized(model, plan)])
    numbers = narrow * plan.base_bits / 8
    return numbers + scale_bytes(model, plan) + leftover * (model.num_params - narrow)


def _quantized(model: Model, plan: Plan) -> list[Matrix]:
    """What a library that quantizes plain linears finds."""
    found = [m for m in _matrices(model, plan) if m.quantizable]
    if plan.stack.quantized_head:
        found.append(Matrix("lm_head", model.hidden_size, model.vocab_size, 1, 0, True))
    return found


def _gptq_scales(matrix: Matrix, group: int) -> float:
    groups = matrix.n_in / group if group > 0 else 1
    return matrix.copies * (GPTQ_SCALE * groups * matrix.n_out + GPTQ_INDEX * matrix.n_in)


def scale_bytes(model: Model, plan: Plan) -> float:
    """What turns the numbers of quantized weights back into weights."""
    if plan.base_bits == 16 or plan.method in WHOLE_METHODS:
        return 0.0
    matrices = _quantized(model, plan)
    if plan.base_bits == 8:
        return SCALE_BYTES * sum([m.n_out * m.copies for m in matrices])
    linears = sum([m.n_in * m.n_out * m.copies for m in matrices])
    if plan.stack.gptq_group:
        return sum([_gptq_scales(m, plan.stack.gptq_group) for m in matrices])
    return linears * (NF4_DOUBLE_SCALES if plan.double_quant else NF4_SCALES)


def adapter_bytes(model: Model, plan: Plan) -> int:
    """Weights that the method adds."""
    width = 4 if plan.method in SOFT_PROMPTS else trained_width(plan)
    return added_params(model, plan) * width


def gradient_bytes(model: Model, plan: Plan) -> int:
    """One gradient for each trained weight, in the weight's own type."""
    return trained_params(model, plan) * trained_width(plan)


def optimizer_bytes(model: Model, plan: Plan) -> tuple[float, float]:
    """The optimizer's states: (always on the device, only at the step because paged) (§3.3)."""
    kind = OPTIMIZERS[plan.optimizer]
    if plan.optimizer in LOW_RANK:
        return _projected_bytes(model, plan), 0
    if plan.optimizer == "adafactor":
        return 4 * sum([(rows + columns) for rows, columns, _ in _tensors(model, plan)]), 0
    if not kind.in_8bit:
        total = kind.moments * trained_width(plan) * trained_params(model, plan)
        return (0, total) if kind.paged else (total, 0)
    return _blockwise_bytes(model, plan, kind)


def _blockwise_bytes(model: Model, plan: Plan, kind: Optimizer) -> tuple[float, float]:
    """bitsandbytes: 8-bit moments for tensors of 4096 elements and more."""
    share = kind.moments / 2
    if plan.method in WHOLE_METHODS:
        # transformers' Trainer overrides nn.Embedding to 32-bit moments; a tied head goes with it.
        embedding = embedding_params(model) if plan.method == "full" else 0
        narrow = TWO_8BIT_MOMENTS * max(0, trained_params(model, plan) - embedding)
        total = share * (8 * embedding + narrow)
        return (0, total) if kind.paged else (total, 0)
    resident = moving = 0.0
    for rows, columns, copies in _tensors(model, plan):
        count = rows * columns
        wide = count < MIN_8BIT_ELEMENTS
        state = share * copies * count * (8 if wide else TWO_8BIT_MOMENTS)
        if kind.paged and count >= MIN_PAGED_ELEMENTS:
            moving += state
        else:
            resident += state
    return resident, moving


def _projected_bytes(model: Model, plan: Plan) -> float:
    """GaLore and APOLLO: moments of rank r on the longer side of each linear; the rest in full.

    GaLore also keeps the projection, r times the shorter side (arXiv 2403.03507 §4); APOLLO makes
    it again from a seed (arXiv 2412.05270).
    """
    rank, total, covered = LOW_RANK[plan.optimizer], 0.0, 0
    for m in _matrices(model, plan):
        long, short = max(m.n_in, m.n_out), min(m.n_in, m.n_out)
        used = min(rank, short)
        kept = 2 * long + (short if plan.optimizer == "galore" else 0)
        total += used * kept * m.copies * 4
        covered += m.n_in * m.n_out * m.copies
    return total + 2 * trained_width(plan) * max(0, trained_params(model, plan) - covered)


def _tensors(model: Model, plan: Plan) -> Iterator[tuple[int, int, int]]:
    """(rows, columns, count) of the trained tensors with two dimensions."""
    for m in _matrices(model, plan):
        if m.rank:
            yield m.n_in, m.rank, m.copies
            yield m.rank, m.n_out, m.copies
        elif plan.method in WHOLE_METHODS:
            yield m.n_in, m.n_out, m.copies
    if plan.method == "full":
        yield model.vocab_size, model.hidden_size, 1 if model.tied_embeddings else 2


def _matrices(model: Model, plan: Plan) -> Iterator[Matrix]:
    for layers in network(model, plan).layers:
        for matrix in layers.matrices:
            yield matrix._replace(copies=matrix.copies * layers.kind.count)
