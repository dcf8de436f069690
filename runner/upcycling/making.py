"""A mixture written as a model folder, which has its name when it is whole and not before.

Weights go from file to file in pieces of a few MiB: what is read and written is far larger than the
memory that it passes through. Everything is looked at before the first byte is written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from advisor.choice.upcycle import AUX_LOSS, NUM_EXPERTS, TOP_K, obstacle, upcycled
from profiles import user_files
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models.model import CONFIG_NAME, from_folder
from profiles.models.safe_config import read_config, read_json
from profiles.models.safetensors_header import INDEX_NAME
from profiles.quantities import bytes_text
from profiles.runs import durable
from runner.side_files import side_files
from runner.upcycling import tensors
from runner.upcycling.configuration import mixture_config
from runner.upcycling.tensors import Copied, Drawn, Tensor

MARK_NAME: Final = "upcycling.json"
"""Says what a mixture was made of; by it a folder is known as one of ours."""
SHARD_BYTES: Final = 5_000_000_000
"""Of a weight file at most, unless one tensor is larger."""
_PIECE_BYTES: Final = 8 << 20
_MARGIN_BYTES: Final = 64 << 20
"""Room left free, and for the small files."""
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_SHARED: Final = 0o666
"""Permissions of a file of the user's own, less the umask."""

Progress = Callable[[int, int], None]
"""Told (bytes written, bytes to write)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What mixture is wanted."""

    experts: int = NUM_EXPERTS
    top_k: int = TOP_K
    aux_loss: float = AUX_LOSS
    seed: int = 0
    """Of the router's weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcycling:
    """A mixture that can be made."""

    base: Path
    mixture: Model
    config: dict[str, Any]
    shards: tuple[tuple[Tensor, ...], ...]
    """Weights by the files that they go to."""
    mark: dict[str, Any]

    @property
    def num_bytes(self) -> int:
        """Of all weights."""
        return sum(tensor.num_bytes for shard in self.shards for tensor in shard)


def prepare(folder: Path, asked: Asked) -> Upcycling:
    """Look at a dense model and at what is asked; UserError where no mixture can be made of it."""
    model = from_folder(folder)
    _refuse(model, asked, folder)
    mixture = upcycled(model, asked.experts, asked.top_k)
    dense = read_config(folder / CONFIG_NAME, lambda _: True)  # that of transformers is taken
    config = mixture_config(dense, model, mixture, asked.aux_loss)
    std = config["initializer_range"]
    planned = tensors.plan(folder, model, mixture, std=std, seed=asked.seed)
    return Upcycling(
        base=folder,
        mixture=mixture,
        config=config,
        shards=tuple(_shards(planned)),
        mark={"schema": 1, "base": model.id, **asdict(asked), "router_std": std},
    )


def _refuse(model: Model, asked: Asked, folder: Path) -> None:
    if asked.top_k > asked.experts:
        raise UserError(
            f"a token cannot visit {asked.top_k} of {asked.experts} experts",
            why="--top-k is the number of experts that the router chooses for each token",
            do=f"give --top-k 1 to {asked.experts}, or more --experts",
            where="--top-k",
            code=ExitCode.USAGE,
        )
    reason = obstacle(model)
    if not reason and model.weight_bytes is None:
        reason = "there are no weights in its folder"
    if reason:
        raise UserError(
            f"{model.id} cannot be upcycled",
            why=reason,
            do="give a dense model with its weights, or fine-tune this one as it is",
            where=str(folder),
            code=ExitCode.REFUSED,
        )


def _shards(planned: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """In order, as many as a file may hold."""
    found: list[Tensor] = []
    size = 0
    for tensor in planned:
        if found and size + tensor.num_bytes > SHARD_BYTES:
            yield tuple(found)
            found, size = [], 0
        found.append(tensor)
        size += tensor.num_bytes
    yield tuple(found)


def check_room(found: Upcycling, parent: Path) -> None:
    """UserError (CANNOT_CREATE) if the disk has too little room; one that cannot be asked may."""
    try:
        free = shutil.disk_usage(parent).free
    except OSError:
        return
    needed = found.num_bytes + _MARGIN_BYTES
    if free < needed:
        raise UserError(
            f"there is no room for {found.mixture.id}",
            why=f"it takes {bytes_text(needed)}, and {bytes_text(free)} are free",
            do="make room there, name a folder on another disk, or ask for fewer --experts",
            where=str(parent),
            code=ExitCode.CANNOT_CREATE,
        )


def make(found: Upcycling, final: Path, *, replaces: bool = False, told: Progress) -> None:
    """Write the model folder `final`; OSError where that cannot be, and then nothing is left."""
    with user_files.folder(final, replaces=replaces) as staging:
        _write_weights(found, staging, told)
        for name, value in ((CONFIG_NAME, found.config), (MARK_NAME, found.mark)):
            _write(staging / name, iter([_json(value)]))
        for path in side_files(found.base):
            place = staging / path.relative_to(found.base)
            if not place.parent.exists():
                durable.disk.mkdir(place.parent)
            _write(place, _pieces(path))


def _write_weights(found: Upcycling, folder: Path, told: Progress) -> None:
    done, count = 0, len(found.shards)
    places: dict[str, str] = {}
    for number, shard in enumerate(found.shards, 1):
        name = f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
        places |= dict.fromkeys((tensor.name for tensor in shard), name)

        def noted(pieces: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal done
            for piece in pieces:
                yield piece
                done += len(piece)
                told(done, found.num_bytes)

        _write(folder / name, _chain(_header(shard), noted(_data(shard))))
    if count > 1:
        index = {"metadata": {"total_size": found.num_bytes}, "weight_map": places}
        _write(folder / INDEX_NAME, iter([_json(index)]))


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _header(shard: Sequence[Tensor]) -> bytes:
    """Eight bytes of length, then what lies where; the data begin at a multiple of 8."""
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in shard:
        ends = [at, at + tensor.num_bytes]
        content[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": ends,
        }
        at = ends[1]
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _data(shard: Sequence[Tensor]) -> Iterator[bytes]:
    for tensor in shard:
        source = tensor.source
        if isinstance(source, Copied):
            yield from _pieces(source.path, source.start, source.num_bytes)
        elif isinstance(source, Drawn):
            yield tensors.drawn_bytes(tensor, source)
        else:
            yield bytes(tensor.num_bytes)


def _pieces(path: Path, start: int = 0, num_bytes: int | None = None) -> Iterator[bytes]:
    """So many bytes of a file, or all; OSError if it has fewer."""
    with path.open("rb", buffering=0) as file:
        left = os.fstat(file.fileno()).st_size if num_bytes is None else num_bytes
        file.seek(start)
        while left:
            piece = file.read(min(left, _PIECE_BYTES))
            if not piece:
                raise OSError(f"{path.name} became shorter while it was read")
            left -= len(piece)
            yield piece


def _write(path: Path, pieces: Iterator[bytes]) -> None:
    fd = durable.disk.open(path, _NEW_FILE, _SHARED)
    try:
        for piece in pieces:
            durable.disk.write(fd, piece)
        durable.disk.fsync(fd)
    finally:
        os.close(fd)


def _json(value: Any) -> bytes:
    return durable.json_bytes(value)


def made_of(folder: Path) -> dict[str, Any] | None:
    """What a mixture of ours says that it was made of; None for any other folder."""
    if not (folder / MARK_NAME).is_file():
        return None
    try:
        found = read_json(folder / MARK_NAME)
    except UserError:
        return None
    return found if "base" in found and (folder / CONFIG_NAME).is_file() else None
