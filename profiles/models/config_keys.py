"""A config.json under one set of names: the text model's part, its defaults filled in.

Decides what a configuration says, whatever its family calls it: `n_embd` and `d_model` are
`hidden_size` here. What a file leaves out is what transformers 5.23 would take for it
(config_defaults.json, read from its configuration classes; a test compares them). Knows nothing
of what the values mean.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from profiles.models.safe_config import bad_file

MAX_DIMENSION: Final = 100_000_000

ALIASES: Final = {
    "hidden_size": ("n_embd", "n_embed", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "n_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "kv_n_heads"),
    "head_dim": ("kv_channels",),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "block_ff_dim", "hidden_dim"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length"),
    "tie_word_embeddings": ("tie_embedding",),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("moe_k", "moe_topk", "moe_top_k", "top_k_experts"),
    "num_shared_experts": ("n_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "shared_expert_intermediate_size": (
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
    ),
    "layer_types": ("layers_block_type",),
}
"""Our name of a value, which is Llama's where Llama has it, and the names of other families."""

_NESTED: Final = ("attn_config", "ffn_config")  # DBRX and MPT
_DEFAULTS: Final = Path(__file__).with_name("config_defaults.json")


def plain(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """The values of a text model's configuration under our names, defaults filled in."""
    values = dict(config)
    for part in _NESTED:
        inner = config.get(part)
        values |= inner if isinstance(inner, dict) else {}
    if "ffn_config" in config:  # the width that DBRX gives there is one expert's
        values["moe_intermediate_size"] = values.pop("ffn_hidden_size", None)
    for name, others in ALIASES.items():
        found = (values[other] for other in others if values.get(other) is not None)
        if values.get(name) is None and (value := next(found, None)) is not None:
            values[name] = value
    return {**_defaults().get(model_type, {}), **values}


def dimension(
    config: dict[str, Any],
    key: str,
    where: Path | str,
    *,
    default: int | None = None,
    limit: int = MAX_DIMENSION,
) -> int:
    """A whole number of at least 1; raises UserError for anything else."""
    value = config.get(key)
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        value = value[0]  # one number a layer, all the same
    if value is None:
        value = default
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= limit:
        return value
    found = "is missing" if value is None else f"is {str(value)[:40]!r}"
    raise bad_file(
        f"{key} in config.json {found}",
        where,
        why=f"it must be a whole number from 1 to {limit}",
        do="fetch the original config.json of the model",
    )


def number(config: dict[str, Any], key: str) -> int:
    """A whole number of at least 0, and 0 for anything else."""
    value = config.get(key)
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        value = value[0]
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) and 0 < value <= MAX_DIMENSION else 0


def flag(config: dict[str, Any], key: bool | str) -> bool:
    """What a switch says; a family that has none gives True or False in the key's place."""
    return key if isinstance(key, bool) else config.get(key) is True


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(_DEFAULTS.read_text(encoding="utf-8"))
    return found
