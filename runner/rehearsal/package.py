"""The flash-attn package's attention, for where the package is missing.

transformers refuses "flash_attention_2" without it, so a stand-in is registered under its own name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from runner.rehearsal import autocast_rules
from runner.rehearsal.fake_tensor import FakeCudaTensor
from runner.rehearsal.stand_ins import Call, flash

_NAME = "rehearsed_fa"


def register() -> str:
    """Tell transformers of the stand-in; returns the name to ask for."""
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415
    from transformers.masking_utils import flash_attention_mask  # noqa: PLC0415

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, flash_attention_mask)
    return _NAME


def _attention(  # transformers' own signature
    _module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """As flash_attention_forward: 16 bits, one width of heads, padding taken out and put back."""
    width, value_width = query.shape[-1], value.shape[-1]
    if query.dtype is torch.float32:
        device = FakeCudaTensor.pretended.type
        narrow = torch.is_autocast_enabled(device)
        kind = torch.get_autocast_dtype(device) if narrow else torch.bfloat16
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    if value_width != width:
        value = functional.pad(value, (0, width - value_width))
    batch, rows = query.shape[0], query.shape[2]
    if attention_mask is not None:
        query, key, value = (_unpadded(tensor) for tensor in (query, key, value))
    with autocast_rules.suspended():
        call = Call(
            query=query,
            key=key,
            value=value,
            mask=None,
            dropout=dropout,
            causal=True,
            scale=scaling,
            grouped=True,
        )
        out = flash(call).transpose(1, 2)
    if attention_mask is not None:
        whole = out.new_zeros((batch * rows, *out.shape[2:]))
        index = torch.zeros(batch * rows, dtype=torch.long, device=out.device)
        out = whole.index_put((index,), out[0]).view(batch, rows, *out.shape[2:])
    return out[..., :value_width], None


def _unpadded(tensor: Any) -> Any:
    """Rows gathered into one; as many as there are, the most that it can be."""
    flat = tensor.transpose(1, 2).reshape(-1, tensor.shape[1], tensor.shape[3])
    index = torch.zeros(flat.shape[0], dtype=torch.long, device=tensor.device)
    return flat.index_select(0, index).unsqueeze(0).transpose(1, 2)
