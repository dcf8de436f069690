"""Shifted sparse attention in training (LongLoRA, arXiv 2309.12307, section 3.2).

A row is divided into four groups, within which attention is causal; for the second half of the
heads rows are shifted by half a group first, so that groups know of each other. As its authors'
code has it, a shifted row is closed to a ring: its last group has the row's end before its
beginning. In evaluation attention is full.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations import sdpa_attention
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from advisor.graph.attention import GROUPS

_NAME: Final = "shifted_sparse"


def use(model: Any) -> None:
    """Let all layers of a model attend so; RuntimeError if its attention cannot be exchanged."""
    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)
    if model.config._attn_implementation != _NAME:  # noqa: SLF001  # the library says no otherwise
        raise RuntimeError(f"{type(model).__name__} keeps its own attention")


def attention(  # the library's signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Of queries (rows, heads, length, width); returns (rows, length, heads, width).

    Full where it is not training, where rows are padded, and where a length has no such groups, as
    the last row of joined texts.
    """
    rows, heads, length, width = query.shape
    if not module.training or attention_mask is not None or length % (2 * GROUPS):
        found: tuple[torch.Tensor, None] = sdpa_attention.sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return found
    shares_keys = key.shape[1] % 2 == 0 and sdpa_attention.use_gqa_in_sdpa(None, key, value)
    if key.shape[1] != heads and not shares_keys:
        times = heads // key.shape[1]
        key, value = (sdpa_attention.repeat_kv(one, times) for one in (key, value))
    half = length // GROUPS // 2
    q, k, v = (_in_groups(_shifted(one.transpose(1, 2), -half)) for one in (query, key, value))
    out = scaled_dot_product_attention(
        q,
        k,
        v,
        dropout_p=dropout,
        scale=scaling,
        is_causal=True,
        enable_gqa=key.shape[1] != heads,
    )
    return _shifted(out.transpose(1, 2).reshape(rows, length, heads, width), half), None


def _shifted(x: torch.Tensor, by: int) -> torch.Tensor:
    """(rows, length, heads, width), the second half of the heads rolled along the rows."""
    half = x.shape[2] // 2
    return torch.cat([x[:, :, :half], x[:, :, half:].roll(by, dims=1)], dim=2)


def _in_groups(x: torch.Tensor) -> torch.Tensor:
    """(rows x groups, heads, length of a group, width)."""
    rows, length, heads, width = x.shape
    return x.reshape(rows * GROUPS, length // GROUPS, heads, width).transpose(1, 2)
