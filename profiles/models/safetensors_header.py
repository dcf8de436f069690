"""Weight files of a model folder, measured by their safetensors headers.

Decides which files make up the model, and counts parameters and types from the headers. Weights are
never read, and a folder with nothing but pickles is refused: loading one can run any code.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from profiles.errors import ExitCode, UserError
from profiles.models.safe_config import bad_file, read_json

MAX_HEADER_BYTES: Final = 100_000_000
"""The safetensors library refuses longer headers too."""
INDEX_NAME: Final = "model.safetensors.index.json"
_VOCAB_TABLES: Final = (
    "embed_tokens.weight",
    "wte.weight",
    "embed_in.weight",
    "word_embeddings.weight",
)
_POSITION_TABLES: Final = ("wpe.weight", "embed_positions.weight", "position_embeddings.weight")
_LAYER: Final = re.compile(r"\.layers\.(\d+)\.")
PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".mdl", ".pkl", ".pickle"})


def weight_files(folder: Path) -> list[Path]:
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


def ignored_pickles(folder: Path) -> list[str]:
    """Names of pickle files in a folder whose safetensors are used in their place."""
    files = [path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES]
    return sorted(path.name for path in files if path.name != "training_args.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the headers of all weight files say together."""

    num_params: int
    """Of everything that is loaded; without stored buffers and blocks for several tokens."""
    tower_params: int
    """Those that do not belong to the text model."""
    dtype: str
    """The most common one: "bfloat16", "float16" or "float32"."""
    num_words: int = 0
    """Rows of the input embedding; 0 where no tensor of the text model bears a known name."""
    num_positions: int = 0
    """Rows of a learned position table; 0 without one."""


def measure(
    headers: Iterable[tuple[str, dict[str, Any]]], *, tied: bool, num_layers: int, wrapped: bool
) -> Measured:
    """Count parameters by the headers of the weight files, each given with the file's name."""
    sizes: dict[str, int] = {}
    dtypes: dict[str, int] = {}
    rows: dict[str, int] = {}
    for shard, header in headers:
        for name, entry in header.items():
            # A tied head is the embedding stored twice.
            if _is_buffer(name) or (tied and name.endswith("lm_head.weight")):
                continue
            size, dtype = _tensor(entry, name, shard)
            sizes[name] = size
            rows[name] = next(iter(entry["shape"]), 0)
            dtypes[dtype] = dtypes.get(dtype, 0) + size
    towers = _tower_names(sizes) if wrapped else frozenset()
    loaded = {
        name: size
        for name, size in sizes.items()
        if name in towers or not _is_extra_layer(name, num_layers)
    }
    common = max(dtypes, key=lambda name: dtypes[name]) if dtypes else "BF16"
    return Measured(
        num_params=sum(loaded.values()),
        tower_params=sum(size for name, size in sizes.items() if name in towers),
        dtype={"F16": "float16", "F32": "float32"}.get(common, "bfloat16"),
        num_words=_rows_of(_VOCAB_TABLES, rows, towers),
        num_positions=_rows_of(_POSITION_TABLES, rows, towers),
    )


def _rows_of(tables: tuple[str, ...], rows: dict[str, int], towers: frozenset[str]) -> int:
    """Rows of the text model's table with one of these names."""
    found = (name for name in rows if f".{name}".endswith(tuple(f".{one}" for one in tables)))
    return next((rows[name] for name in found if name not in towers), 0)


def _is_buffer(name: str) -> bool:
    """Rotary frequencies, causal masks and router balances that old checkpoints stored.

    The balance of ERNIE's router is a parameter in transformers.
    """
    if name.endswith("e_score_correction_bias"):
        return "moe_statics" not in name
    return name.endswith(("inv_freq", ".attn.bias", ".attention.bias", ".masked_bias"))


def _is_extra_layer(name: str, num_layers: int) -> bool:
    """Part of a block that predicts further tokens, which transformers does not load."""
    layer = _LAYER.search(name)
    return name.startswith("mtp.") or bool(layer and int(layer[1]) >= num_layers)


def _tower_names(names: Iterable[str]) -> frozenset[str]:
    """Tensors outside the text model.

    The text model lies under `language_model` and `lm_head`, and in Qwen2-VL's first files where
    a model of text alone has it.
    """
    split = {name: name.split(".") for name in names}
    marked = any("language_model" in parts for parts in split.values())

    def is_text(parts: list[str]) -> bool:
        if parts[0] in {"lm_head", "mtp"}:
            return True
        if marked:
            return "language_model" in parts
        return parts[0] == "model" and not {"embed_tokens", "layers", "norm"}.isdisjoint(parts[1:2])

    return frozenset(name for name, parts in split.items() if not is_text(parts))


def indexed_names(index: dict[str, Any], where: Path | str) -> list[str]:
    """The names of the weight files that an index lists; they lie beside it."""
    weights = index.get("weight_map")
    values = list(weights.values()) if isinstance(weights, dict) else []
    names = {value for value in values if isinstance(value, str)}
    if len(values) != sum(isinstance(value, str) for value in values):
        names = set()
    if not names or any("/" in n or "\\" in n or not n.endswith(".safetensors") for n in names):
        raise bad_file(
            f"{INDEX_NAME} does not list safetensors files of its own folder",
            where,
            why="weight_map must give each tensor the name of a file beside the index",
            do="fetch the file again",
        )
    return sorted(names)


def _indexed_files(index: Path) -> list[Path]:
    files = [index.parent / name for name in indexed_names(read_json(index), index)]
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


def _tensor(entry: object, name: str, shard: str) -> tuple[int, str]:
    fields = entry if isinstance(entry, dict) else {}
    shape, dtype = fields.get("shape"), fields.get("dtype")
    sound = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
    if sound and isinstance(shape, list) and isinstance(dtype, str):
        return math.prod(shape), dtype
    raise bad_file(
        f"{Path(shard).name} describes {name[:80]!r} wrongly",
        shard,
        why="a tensor needs a dtype and a shape of whole numbers",
        do="fetch the file again",
    )


def read_header(shard: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file: 8 bytes of length (little endian), then JSON."""
    try:
        size = shard.stat().st_size
        with shard.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            sound = 0 < length <= min(MAX_HEADER_BYTES, size - 8)
            header = json.loads(file.read(length)) if sound else None
    except (ValueError, RecursionError, MemoryError):
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
        raise bad_file(
            f"{shard.name} is not a whole safetensors file",
            shard,
            why="its header cannot be read",
            do="fetch the file again; it may have been cut off while copying",
        )
    header.pop("__metadata__", None)
    _refuse_cut_off(shard, header, data_start=8 + length, size=size)
    return header


def _refuse_cut_off(shard: Path, header: dict[str, Any], *, data_start: int, size: int) -> None:
    """A download that stopped leaves a sound header before too few weights."""
    offsets = [e.get("data_offsets") for e in header.values() if isinstance(e, dict)]
    ends = [pair[-1] for pair in offsets if isinstance(pair, list) and pair]
    needed = data_start + max((end for end in ends if isinstance(end, int)), default=0)
    if size < needed:
        raise bad_file(
            f"{shard.name} is cut off: it has {size} of {needed} bytes",
            shard,
            why="its header describes weights that are not there",
            do="fetch this file again (hf download continues where it stopped)",
        )
