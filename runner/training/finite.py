"""Weights that are no numbers, of a base or an adapter, are refused: nothing can be learnt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from profiles.errors import ExitCode, UserError

_AROUND = ("base_model.model.", "base_layer.", "parametrizations.")
"""What PEFT and torch put into the names of a model's own weights."""


def refuse_adapter(folder: Path) -> None:
    """UserError (BAD_DATA) with the first tensor of an adapter's files that is not finite."""
    for file in sorted(folder.glob("*.safetensors")):
        for name, values in load_file(file).items():
            if not torch.isfinite(values).all():
                raise UserError(
                    "the adapter holds values that are not finite",
                    why=f"{name} holds NaN or infinite values",
                    do="get its files again from where they came, or name another adapter",
                    where=str(folder),
                    code=ExitCode.BAD_DATA,
                )


def refuse_base(model: torch.nn.Module, folder: Path) -> None:
    """UserError (BAD_DATA) with the first weight that holds NaN or an infinite value.

    Of a quantized weight its scales are looked at; NaN in them makes the whole block NaN.
    """
    for name, values in _values(model):
        wrong = ~torch.isfinite(values)
        if wrong.any():
            raise UserError(
                "the base model holds values that are not finite",
                why=f"{_plain(name)} holds NaN or infinite values",
                do="get the model's files again from where they came, or another version of it",
                where=str(folder),
                code=ExitCode.BAD_DATA,
            )


def _values(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in model.named_parameters():
        state = getattr(weight, "quant_state", None)
        values = weight.detach() if state is None else _scales(state)
        if values.is_floating_point():
            yield name, values


def _scales(state: Any) -> torch.Tensor:
    """Of a 4-bit weight; where they are quantized too, their own scales and their mean."""
    if not state.nested:
        return state.absmax
    return torch.cat([state.offset.reshape(1), state.state2.absmax])


def _plain(name: str) -> str:
    """As the model's files call it."""
    for part in _AROUND:
        name = name.replace(part, "")
    return name.removesuffix(".original")
