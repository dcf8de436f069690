"""Weight files of a model folder, measured by their safetensors headers.

Decides which files make up the model, and counts parameters and types from the headers. Weights are
never read, and a folder with nothing but pickles is refused: loading one can run any code.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, Final

from profiles.errors import ExitCode, UserError
from profiles.safe_config import bad_file, read_json

MAX_HEADER_BYTES: Final = 100_000_000
"""The safetensors library refuses longer headers too."""
INDEX_NAME: Final = "model.safetensors.index.json"
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


def measure(shards: list[Path], *, tied: bool) -> tuple[int, str]:
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


def _indexed_files(index: Path) -> list[Path]:
    weights = read_json(index).get("weight_map")
    values = list(weights.values()) if isinstance(weights, dict) else []
    names = {value for value in values if isinstance(value, str)}
    if len(values) != sum(isinstance(value, str) for value in values):
        names = set()
    if not names or any("/" in n or "\\" in n or not n.endswith(".safetensors") for n in names):
        raise bad_file(
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


def _tensor(entry: object, name: str, shard: Path) -> tuple[int, str]:
    fields = entry if isinstance(entry, dict) else {}
    shape, dtype = fields.get("shape"), fields.get("dtype")
    sound = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
    if sound and isinstance(shape, list) and isinstance(dtype, str):
        return math.prod(shape), dtype
    raise bad_file(
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
        raise bad_file(
            f"{shard.name} is not a whole safetensors file",
            shard,
            why="its header cannot be read",
            do="fetch the file again; it may have been cut off while copying",
        )
    header.pop("__metadata__", None)
    return header
