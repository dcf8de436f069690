"""What published adapters say of themselves, so that another run can go on with them.

A recipe that goes on with an adapter must set its method as the adapter is. What the content of a
file says beside that is taken out where it is understood, so that what is left would make another
adapter of it. Names and defaults are those of PEFT 0.21; empty values change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from advisor.registry.beside import NORMS, WHOLE
from advisor.registry.handover import AdapterFile

if TYPE_CHECKING:
    from collections.abc import Callable

_ANYWHERE: Final = (
    *("peft_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("task_type", "auto_mapping", "fan_in_fan_out"),
    # which modules: their names in the weights say it
    *("target_modules", "feedforward_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "target_parameters"),
    # of training, and of a start that has been
    *("lora_dropout", "vera_dropout", "module_dropout", "rank_dropout", "d_initial"),
    *("init_weights", "init_ia3_weights", "prompt_tuning_init", "prompt_tuning_init_text"),
    "eva_config",
    *("tokenizer_name_or_path", "tokenizer_kwargs", "save_projection"),
    # of the base, which is looked at itself
    *("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"),
)
"""Keys that change nothing of an adapter whose weights are there."""
_AS_BUILT: Final = {
    "bias": "none",
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "decompose_factor": -1,
    "eps": 6e-05,
    "use_cayley_neumann": True,
    "num_cayley_neumann_terms": 5,
}
"""Other defaults that are not empty."""


_ROUTERS: Final = frozenset({"gate", "router"})
"""Last names of the modules that choose among experts."""
_ADAPTED: Final = tuple([f"{name}.weight" for name in sorted(_ROUTERS)])
JOINED: Final = r".*\.gate_up_proj"
"""PEFT's pattern for routed experts' gate and up: two matrices in one, of twice the rank."""


def joined_alpha(alpha: int, *, rslora: bool) -> float:
    """Of twice the rank that counts as the others do."""
    return alpha * (2**0.5 if rslora else 2)


def understood(content: dict[str, Any], file: AdapterFile) -> tuple[dict[str, Any], list[str]]:
    """(settings that a recipe must have, "key = value" of what would make another adapter)."""
    left = dict(content)
    settings = file.settings(left)
    for name in _ANYWHERE:
        left.pop(name, None)
    return settings, [f"{k} = {v!r}" for k, v in left.items() if v and v != _AS_BUILT.get(k)]


def low_rank(content: dict[str, Any]) -> dict[str, Any]:
    """LoRA's. What began as a part of the weights is none for the base, unless it was made so."""
    if content.get("init_lora_weights") in (True, False, "gaussian", "orthogonal", "eva"):
        del content["init_lora_weights"]
    rank, alpha = content.pop("r", 8), content.pop("lora_alpha", 8)
    ranks, alphas = (dict(content.get(f"{name}_pattern") or {}) for name in ("rank", "alpha"))
    twice = joined_alpha(alpha, rslora=bool(content.get("use_rslora")))
    if (ranks.get(JOINED), alphas.get(JOINED)) == (2 * rank, twice):
        del ranks[JOINED], alphas[JOINED]
    if set(alphas.values()) <= {alpha}:
        content.pop("alpha_pattern", None)
    if all(name.isidentifier() for name in ranks):
        content.pop("rank_pattern", None)
    return {
        **_beside(content),
        "rank": rank,
        "alpha": alpha,
        "ranks": tuple(sorted(ranks.items())),
        "rslora": content.pop("use_rslora", False),
        "dora": content.pop("use_dora", False),
    }


def _beside(content: dict[str, Any]) -> dict[str, Any]:
    """What trains beside the adapters; modules by the names that a recipe has for them."""
    names = {name: name.rpartition(".")[2] for name in content.pop("modules_to_save", None) or ()}
    router = "trained" if _ROUTERS.intersection(names.values()) else "frozen"
    if any(name.endswith(_ADAPTED) for name in content.get("target_parameters") or ()):
        router = "adapted"
    found = {
        word
        for last in names.values()
        for word in WHOLE
        if last == word or (word == NORMS and "norm" in last)
    }
    known = (*WHOLE, *_ROUTERS)
    left = [name for name, last in names.items() if last not in known and "norm" not in last]
    content |= {"modules_to_save": left} if left else {}
    content.pop("ensure_weight_tying", None)
    whole = tuple([word for word in WHOLE if word in found])
    return {"modules_to_save": whole, "bias": content.pop("bias", "none"), "router": router}


def _taken(**names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Keys of a recipe, with their names in the file."""
    return lambda content: {key: content.pop(name, None) for key, name in names.items()}


def _of_our_own(content: dict[str, Any]) -> dict[str, Any]:
    """All of [method] stands there; the base is looked at itself."""
    content.pop("base", None)
    settings: dict[str, Any] = content.pop("adapter", {})
    return settings


BOTTLENECK_FILE: Final = AdapterFile(
    kind="adapter",
    settings=_of_our_own,
    name="bottleneck_config.json",
    weights="bottleneck_weights.safetensors",
)
LORA_FILE: Final = AdapterFile("LORA", low_rank)
VERA_FILE: Final = AdapterFile("VERA", _taken(rank="r"))
LOHA_FILE: Final = AdapterFile("LOHA", _taken(rank="r", alpha="alpha"))
LOKR_FILE: Final = AdapterFile("LOKR", _taken(rank="r", alpha="alpha"))
OFT_FILE: Final = AdapterFile("OFT", _taken(block="oft_block_size"))
IA3_FILE: Final = AdapterFile("IA3", _taken())
LN_FILE: Final = AdapterFile("LN_TUNING", _taken())
PROMPT_FILE: Final = AdapterFile("PROMPT_TUNING", _taken(virtual_tokens="num_virtual_tokens"))
