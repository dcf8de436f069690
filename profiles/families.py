"""Model families that the memory and speed formulas are right for, and the refusal of all others.

Decides from a config.json whether a model is a dense, text-only decoder with Llama's block, and
what its family leaves unsaid there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from profiles.safe_config import bad_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a model type leaves unsaid in its config.json (transformers' defaults)."""

    architecture: str
    qkv_bias: bool = False
    """Biases on q, k, v only, whatever the config says."""
    qk_norm: bool = False
    tied: bool = False
    head_dim: int | None = None


FAMILIES: Final = {
    "llama": Family(architecture="LlamaForCausalLM"),
    "mistral": Family(architecture="MistralForCausalLM"),
    "ministral": Family(architecture="MinistralForCausalLM"),
    "qwen2": Family(architecture="Qwen2ForCausalLM", qkv_bias=True),
    "qwen3": Family(architecture="Qwen3ForCausalLM", qk_norm=True, head_dim=128),
    "smollm3": Family(architecture="SmolLM3ForCausalLM", tied=True),
    "granite": Family(architecture="GraniteForCausalLM"),
    "seed_oss": Family(architecture="SeedOssForCausalLM", head_dim=128),
    "gemma": Family(architecture="GemmaForCausalLM", tied=True, head_dim=256),
    "phi3": Family(architecture="Phi3ForCausalLM"),
    "olmo2": Family(architecture="Olmo2ForCausalLM", qk_norm=True),
}
"""Dense decoder-only families with Llama's block, as far as bytes and FLOPs go."""


def family_of(config: dict[str, Any], path: Path) -> Family:
    """The family of a configuration; raises UserError for a model unlike the known ones."""
    model_type = config["model_type"]
    kind = _other_kind(config)
    family = FAMILIES.get(model_type)
    if kind is None and family is not None:
        return family
    what = f"{model_type} is {kind}" if kind else f"{model_type} is not a family known here"
    raise bad_file(
        what,
        path,
        why=f"this version estimates dense Llama-style models: {', '.join(sorted(FAMILIES))}",
        do="choose the original 16-bit weights of a model of one of these families",
    )


def _other_kind(config: dict[str, Any]) -> str | None:
    """What keeps a model from being a dense, text-only decoder, in words."""
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    kinds = {
        "a mixture of experts": any(_positive(config.get(k)) for k in experts),
        "a model with latent attention (MLA)": _positive(config.get("kv_lora_rank")),
        "a model for images or sound as well as text": any(
            isinstance(config.get(k), dict) for k in ("vision_config", "audio_config")
        ),
        "a wrapper around a text model": isinstance(config.get("text_config"), dict),
        "an encoder-decoder model": config.get("is_encoder_decoder") is True,
        "stored already quantized": bool(config.get("quantization_config")),
    }
    return next((kind for kind, found in kinds.items() if found), None)


def _positive(value: object) -> bool:
    return isinstance(value, int) and value > 0
