"""Where each weight of a mixture comes from: a copy of the dense model's, or a new number.

Names on disk are those under which transformers 5.23 saves each family, expert by expert, which
other programs read too.
"""

from __future__ import annotations

import math
import random
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from profiles.facts import Model
from profiles.models.safe_config import bad_file
from profiles.models.safetensors_header import read_header, weight_files

WIDTHS: Final = {"F32": 4, "BF16": 2, "F16": 2}
"""Bytes of a number, by safetensors' name of its type."""
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.(?:(mlp)\.)?(?:(gate|up|down)_proj\.weight)?")
_MLP: Final = ("gate", "up", "down")
_MIXTRAL: Final = dict(zip(_MLP, ("w1", "w3", "w2"), strict=True))
_BUFFERS: Final = "rotary_emb.inv_freq"
"""Stored by old versions; computed anew by all that load them."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Bytes of a file."""

    path: Path
    start: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """Numbers of a normal distribution around 0, always the same for a seed and a layer."""

    std: float
    seed: int
    layer: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """Nothing but zeros."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight to be written."""

    name: str
    dtype: str
    """A key of WIDTHS."""
    shape: tuple[int, ...]
    source: Copied | Drawn | Zeros

    @property
    def num_bytes(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape) * WIDTHS[self.dtype]


def plan(folder: Path, model: Model, mixture: Model, *, std: float, seed: int) -> list[Tensor]:
    """Every weight of the mixture, in the order of the dense model's files.

    Every expert is a copy of its layer's MLP, so that whichever the router chooses, with weights
    that sum to 1, they give what the MLP gave. The router's weights are drawn (`std`, `seed`): with
    equal ones the same experts would be chosen for all tokens. UserError for weights that are not
    those of such a model.
    """
    found: list[Tensor] = []
    num_mlps = 0
    for tensor in _stored(folder):
        layer, in_mlp, part = _place(tensor.name)
        if layer >= model.num_layers or tensor.name.endswith(_BUFFERS):
            continue  # which no class loads
        if not in_mlp:
            found.append(tensor)
            continue
        _check(tensor, part, model)
        num_mlps += 1
        found += _experts(tensor, layer, part, mixture)
        if part == "gate":
            found.append(_router(tensor, layer, mixture, Drawn(std, seed, layer)))
    if num_mlps != len(_MLP) * model.num_layers:
        raise bad_file(
            f"the weights of {model.id} are not those of {model.num_layers} layers",
            folder,
            why=f"{num_mlps} matrices are named as those of its MLPs, not "
            f"{len(_MLP) * model.num_layers} (model.layers.0.mlp.gate_proj.weight, ...)",
            do="fetch the weights again, as transformers saves them",
        )
    return found


def _stored(folder: Path) -> Iterator[Tensor]:
    """The dense model's weights, as they lie in its files."""
    for path in weight_files(folder):
        with path.open("rb") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
        places = []
        for name, entry in read_header(path).items():
            first, last = _ends(entry)
            tensor = Tensor(name, entry["dtype"], tuple(entry["shape"]), Zeros())
            if tensor.dtype not in WIDTHS or tensor.num_bytes != last - first:
                raise bad_file(
                    f"{path.name} holds {name[:80]!r} as {tensor.dtype[:20]}",
                    path,
                    why=f"a mixture is made of whole weights in {', '.join(WIDTHS)}",
                    do="use the weights that it was made from, or a copy of them in bfloat16",
                )
            places.append(
                (first, replace(tensor, source=Copied(path, begin + first, last - first)))
            )
        yield from (tensor for _, tensor in sorted(places, key=itemgetter(0)))


def _ends(entry: dict[str, Any]) -> tuple[int, int]:
    """Where a tensor's bytes begin and end among those of its file; (0, -1) if nobody says."""
    found = entry.get("data_offsets")
    is_pair = isinstance(found, list) and len(found) == 2 and all(type(n) is int for n in found)
    return (found[0], found[1]) if is_pair and found else (0, -1)


def _place(name: str) -> tuple[int, bool, str]:
    """The layer (-1 outside of all), whether it is of the MLP, and its part there."""
    found = _LAYER.match(name)
    if found is None:
        return -1, False, ""
    part = found[3] if found.end() == len(name) else None
    return int(found[1]), bool(found[2]), part or ""


def _check(tensor: Tensor, part: str, model: Model) -> None:
    wide, narrow = model.intermediate_size, model.hidden_size
    wanted = (narrow, wide) if part == "down" else (wide, narrow)
    if part and tensor.shape == wanted:
        return
    raise bad_file(
        f"the weights of {model.id} do not fit its config.json",
        tensor.name[:200],
        why=f"an MLP of {model.model_type} models has no weight of this name and shape "
        f"{tensor.shape}",
        do="fetch config.json and the weights again, both from one place",
    )


def _experts(tensor: Tensor, layer: int, part: str, mixture: Model) -> Iterator[Tensor]:
    """The copies of one matrix, and its rows that the shared expert starts with."""
    experts, source = mixture.experts, tensor.source
    assert experts is not None
    assert isinstance(source, Copied)
    block = _block(layer, mixture)
    last = _MIXTRAL[part] if mixture.model_type == "mixtral" else f"{part}_proj"
    for number in range(experts.num_experts):
        name = f"{block}.experts.{number}.{last}.weight"
        yield Tensor(name, tensor.dtype, tensor.shape, source)
    if not experts.shared_width:
        return
    name = f"{block}.shared_expert.{part}_proj.weight"
    width, h = experts.shared_width, mixture.hidden_size
    if part == "down":  # it gives nothing yet, and learns as what it reads is no zero
        yield Tensor(name, tensor.dtype, (h, width), Zeros())
        return
    rows = Copied(source.path, source.start, width * h * WIDTHS[tensor.dtype])
    yield Tensor(name, tensor.dtype, (width, h), rows)
    if part == "gate":
        yield Tensor(f"{block}.shared_expert_gate.weight", tensor.dtype, (1, h), Zeros())


def _router(tensor: Tensor, layer: int, mixture: Model, drawn: Drawn) -> Tensor:
    assert mixture.experts is not None
    shape = (mixture.experts.num_experts, mixture.hidden_size)
    return Tensor(f"{_block(layer, mixture)}.gate.weight", tensor.dtype, shape, drawn)


def _block(layer: int, mixture: Model) -> str:
    name = "block_sparse_moe" if mixture.model_type == "mixtral" else "mlp"
    return f"model.layers.{layer}.{name}"


def drawn_bytes(tensor: Tensor, source: Drawn) -> bytes:
    """The numbers of a new weight, little endian in its type."""
    chance = random.Random(f"{source.seed}/{source.layer}")  # noqa: S311  # no secret
    count = math.prod(tensor.shape)
    values = [chance.gauss(0.0, source.std) for _ in range(count)]
    if tensor.dtype == "F16":
        return struct.pack(f"<{count}e", *values)
    exact = struct.pack(f"<{count}f", *values)
    if tensor.dtype == "F32":
        return exact
    bits = struct.unpack(f"<{count}I", exact)
    return struct.pack(f"<{count}H", *((one + 0x7FFF + (one >> 16 & 1)) >> 16 for one in bits))
