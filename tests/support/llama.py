"""Llama-3-8B, and any model as a change of its dimensions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from profiles.facts import Model, Origin
from profiles.models.parameters import count_params


def model(**changes: Any) -> Model:
    """Llama-3-8B, or a variation of it, with its own parameters counted."""
    dims: dict[str, Any] = {
        "id": "x",
        "path": None,
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "hidden_size": 4096,
        "num_layers": 32,
        "num_heads": 32,
        "num_kv_heads": 8,
        "head_dim": 128,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "max_positions": 8192,
        "tied_embeddings": False,
        "num_params": 0,
        "params_origin": Origin.TABLE,
    }
    made = Model(**(dims | changes))
    return replace(made, num_params=count_params(made))


LLAMA_3_8B = model()
