"""Sparse upcycling: the mixture of experts that a dense model becomes.

Every layer's MLP is copied into experts and a router is put before them (arXiv 2212.05055); the
numbers are the documents' (§1). What it costs to train is for the estimates to say: they get the
new model's facts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from profiles.facts import Experts, Model, Origin

NUM_EXPERTS: Final = 8
TOP_K: Final = 2
AUX_LOSS: Final = 0.1
"""Coefficient of the router's load-balancing loss."""
_FAMILIES: Final = {
    "llama": ("mixtral", "MixtralForCausalLM"),
    "mistral": ("mixtral", "MixtralForCausalLM"),
    "qwen2": ("qwen2_moe", "Qwen2MoeForCausalLM"),
    "qwen3": ("qwen3_moe", "Qwen3MoeForCausalLM"),
}
_MULTIPLE: Final = 8
"""Of 16-bit numbers: torch's grouped_mm, which transformers computes experts with, takes rows of
16 bytes or a multiple."""
_SHARED_WIDTH: Final = 256
"""Of Qwen2-MoE's shared expert, which no dense model has and no such mixture is without: little
beside the experts, and a multiple of the blocks that quantizers divide rows into."""


def obstacle(model: Model) -> str:
    """Why no mixture takes the weights of a model, as a clause; empty if one does."""
    if model.experts:
        return f"{model.id} is a mixture of experts already"
    if model.model_type not in _FAMILIES:
        kind, able = model.model_type, ", ".join(_FAMILIES)
        return f"no mixture takes the weights of {kind} models; those of {able} become one"
    return _not_the_same(model, _FAMILIES[model.model_type][0])


def _not_the_same(model: Model, into: str) -> str:
    """What of a dense model its family's mixture cannot compute."""
    if model.untrainable or not model.architecture.endswith("ForCausalLM"):
        return f"it is a {model.architecture}, and {into} predicts the next token of a text alone"
    if model.mlp_bias or (into == "mixtral" and (model.attention_bias or model.output_bias)):
        return f"its linears have biases, and those of {into} have none"
    if into != "qwen2_moe" and 0 < model.num_sliding_layers < model.num_layers:
        return f"some of its layers attend to a window, and in {into} all do or none"
    odd = [size for size in (model.hidden_size, model.intermediate_size) if size % _MULTIPLE]
    if odd:
        return f"experts are computed in blocks of {_MULTIPLE} numbers, which {odd[0]} is not"
    return ""


def family_of(model: Model) -> str:
    """The model type that the mixture would have, or empty where none takes the dense weights."""
    return "" if obstacle(model) else _FAMILIES[model.model_type][0]


def upcycled(model: Model, num_experts: int = NUM_EXPERTS, top_k: int = TOP_K) -> Model:
    """The facts of the mixture made of a dense `model` that has a family."""
    model_type, architecture = _FAMILIES[model.model_type]
    h, layers = model.hidden_size, model.num_layers
    mlp = 3 * h * model.intermediate_size
    shared = min(_SHARED_WIDTH, model.intermediate_size) if model_type == "qwen2_moe" else 0
    beside = 3 * h * shared + h if shared else 0
    return replace(
        model,
        id=f"{model.id} with {num_experts} experts",
        path=None,
        model_type=model_type,
        architecture=architecture,
        intermediate_size=0,
        experts=Experts(
            num_experts=num_experts,
            top_k=top_k,
            width=model.intermediate_size,
            num_layers=layers,
            shared_width=shared,
            shared_gate=bool(shared),
        ),
        num_params=model.num_params + layers * ((num_experts - 1) * mlp + num_experts * h + beside),
        params_origin=Origin.PREDICTED,
        weight_bytes=None,
    )
