"""The models of published runs, by the names that their publishers used."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any, Final, NamedTuple

from profiles.facts import Model
from profiles.models import catalog
from profiles.models.dimensions import from_config


class Skip(NamedTuple):
    """Why a row cannot be estimated."""

    reason: str


_QUANTIZED: Final = re.compile(r"[-_](gptq|awq|int[48]|bnb-4bit|unsloth|4bit|hf|aqlm.*)$")
_TUNED: Final = re.compile(r"[-_](instruct|chat|it|base)\b")
_TOLERANCE: Final = 0.02
_SAME: Final = 0.002
_ALIASES: Final = {
    "openbuddy-zephyr-7b-chat": "HuggingFaceH4/zephyr-7b-beta",
    "THUDM/chatglm2-6b": "zai-org/chatglm3-6b",
}
"""Finetunes that keep their base's dimensions, where the name does not say so."""


def _config(kind: str, hidden: int, inner: int, layers: int, heads: int, **more: Any) -> Any:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 4096,
        **more,
    }


_CONFIGS: Final = {
    # litgpt/config.py; the vocabulary as lit-gpt pads it
    r"stablelm-(tuned-)?alpha-3b": _config("gpt_neox", 4096, 16384, 16, 32, vocab_size=50688),
    r"stablelm-(tuned-)?alpha-7b": _config("gpt_neox", 6144, 24576, 16, 48, vocab_size=50432),
    # modeling_qwen.py: c_attn makes q, k and v; the config's inner size counts gate and up
    r"qwen-1_8b": _config("qwen2", 2048, 5504, 24, 16, vocab_size=151936),
    r"qwen-7b": _config("qwen2", 4096, 11008, 32, 32, vocab_size=151936),
    r"qwen-14b": _config("qwen2", 5120, 13696, 40, 40, vocab_size=152064),
    r"qwen-72b": _config("qwen2", 8192, 24576, 80, 64, vocab_size=152064),
    # their config.json on the hub
    r"h2o-danube2?-1\.8b": _config(
        "mistral", 2560, 6912, 24, 32, num_key_value_heads=8, vocab_size=32000
    ),
    r"internlm-7b": _config("llama", 4096, 11008, 32, 32, vocab_size=103168),
    r"internlm-20b": _config("llama", 5120, 13824, 60, 40, vocab_size=103168),
    r"xverse-13b": _config("llama", 5120, 13824, 40, 40, vocab_size=100534),
    r"skywork-13b": _config("llama", 4608, 12288, 52, 36, vocab_size=65519),
    r"bluelm-7b": _config("llama", 4096, 11008, 32, 32, vocab_size=100096),
}
"""Dimensions of models that the catalog does not have, by the end of their names."""


def model_of(name: str, num_params: object = None) -> Model | Skip:
    """The model of this name, checked against the published count of its weights."""
    found = catalog.find(_ALIASES.get(name, name)) or _known(name) or _like(name)
    found = found or _counted(name, num_params)
    if found is None:
        near = ", ".join(catalog.near(name, 2)) or "none"
        return Skip(f"model {name} is in no table here (near it: {near})")
    if isinstance(num_params, int) and not _agree(found, num_params):
        return Skip(f"{name} has {num_params} weights, {found.id} has {found.num_params}")
    return found


def _agree(model: Model, num_params: int) -> bool:
    """Publishers count a tied head once, twice, or round."""
    tied = model.vocab_size * model.hidden_size * model.tied_embeddings
    sizes = (model.num_params, model.num_params + tied, model.num_params - model.vision_params)
    return any(abs(size / num_params - 1) < _TOLERANCE for size in sizes)


def _known(name: str) -> Model | None:
    core = _core(name, tuned=True)
    for pattern, config in _CONFIGS.items():
        if re.fullmatch(pattern, core):
            heads = {"num_key_value_heads": config["num_attention_heads"]}
            whole = {**heads, **config, "tie_word_embeddings": False}
            model = from_config(whole, name=name, where=name)
            return replace(model, fused_qkv=True) if core.startswith("qwen-") else model
    return None


def _like(name: str) -> Model | None:
    """The catalog's model whose name differs only in how it was quantized or tuned."""
    for tuned in (False, True):
        found = _by_core(tuned=tuned).get(_core(name, tuned=tuned))
        if found:
            return catalog.find(found)
    return None


def _counted(name: str, num_params: object) -> Model | None:
    """A model of the catalog with a name near this one and as many weights: a finetune of it."""
    if not isinstance(num_params, int):
        return None
    near = [catalog.find(known) for known in catalog.near(name, 5)]
    same = [model for model in near if model and abs(model.num_params / num_params - 1) < _SAME]
    return same[0] if same else None


@cache
def _by_core(*, tuned: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for known in catalog.ids():
        found.setdefault(_core(known, tuned=tuned), known)
    return found


def _core(name: str, *, tuned: bool) -> str:
    core = re.sub(r"[ (].*", "", name.lower()).rpartition("/")[2]
    for _ in range(2):
        core = _QUANTIZED.sub("", core)
    return _TUNED.sub("", core) if tuned else core
