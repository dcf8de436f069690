"""The operators that CUDA chooses where torch would take others for a meta tensor.

Attention goes to the fused operator whose own autograd formula says what is saved (torch 2.13,
aten/src/ATen/native/transformers/attention.cpp and cuda/sdp_utils.cpp). cuDNN's, which Hopper may
prefer, saves the same tensors as flash attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from runner.rehearsal import autocast_rules
from runner.rehearsal.fake_tensor import FakeCudaTensor

_aten = torch.ops.aten
_HALF = (torch.float16, torch.bfloat16)
_FLASH_CAPABILITY = (8, 0)
"""Compute capability from which on CUDA's flash kernel runs: Ampere."""
_FLASH_HEAD = 256
"""Widest head of CUDA's flash kernel."""
_FLASH_ALIGNMENT = 8
"""Heads are padded to a multiple of it."""
_BIAS_ALIGNMENT = 16
"""Columns that the memory-efficient kernel wants a mask padded to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attention."""

    query: Any
    key: Any
    value: Any
    mask: Any
    dropout: float
    causal: bool
    scale: float | None
    grouped: bool


def attention(  # noqa: PLR0913, PLR0917  # torch's own signature
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """scaled_dot_product_attention by the kernel that the pretended device would take."""
    device = FakeCudaTensor.pretended.type
    if torch.is_autocast_enabled(device):
        kind = torch.get_autocast_dtype(device)
        value, key, query = (
            value.to(kind),
            key.to(kind),
            query.to(kind),
        )  # last first: autocast_rules.py
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(kind)
    with autocast_rules.suspended():  # as in all that an operator calls which autocast has seen
        if attn_mask is not None and attn_mask.dtype is torch.bool:
            minus = torch.full((), -torch.inf, dtype=query.dtype, device=query.device)
            attn_mask = torch.where(attn_mask, 0.0, minus)
        call = Call(
            query=query,
            key=key,
            value=value,
            mask=attn_mask,
            dropout=dropout_p,
            causal=is_causal,
            scale=scale,
            grouped=enable_gqa,
        )
        return _kernel_for(call)(call)


def _kernel_for(call: Call) -> Callable[[Call], Any]:
    query = call.query
    one_width = query.shape[-1] == call.key.shape[-1] == call.value.shape[-1]
    if FakeCudaTensor.pretended.type == "cpu":
        return _flash_on_cpu if one_width else _plain
    narrow = query.dtype in _HALF and query.shape[-1] <= _FLASH_HEAD
    recent = FakeCudaTensor.capability >= _FLASH_CAPABILITY
    if call.mask is None and one_width and narrow and recent:
        return flash
    # No other kernel has grouped heads: in fp32, or before Ampere, torch takes the plain formula.
    return _efficient if query.shape[1] == call.key.shape[1] else _plain


def flash(call: Call) -> Any:
    """CUDA's flash kernel; it has grouped heads and takes no mask."""
    width, scale = call.query.shape[-1], call.scale
    tensors = (call.query, call.key, call.value)
    missing = -width % _FLASH_ALIGNMENT
    if missing:
        tensors = tuple([functional.pad(tensor, (0, missing)) for tensor in tensors])
        scale = scale or width**-0.5
    run = _aten._scaled_dot_product_flash_attention  # noqa: SLF001  # what the public one calls
    out = run(*tensors, call.dropout, call.causal, scale=scale)[0]
    return out[..., :width] if missing else out


def _flash_on_cpu(call: Call) -> Any:
    run = _aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    tensors = (call.query, call.key, call.value)
    return run(*tensors, call.dropout, call.causal, attn_mask=call.mask, scale=call.scale)[0]


def _efficient(call: Call) -> Any:
    """The memory-efficient kernel: any type and mask, one key for every query head."""
    mask, tensors = call.mask, (call.query, call.key, call.value)
    if mask is not None:
        columns = mask.shape[-1]
        missing = -columns % _BIAS_ALIGNMENT
        if missing:
            mask = functional.pad(mask, (0, missing))[..., :columns]
        mask = mask.expand(*call.query.shape[:3], call.key.shape[2])
    graded = any(tensor.requires_grad for tensor in tensors)
    run = _aten._scaled_dot_product_efficient_attention  # noqa: SLF001
    return run(*tensors, mask, graded, call.dropout, call.causal, scale=call.scale)[0]


def _plain(call: Call) -> Any:
    """The formula, with whole scores."""
    run = _aten._scaled_dot_product_attention_math.default  # noqa: SLF001
    tensors = (call.query, call.key, call.value)
    options = {"scale": call.scale, "enable_gqa": call.grouped}
    return run(*tensors, call.mask, call.dropout, call.causal, None, **options)[0]


def dropout(
    input: Any,  # noqa: A002  # torch's own name
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> Any:
    """CUDA's fused dropout keeps a byte mask; the CPU's composite one keeps a factor."""
    if not training or p == 0:
        return input
    if FakeCudaTensor.pretended.type == "cpu" or p == 1:
        return torch.dropout_(input, p, training) if inplace else torch.dropout(input, p, training)
    return torch.native_dropout(input, p, True)[0]


DETOURS: dict[Any, Callable[..., Any]] = {
    functional.scaled_dot_product_attention: attention,
    functional.dropout: dropout,
}
