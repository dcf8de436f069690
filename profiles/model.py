"""A model from a local folder: its config.json and the headers of its weight files.

Decides which families the memory and speed formulas are right for, and refuses configurations that
could make a library run foreign code. Weights are never read, only safetensors headers, and the hub
is never asked. Knows nothing of methods or machines.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from profiles.errors import ExitCode, UserError
from profiles.facts import Model, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HEADER_BYTES: Final = 100_000_000
"""The safetensors library refuses longer headers too."""
MAX_JSON_BYTES: Final = 64_000_000
MAX_DIMENSION: Final = 10_000_000
MAX_LAYERS: Final = 1_000

CONFIG_NAME: Final = "config.json"
INDEX_NAME: Final = "model.safetensors.index.json"
PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".mdl", ".pkl", ".pickle"})
MODEL_TYPE: Final = re.compile(r"[a-z0-9_\-]{1,64}")
HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.\-]*/[\w.\-]+")
FORBIDDEN_KEYS: Final = frozenset({"auto_map", "trust_remote_code", "kernel_config"})
IMPLEMENTATION_KEYS: Final = frozenset(
    {"attn_implementation", "_attn_implementation", "experts_implementation"}
)


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


def from_folder(path: str | Path) -> Model:
    """Facts of the model in a local folder; raises UserError for what cannot be used."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise _no_such_folder(str(path), folder)
    config = _read_config(folder / CONFIG_NAME)
    model = _from_config(config, folder)
    shards = _weight_files(folder)
    if not shards:
        return replace(model, num_params=count_params(model), params_origin=Origin.PREDICTED)
    num_params, dtype = _measure(shards, tied=model.tied_embeddings)
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


def _bad(what: str, where: Path | str, *, why: str, do: str) -> UserError:
    return UserError(what, why=why, do=do, where=str(where), code=ExitCode.BAD_DATA)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_JSON_BYTES else None
        value = json.loads(text) if text is not None else None
    except json.JSONDecodeError as error:
        raise _bad(
            f"{path.name} is not valid JSON",
            f"{path}:{error.lineno}:{error.colno}",
            why=error.msg,
            do="fetch the file again; it may have been cut off while copying",
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else "it is not UTF-8"
        raise _bad(
            f"{path.name} cannot be read as JSON", path, why=why, do="fetch the file again"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read {path.name}",
            why=error.strerror or str(error),
            do="check the file and its permissions",
            where=str(path),
            code=ExitCode.NO_INPUT if isinstance(error, FileNotFoundError) else ExitCode.IO_ERROR,
        ) from error
    if not isinstance(value, dict):
        why = f"it is over {MAX_JSON_BYTES} bytes" if text is None else "it is not a JSON object"
        raise _bad(f"{path.name} is not usable", path, why=why, do="fetch the file again")
    return value


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(
            f"no config.json in {path.parent}",
            why="a model folder needs it: the dimensions stand there",
            do="give the folder into which the model was downloaded or saved",
            where=str(path),
            code=ExitCode.NO_INPUT,
        )
    config = _read_json(path)
    _refuse_code(config, path)
    return config


def _refuse_code(config: dict[str, Any], path: Path) -> None:
    """Reject keys by which a library could be made to fetch or run foreign code."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not MODEL_TYPE.fullmatch(model_type):
        found = "missing" if model_type is None else f"{str(model_type)[:80]!r}"
        code = ExitCode.BAD_DATA if model_type is None else ExitCode.REFUSED
        raise UserError(
            f"model_type in config.json is {found}",
            why="it must be 1 to 64 of a-z, 0-9, _ and -",
            do="fetch the original config.json of the model",
            where=str(path),
            code=code,
        )
    for key, value in _entries(config):
        names_code = key in FORBIDDEN_KEYS or key.endswith("_internal")
        names_repo = key in IMPLEMENTATION_KEYS and isinstance(value, str) and "/" in value
        if names_code or names_repo:
            raise UserError(
                f"config.json contains {key[:80]!r}",
                why="this key can make a library run code that comes with the model",
                do="use a version of the model that transformers supports without remote code",
                where=str(path),
                code=ExitCode.REFUSED,
            )


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _from_config(config: dict[str, Any], folder: Path) -> Model:
    path = folder / CONFIG_NAME
    family = _family(config, path)
    hidden = _dimension(config, "hidden_size", path)
    heads = _dimension(config, "num_attention_heads", path)
    kv_heads = _dimension(config, "num_key_value_heads", path, default=heads)
    head_dim = _dimension(config, "head_dim", path, default=family.head_dim or hidden // heads)
    if heads % kv_heads:
        raise _bad(
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


def _family(config: dict[str, Any], path: Path) -> Family:
    model_type = config["model_type"]
    kind = _other_kind(config)
    family = FAMILIES.get(model_type)
    if kind is None and family is not None:
        return family
    what = f"{model_type} is {kind}" if kind else f"{model_type} is not a family known here"
    raise _bad(
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
    raise _bad(
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
    return bool(_read_json(tokenizer).get("chat_template"))


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model, or [] when the folder has no weights."""
    index = folder / INDEX_NAME
    if index.is_file():
        return _indexed_files(index)
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    names = sorted(p for p in folder.iterdir() if p.is_file())
    shards = [p for p in names if p.suffix == ".safetensors" and not p.name.startswith("adapter_")]
    pickles = [p for p in names if p.suffix in PICKLE_SUFFIXES]
    if pickles and not shards:
        raise UserError(
            f"the weights in {folder} are pickle files only",
            why="loading a pickle can run any code that its author put there",
            do="use a safetensors version of the model, or convert it on a machine you can lose",
            where=str(pickles[0]),
            code=ExitCode.REFUSED,
        )
    return shards


def _indexed_files(index: Path) -> list[Path]:
    weights = _read_json(index).get("weight_map")
    values = list(weights.values()) if isinstance(weights, dict) else []
    names = {value for value in values if isinstance(value, str)}
    if len(values) != sum(isinstance(value, str) for value in values):
        names = set()
    if not names or any("/" in n or "\\" in n or not n.endswith(".safetensors") for n in names):
        raise _bad(
            f"{INDEX_NAME} does not list safetensors files of its own folder",
            index,
            why="weight_map must give each tensor the name of a file beside the index",
            do="fetch the file again",
        )
    files = [index.parent / name for name in sorted(names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} weight files are missing",
            why=f"the index lists {missing[0]}, which is not there",
            do="finish the download (hf download continues where it stopped)",
            where=str(index),
            code=ExitCode.NO_INPUT,
        )
    return files


def _measure(shards: list[Path], *, tied: bool) -> tuple[int, str]:
    """Parameters and the most common dtype, from the headers of the weight files."""
    sizes: dict[str, int] = {}
    dtypes: dict[str, int] = {}
    for shard in shards:
        for name, entry in _read_header(shard).items():
            # Rotary frequencies are buffers that old checkpoints stored; a tied head is the
            # embedding stored twice.
            if name.endswith("inv_freq") or (tied and name == "lm_head.weight"):
                continue
            size, dtype = _tensor(entry, name, shard)
            sizes[name] = size
            dtypes[dtype] = dtypes.get(dtype, 0) + size
    common = max(dtypes, key=lambda name: dtypes[name]) if dtypes else "BF16"
    names = {"F16": "float16", "F32": "float32"}
    return sum(sizes.values()), names.get(common, "bfloat16")


def _tensor(entry: object, name: str, shard: Path) -> tuple[int, str]:
    fields = entry if isinstance(entry, dict) else {}
    shape, dtype = fields.get("shape"), fields.get("dtype")
    sound = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
    if sound and isinstance(shape, list) and isinstance(dtype, str):
        return math.prod(shape), dtype
    raise _bad(
        f"{shard.name} describes {name[:80]!r} wrongly",
        shard,
        why="a tensor needs a dtype and a shape of whole numbers",
        do="fetch the file again",
    )


def _read_header(shard: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: 8 bytes of length (little endian), then JSON."""
    try:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            sound = 0 < length <= min(MAX_HEADER_BYTES, size - 8)
            header = json.loads(file.read(length)) if sound else None
    except (ValueError, RecursionError):
        header = None
    except OSError as error:
        raise UserError(
            f"cannot read {shard.name}",
            why=error.strerror or str(error),
            do="check the file and its permissions",
            where=str(shard),
            code=ExitCode.IO_ERROR,
        ) from error
    if not isinstance(header, dict):
        raise _bad(
            f"{shard.name} is not a whole safetensors file",
            shard,
            why="its header cannot be read",
            do="fetch the file again; it may have been cut off while copying",
        )
    header.pop("__metadata__", None)
    return header
