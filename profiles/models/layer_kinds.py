"""What kinds of layers a model has: sliding ones, low-rank ones, ones that are no attention.

Decides from a configuration under our names how many layers look at a window only, and says why
the formulas for one layer do not hold where a model's layers are of several kinds. The rules are
those of transformers 5.23's configuration classes. Parameters are counted elsewhere.
"""

from __future__ import annotations

from typing import Any, Final

from profiles.facts import Latent
from profiles.models.config_keys import dimension, number
from profiles.models.families import Family

_WINDOWED: Final = frozenset({"sliding_attention", "chunked_attention"})
_ATTENTION: Final = frozenset({"attention", "full_attention", "sliding_attention"})
_CHUNK: Final = "attention_chunk_size"  # Llama 4's kind of window
_NEMOTRON: Final = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
_HYBRIDS: Final = {
    "qwen3_next": "use linear attention, and the others gate their output",
    "qwen3_5_text": "use linear attention, and the others gate their output",
    "qwen3_5_moe_text": "use linear attention, and the others gate their output",
    "jamba": "are Mamba",
    "granitemoehybrid": "are Mamba",
    "nemotron_h": "are Mamba or experts alone, without attention",
    "lfm2": "are short convolutions",
}
_OTHERS: Final = {
    "gemma3n_text": "layers share keys and values and have extra embeddings and side paths",
    "gemma4_text": "full-attention layers have wider heads and use their keys as values",
    "glm_moe_dsa": "an indexer in each layer chooses the tokens that attention looks at",
    "jetmoe": "queries and outputs of attention are a mixture of experts",
    "nemotron-nas": "layers differ in width, and some have no attention",
    "deberta-v2": "its attention adds terms for relative positions",  # arXiv 2006.03654
    "phi3small": "every second layer attends to blocks of tokens",  # arXiv 2404.14219
}


def sliding_of(config: dict[str, Any], family: Family, num_layers: int) -> tuple[int | None, int]:
    """Tokens of the window and the number of layers that have it; (None, 0) without."""
    window = number(config, _CHUNK) or number(config, "sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return None, 0
    listed = config.get("layer_types")
    if isinstance(listed, list):
        count = sum(kind in _WINDOWED for kind in listed)
    else:
        count = sum(_slides(config, family, layer) for layer in range(num_layers))
    return (window, count) if count else (None, 0)


def latent_of(config: dict[str, Any], where: str) -> Latent | None:
    """The low ranks of latent attention, if the model has it."""
    if not number(config, "kv_lora_rank"):
        return None
    return Latent(
        query_rank=number(config, "q_lora_rank") or None,
        kv_rank=dimension(config, "kv_lora_rank", where),
        nope_dim=dimension(config, "qk_nope_head_dim", where),
        rope_dim=dimension(config, "qk_rope_head_dim", where),
        value_dim=dimension(config, "v_head_dim", where),
    )


def kinds_of(config: dict[str, Any], model_type: str, num_layers: int) -> list[str]:
    """The kind of each layer that mixes attention with something else, or [] for plain models."""
    pattern = config.get("hybrid_override_pattern")
    if model_type == "nemotron_h" and isinstance(pattern, str):
        return [_NEMOTRON.get(letter, letter) for letter in pattern]
    if model_type == "jamba":
        period, offset = number(config, "attn_layer_period"), number(config, "attn_layer_offset")
        return ["attention" if i % (period or 1) == offset else "mamba" for i in range(num_layers)]
    listed = config.get("layer_types")
    if isinstance(listed, list):
        return [str(kind) for kind in listed]
    if model_type in {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}:
        interval = number(config, "full_attention_interval") or 4
        return ["attention" if (i + 1) % interval == 0 else "linear" for i in range(num_layers)]
    if model_type == "lfm2":
        full = config.get("full_attn_idxs")
        full = full if isinstance(full, list) else range(num_layers)
        return ["attention" if i in full else "conv" for i in range(num_layers)]
    return ["mamba"] * num_layers if model_type == "granitemoehybrid" else []


def unmodelled(config: dict[str, Any], model_type: str, num_layers: int) -> str:
    """Why one layer's formulas do not hold for all layers, as a clause; empty if they do."""
    if model_type in _HYBRIDS:
        kinds = kinds_of(config, model_type, num_layers)
        others = sum(kind not in _ATTENTION for kind in kinds)
        return f"{others} of {num_layers} layers {_HYBRIDS[model_type]}" if others else ""
    if model_type == "mllama_text_model":
        images = config.get("cross_attention_layers")
        count = len(images) if isinstance(images, list) else 8
        return f"{count} of {num_layers} layers attend to the picture, not to the text"
    if model_type == "opt" and _projects(config):
        return "the embedding is narrower than the layers, and there is no last norm"
    return _OTHERS.get(model_type, "")


def _slides(config: dict[str, Any], family: Family, layer: int) -> bool:
    """What a family does where its config.json lists no layer types."""
    if family.sliding == "every":
        pattern = config.get("sliding_window_pattern")
        if isinstance(pattern, str) and pattern:  # EXAONE 4 writes "LLLG"
            return pattern[layer % len(pattern)] == "L"
        return (layer + 1) % (number(config, "sliding_window_pattern") or family.period) != 0
    if family.sliding == "rotary":
        # Llama 4 windows the layers with rotary positions, SmolLM3 those without
        rotary = (layer + 1) % (number(config, "no_rope_layer_interval") or 4) != 0
        return rotary == bool(number(config, _CHUNK))
    early = layer < number(config, "max_window_layers")
    rules = {"all": True, "late": not early, "early": early and layer % 2 == 0}
    return rules.get(family.sliding, False)


def _projects(config: dict[str, Any]) -> bool:
    width = number(config, "word_embed_proj_dim")
    return bool(width) and width != number(config, "hidden_size")
