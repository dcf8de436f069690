"""The experts of a model: how many, how wide, in which layers.

Decides from a configuration under our names where a family puts its mixtures. The rules are those
of the decoder layers in transformers 5.23's modeling files.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from profiles.facts import Experts
from profiles.models.config_keys import dimension, number
from profiles.models.layer_kinds import kinds_of

_WIDTH_OF_MLP: Final = frozenset(
    {"mixtral", "phimoe", "granitemoe", "granitemoehybrid", "minimax_m2", "gpt_oss", "olmoe"}
    | {"jamba", "jetmoe", "llama4_text", "hunyuan_v1_moe"}
)
"""Types whose `intermediate_size` is the width of one expert."""
_ALWAYS_ONE_SHARED: Final = frozenset({"llama4_text", "hunyuan_v1_moe"})


def experts_of(
    config: dict[str, Any], model_type: str, num_layers: int, where: str
) -> Experts | None:
    """The mixture that stands in place of the MLP, or None for a dense model."""
    num_experts = number(config, "num_experts")
    sparse = _num_sparse_layers(config, model_type, num_layers) if num_experts else 0
    off = model_type == "gemma4_text" and config.get("enable_moe_block") is not True
    if not sparse or num_experts == 1 or off:
        return None
    key = "intermediate_size" if model_type in _WIDTH_OF_MLP else "moe_intermediate_size"
    width = dimension(config, key, where)
    return Experts(
        num_experts=num_experts,
        top_k=dimension(config, "num_experts_per_tok", where, limit=num_experts),
        width=width,
        num_layers=sparse,
        shared_width=_shared_width(config, model_type, width),
        shared_gate=model_type in {"qwen2_moe", "qwen3_next", "qwen3_5_moe_text"},
        router_bias=model_type == "gpt_oss",
        expert_bias=model_type == "gpt_oss",
    )


def _shared_width(config: dict[str, Any], model_type: str, width: int) -> int:
    if model_type in _ALWAYS_ONE_SHARED:
        return width
    summed = number(config, "shared_expert_intermediate_size")
    return summed or number(config, "num_shared_experts") * width


def _num_sparse_layers(config: dict[str, Any], model_type: str, num_layers: int) -> int:
    """Layers that have experts, each family by its own rule."""
    listed = config.get("mlp_layer_types")
    if isinstance(listed, list):
        return sum(kind == "sparse" for kind in listed)
    kinds = kinds_of(config, model_type, num_layers) if model_type == "nemotron_h" else []
    if kinds:
        return sum(kind == "moe" for kind in kinds)
    return sum(_is_sparse(config, model_type, layer, num_layers) for layer in range(num_layers))


def _is_sparse(config: dict[str, Any], model_type: str, layer: int, num_layers: int) -> bool:
    dense_first = number(config, "first_k_dense_replace")
    if model_type in {"glm4_moe_lite", "hy_v3"}:
        dense_first = max(dense_first, 1)
    if layer < dense_first:
        return False
    if model_type == "ernie4_5_moe":
        last = number(config, "moe_layer_end_index") or num_layers - 1
        every = number(config, "moe_layer_interval") or 1
        return (layer + 1) % every == 0 and number(config, "moe_layer_start_index") <= layer <= last
    if model_type == "llama4_text":
        listed = config.get("moe_layers")
        step = number(config, "interleave_moe_layer_step") or 1
        return layer in listed if isinstance(listed, list) else (layer + 1) % step == 0
    if model_type == "jamba":
        period = number(config, "expert_layer_period") or 1
        return layer % period == number(config, "expert_layer_offset")
    dense = config.get("mlp_only_layers")
    if isinstance(dense, list) and layer in dense:
        return False
    return (layer + 1) % (number(config, "decoder_sparse_step") or 1) == 0


RouterScores = Literal["softmax", "sigmoid", "shares"]
_SCORES: Final[dict[RouterScores, frozenset[str]]] = {
    "softmax": frozenset(
        {"mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5_moe_text", "olmoe", "gpt_oss"}
        | {"qwen3_vl_moe_text", "granitemoe", "granitemoehybrid", "phimoe", "ernie4_5_moe"}
        | {"deepseek_v2", "jamba", "hunyuan_v1_moe", "minimax", "flex_olmo"}
    ),
    "sigmoid": frozenset(
        {"deepseek_v3", "dots1", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "llama4_text"}
        | {"minimax_m2", "nemotron_h", "hy_v3", "lfm2_moe"}
    ),
    "shares": frozenset({"gemma4_text"}),
}


def router_scores(model_type: str) -> RouterScores | None:
    """How what a router gives becomes the probabilities of the experts; None if nobody knows.

    `sigmoid`: each by itself, over their sum. `shares`: it is the probabilities.
    """
    return next((how for how, types in _SCORES.items() if model_type in types), None)
