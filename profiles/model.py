"""A model from a local folder: its config.json and the headers of its weight files.

Decides the facts of a model: dimensions from its configuration, parameters measured where there are
weights and counted from the dimensions where there are none. The hub is never asked. Knows nothing
of methods or machines.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from profiles.errors import ExitCode, UserError
from profiles.facts import Model, Origin
from profiles.families import Family, family_of
from profiles.safe_config import bad_file, read_config, read_json
from profiles.safetensors_header import measure, weight_files

MAX_DIMENSION: Final = 10_000_000
MAX_LAYERS: Final = 1_000

CONFIG_NAME: Final = "config.json"
HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")


def from_folder(path: str | Path) -> Model:
    """Facts of the model in a local folder; raises UserError for what cannot be used."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise _no_such_folder(str(path), folder)
    config = read_config(folder / CONFIG_NAME)
    model = _from_config(config, folder)
    shards = weight_files(folder)
    if not shards:
        return replace(model, num_params=count_params(model), params_origin=Origin.PREDICTED)
    num_params, dtype = measure(shards, tied=model.tied_embeddings)
    return replace(
        model,
        num_params=num_params,
        params_origin=Origin.MEASURED,
        weight_bytes=sum(shard.stat().st_size for shard in shards),
        dtype=_declared_dtype(config) or dtype,
    )


def count_params(model: Model) -> int:
    """Parameters from the dimensions alone; exact for the families listed here.

    Linears of q, k, v, o, gate, up, down with their biases, two norms a layer, q/k norms, the final
    norm, the embedding, and the head unless tied (transformers 5.23 modeling files).
    """
    h, q, kv, f = model.hidden_size, model.query_width, model.kv_width, model.intermediate_size
    layer = h * q + 2 * h * kv + q * h + 3 * h * f + 2 * h
    if model.attention_bias:
        layer += q + 2 * kv
    if model.output_bias:
        layer += h
    if model.mlp_bias:
        layer += 2 * f + h
    if model.qk_norm:
        # OLMo 2 normalises the whole projection, the others each head with shared weights.
        layer += q + kv if model.model_type == "olmo2" else 2 * model.head_dim
    embeddings = model.vocab_size * h * (1 if model.tied_embeddings else 2)
    return model.num_layers * layer + h + embeddings


def _no_such_folder(text: str, folder: Path) -> UserError:
    parent = folder.parent
    siblings = [p.name for p in parent.iterdir() if p.is_dir()] if parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=3)
    if HUB_ID.fullmatch(text) and not near:
        name = text.rpartition("/")[2]
        why = "it looks like a model on the hub; this version reads local folders only"
        do = f"download it first: hf download {text} --local-dir {name}"
    else:
        why = f"near names there: {', '.join(near)}" if near else f"nothing like it in {parent}"
        do = f"use {parent / near[0]}" if near else "give a folder that holds config.json"
    if folder.is_file():
        why, do = "it is a file", f"give the folder that holds it: {parent}"
    return UserError(
        f"no model folder {text!r}", why=why, do=do, where=str(folder), code=ExitCode.NO_INPUT
    )


def _from_config(config: dict[str, Any], folder: Path) -> Model:
    path = folder / CONFIG_NAME
    family = family_of(config, path)
    hidden = _dimension(config, "hidden_size", path)
    heads = _dimension(config, "num_attention_heads", path)
    kv_heads = _dimension(config, "num_key_value_heads", path, default=heads)
    head_dim = _dimension(config, "head_dim", path, default=family.head_dim or hidden // heads)
    if heads % kv_heads:
        raise bad_file(
            "the attention dimensions in config.json do not fit together",
            path,
            why=f"{heads} heads cannot share {kv_heads} key/value heads evenly",
            do="fetch the original config.json of the model",
        )
    attention_bias = _flag(config, "attention_bias", default=config["model_type"] == "seed_oss")
    output_bias = _flag(config, "attention_out_bias", default=attention_bias)
    if config["model_type"] == "seed_oss":
        output_bias = _flag(config, "attention_out_bias", default=False)
    resolved = folder.resolve()
    model = Model(
        id=resolved.name,
        path=str(resolved),
        architecture=_architecture(config, family),
        model_type=config["model_type"],
        hidden_size=hidden,
        num_layers=_dimension(config, "num_hidden_layers", path, limit=MAX_LAYERS),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=_dimension(config, "intermediate_size", path),
        vocab_size=_dimension(config, "vocab_size", path),
        max_positions=_dimension(config, "max_position_embeddings", path, default=2048),
        tied_embeddings=_flag(config, "tie_word_embeddings", default=family.tied),
        attention_bias=family.qkv_bias or attention_bias,
        output_bias=output_bias and not family.qkv_bias,
        mlp_bias=_flag(config, "mlp_bias", default=False),
        qk_norm=family.qk_norm,
        dtype=_declared_dtype(config) or "bfloat16",
        num_params=0,
        params_origin=Origin.PREDICTED,
        has_chat_template=_has_chat_template(folder),
    )
    return replace(model, num_params=count_params(model))


def _dimension(
    config: dict[str, Any],
    key: str,
    path: Path,
    *,
    default: int | None = None,
    limit: int = MAX_DIMENSION,
) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= limit:
        return value
    found = "is missing" if value is None else f"is {str(value)[:40]!r}"
    raise bad_file(
        f"{key} in config.json {found}",
        path,
        why=f"it must be a whole number from 1 to {limit}",
        do="fetch the original config.json of the model",
    )


def _flag(config: dict[str, Any], key: str, *, default: bool) -> bool:
    value = config.get(key)
    return value if isinstance(value, bool) else default


def _architecture(config: dict[str, Any], family: Family) -> str:
    names = config.get("architectures")
    first = names[0] if isinstance(names, list) and names else None
    return first if isinstance(first, str) and first.isidentifier() else family.architecture


def _declared_dtype(config: dict[str, Any]) -> str | None:
    value = config.get("dtype") or config.get("torch_dtype")
    return value if value in {"bfloat16", "float16", "float32"} else None


def _has_chat_template(folder: Path) -> bool | None:
    """None where there is no tokenizer to speak for it."""
    if (folder / "chat_template.jinja").is_file():
        return True
    tokenizer = folder / "tokenizer_config.json"
    if not tokenizer.is_file():
        return None
    return bool(read_json(tokenizer).get("chat_template"))
