"""The config.json of a mixture, from that of the dense model that it is made of.

Whatever the dense family's class would compute with is written out: the mixture's class has other
defaults (Llama's rotary base is 1e4 and its norms add 1e-6, Mixtral's 1e6 and 1e-5).
"""

from __future__ import annotations

from typing import Any, Final

from profiles.facts import Experts, Model

_KEPT: Final = (
    *("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor"),
    *("original_max_position_embeddings", "dtype", "torch_dtype"),
)
"""As they are, where they are: both classes read them by the same rules."""
_SAME: Final[dict[str, Any]] = {
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "use_cache": True,
    "pad_token_id": None,
}
"""With what transformers' dense classes, 5.23, take where config.json says nothing."""
_ENDS: Final = {"llama": (1, 2), "mistral": (1, 2), "qwen2": (None, None), "qwen3": (None, None)}
"""Tokens that begin and end a text, likewise."""
_THETA: Final = 10_000.0
"""The same of the rotary base."""
_WINDOW: Final = 4096
"""The same of Mistral's and Qwen's windows."""
_NO_WINDOW_BELOW: Final = 28
"""The same of `max_window_layers`."""


def mixture_config(
    dense: dict[str, Any], model: Model, mixture: Model, aux_loss: float
) -> dict[str, Any]:
    """All keys, in an order of their own.

    `model` and `mixture`: the facts of the dense model, and of what it becomes; `aux_loss`: weight
    of the router's load-balancing loss.
    """
    assert mixture.experts is not None
    begins, ends = _ENDS[model.model_type]
    return {
        "architectures": [mixture.architecture],
        "model_type": mixture.model_type,
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "num_hidden_layers": model.num_layers,
        "num_attention_heads": model.num_heads,
        "num_key_value_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.max_positions,
        "tie_word_embeddings": model.tied_embeddings,
        **{key: dense.get(key, usual) for key, usual in _SAME.items()},
        "bos_token_id": dense.get("bos_token_id", begins),
        "eos_token_id": dense.get("eos_token_id", ends),
        **_positions(dense),
        **_OF_FAMILY[mixture.model_type](dense, model, mixture.experts),
        "num_experts_per_tok": mixture.experts.top_k,
        "output_router_logits": False,  # only the loss wants them, and asks
        "router_aux_loss_coef": aux_loss,
    }


def _positions(dense: dict[str, Any]) -> dict[str, Any]:
    """The base that counts, too, where older programs look for it."""
    kept = {key: dense[key] for key in _KEPT if dense.get(key) is not None}
    inner = dense.get("rope_scaling") or dense.get("rope_parameters") or {}
    return kept | {"rope_theta": inner.get("rope_theta") or kept.get("rope_theta", _THETA)}


def _mixtral(dense: dict[str, Any], model: Model, experts: Experts) -> dict[str, Any]:
    slides = model.model_type == "mistral"  # its class heeds no list of layers
    return {
        "sliding_window": dense.get("sliding_window", _WINDOW) if slides else None,
        "intermediate_size": experts.width,
        "num_local_experts": experts.num_experts,
        "router_jitter_noise": 0.0,
    }


def _qwen2_moe(dense: dict[str, Any], model: Model, experts: Experts) -> dict[str, Any]:
    slides = model.num_sliding_layers > 0
    early = dense.get("max_window_layers", _NO_WINDOW_BELOW)
    kinds = ("full_attention", "sliding_attention")
    counted = [kinds[slides and layer >= early] for layer in range(model.num_layers)]
    return {
        **_qwen_moe(model, experts),
        "sliding_window": dense.get("sliding_window", _WINDOW),
        "max_window_layers": early,
        "layer_types": dense.get("layer_types") or counted,  # its own rule is another one
        "shared_expert_intermediate_size": experts.shared_width,
        "qkv_bias": model.attention_bias,
    }


def _qwen3_moe(dense: dict[str, Any], model: Model, experts: Experts) -> dict[str, Any]:
    return {
        **_qwen_moe(model, experts),
        "sliding_window": dense.get("sliding_window", _WINDOW),
        "attention_bias": model.attention_bias,
    }


def _qwen_moe(model: Model, experts: Experts) -> dict[str, Any]:
    return {
        "use_sliding_window": model.num_sliding_layers > 0,
        "intermediate_size": experts.width,
        "moe_intermediate_size": experts.width,
        "num_experts": experts.num_experts,
        "norm_topk_prob": True,  # else the chosen experts' weights sum to less than 1
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


_OF_FAMILY: Final = {"mixtral": _mixtral, "qwen2_moe": _qwen2_moe, "qwen3_moe": _qwen3_moe}
