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


def family_of(model: Model) -> str:
    """The model type that the mixture would have, or empty where none takes the dense weights."""
    plain = model.gated_mlp and not model.mlp_bias and not model.experts
    return _FAMILIES[model.model_type][0] if plain and model.model_type in _FAMILIES else ""


def upcycled(model: Model) -> Model:
    """The facts of the mixture made of a dense `model` that has a family."""
    model_type, architecture = _FAMILIES[model.model_type]
    h, layers = model.hidden_size, model.num_layers
    mlp = 3 * h * model.intermediate_size
    return replace(
        model,
        id=f"{model.id} with {NUM_EXPERTS} experts",
        path=None,
        model_type=model_type,
        architecture=architecture,
        intermediate_size=0,
        experts=Experts(
            num_experts=NUM_EXPERTS,
            top_k=TOP_K,
            width=model.intermediate_size,
            num_layers=layers,
        ),
        num_params=model.num_params + layers * ((NUM_EXPERTS - 1) * mlp + NUM_EXPERTS * h),
        params_origin=Origin.PREDICTED,
        weight_bytes=None,
    )
