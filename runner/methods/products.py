"""What adapters add to weights as products of small matrices, and their norms without the product.

Adapters of one shape are taken together: a model has hundreds, and each would be a handful of
kernels.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch.distributed.tensor import DTensor

from profiles.layer_facts import LinearNorms

_LAYER = re.compile(r"^(?:.*?\.)?(\d+)\.")
_WRAPPERS = re.compile(r"\.base_layer(?=\.|$)")
_CHUNK = 1 << 24
"""Weights of a base matrix that are squared at once."""
_DIGITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The update of one weight: scale * left @ right, over all matrices of a stack."""

    name: str
    """Of the adapted module in the model."""
    left: torch.Tensor
    """(..., out, rank)."""
    right: torch.Tensor
    """(..., rank, in)."""
    scale: float
    weight: Any
    """Gives the weight that it is added to, or None where that would cost too much."""


def undivided(tensor: torch.Tensor) -> torch.Tensor:
    """One that may be divided among the ranks, in fp32 on each of them."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).float()


def norms(found: list[Product]) -> list[float]:
    """|scale left right| in Frobenius' norm, from the Gram matrices of both, in their order.

    |LR|^2 = tr(L^T L R R^T), and both are of the size of the rank. Waits for the device once.
    """
    alike: defaultdict[Any, list[int]] = defaultdict(list)
    for place, one in enumerate(found):
        alike[one.left.shape, one.right.shape].append(place)
    squares: list[torch.Tensor] = [torch.empty(0)] * len(found)
    for places in alike.values():  # all are detached
        left = torch.stack([found[n].left for n in places])
        right = torch.stack([found[n].right for n in places])
        grams = (left.mT @ left) * (right @ right.mT)
        for place, square in zip(places, grams.flatten(1).sum(1), strict=True):
            squares[place] = square
    if not squares:
        return []
    of_all = torch.stack(squares).clamp(min=0).sqrt().tolist()
    return [one.scale * norm for one, norm in zip(found, of_all, strict=True)]


def norm_of(weight: Any) -> float | None:
    """Of a base weight, in fp32 piece by piece; None where it was not measured."""
    if weight is None:
        return None
    if isinstance(weight, DTensor):
        found = torch.linalg.vector_norm(weight.detach(), dtype=torch.float32)
        return float(found.full_tensor())
    pieces = weight.detach().flatten().split(_CHUNK)
    return math.sqrt(sum(float(piece.float().square().sum()) for piece in pieces))


def weight_of(module: Any) -> torch.Tensor | None:
    """Of a linear, a 4-bit one's as it is computed with.

    None of an 8-bit one, and of 4 bits that are divided among ranks: they look like numbers.
    """
    weight = module.weight
    if hasattr(module, "quant_state"):  # bitsandbytes' linears of 4 bits
        is_whole = type(weight).__name__ == "Params4bit" and weight.quant_state is not None
        return dequantize_module_weight(module) if is_whole else None
    return weight if weight.is_floating_point() else None


def by_linear(
    found: list[Product], of_updates: list[float], of_weights: list[float | None]
) -> Iterator[LinearNorms]:
    """All linears of one name together, their layers in order."""
    rows: defaultdict[str, list[tuple[int, float | None, float | None]]] = defaultdict(list)
    for one, update, weight in zip(found, of_updates, of_weights, strict=True):
        path = _WRAPPERS.sub("", one.name)
        number = _LAYER.match(path)
        layer, name = (int(number[1]), path[number.end() :]) if number else (-1, path)
        rows[name].append((layer, _rounded(update), _rounded(update / weight if weight else None)))
    for name, unordered in rows.items():
        layers, updates, relative = zip(*sorted(unordered), strict=True)
        is_measured = any(share is not None for share in relative)
        yield LinearNorms(
            name=name, layers=layers, norms=updates, relative=relative if is_measured else ()
        )


def _rounded(value: float | None) -> float | None:
    is_number = value is not None and math.isfinite(value)
    return float(f"{value:.{_DIGITS}g}") if is_number else None
