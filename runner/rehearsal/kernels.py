"""What torch's meta kernels do not tell of CUDA's: results that depend on values, and workspaces.

A mask picks everything, which is the most that it can; numbers that Python reads back are one. The
workspaces are those of torch 2.13 (aten/src/ATen/native/cuda/SoftMax.cu and
native/transformers/cuda/flash_attn/flash_api.cpp, mem_eff_attention/kernel_backward.h).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from runner.rehearsal.fake_tensor import META, FakeCudaTensor

_aten = torch.ops.aten


def _scalar(tensor: torch.Tensor) -> Any:
    if not isinstance(tensor, FakeCudaTensor):
        return NotImplemented
    return (
        FakeCudaTensor.truth
        if tensor.dtype is torch.bool
        else (1.0 if tensor.is_floating_point() else 1)
    )


def _nonzero(tensor: torch.Tensor) -> Any:
    return torch.empty((tensor.numel(), tensor.dim()), dtype=torch.long, device=META)


def _index(tensor: torch.Tensor, indices: Any) -> Any:
    """Rows picked by a mask: all of them."""
    if not any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices):
        return NotImplemented
    shape, position = [], 0
    for index in indices:
        if index is None:
            shape.append(tensor.shape[position])
            position += 1
            continue
        if index.dtype not in (torch.bool, torch.uint8):
            return NotImplemented
        shape.append(index.numel())
        position += index.dim()
    shape += tensor.shape[position:]
    return torch.empty(shape, dtype=tensor.dtype, device=META)


def _written(tensor: torch.Tensor, *_: Any, **__: Any) -> Any:
    """Values go into the tensor itself."""
    return tensor


def _written_in_backward(tensor: torch.Tensor, *_: Any, **__: Any) -> Any:
    """Autograd copies zeros before it writes into them only for subclasses of Tensor and modes."""
    return tensor if _in_backward() else NotImplemented


def _in_backward() -> bool:
    """Whether a node of autograd's backward pass is what runs."""
    return torch._C._current_autograd_node() is not None  # noqa: SLF001  # no public name


def _grouped_mm(
    left: torch.Tensor, right: torch.Tensor, offs: Any = None, _: Any = None, kind: Any = None
) -> Any:
    """CUDA and the CPU multiply groups in any floating type; the meta kernel knows bf16 only."""
    if left.dim() == 2 and right.dim() == 2:
        shape = [offs.shape[0], left.shape[0], right.shape[1]]
    else:
        shape = [*left.shape[:-1], right.shape[-1]]
    width = -(-shape[-1] * left.dtype.itemsize // 16) * 16 // left.dtype.itemsize
    padded = torch.empty([*shape[:-1], width], dtype=kind or left.dtype, device=META)
    return padded[..., : shape[-1]]


RULES: dict[Any, Callable[..., Any]] = {
    _aten._local_scalar_dense.default: _scalar,  # noqa: SLF001
    _aten.is_nonzero.default: _scalar,
    _aten.nonzero.default: _nonzero,
    _aten.index.Tensor: _index,
    _aten._grouped_mm.default: _grouped_mm,  # noqa: SLF001
    _aten.index_put_.default: _written,
    _aten._index_put_impl_.default: _written,
    _aten.index_put.default: _written_in_backward,
    _aten.scatter.src: _written_in_backward,
    _aten.scatter.value: _written_in_backward,
    _aten.scatter_add.default: _written_in_backward,
}


def _softmax_backward(grad: torch.Tensor, output: torch.Tensor, *_: Any) -> int:
    """The product of gradient and output, made whole before the kernel reduces it."""
    return int(max(grad.nbytes, output.nbytes))


def _flash_backward(_grad: Any, query: Any, key: Any, *_: Any, **__: Any) -> int:
    """The query's gradient in fp32, the softmax's sums; keys and values for every query head."""
    batch, heads, rows, width = query.shape
    step = 32 if width <= 128 else 64
    rows, wide = -(-rows // 128) * 128, -(-width // step) * step
    total: int = 4 * batch * heads * rows * (wide + 1)
    if key.shape[1] != heads:
        total += 2 * batch * heads * key.shape[2] * width * query.element_size()
    return total


def _efficient_backward(_grad: Any, query: Any, *_: Any, **__: Any) -> int:
    """The query's gradient in fp32 where it is returned in 16 bits, and a sum for every row."""
    batch, heads, rows, width = query.shape
    accumulated = 4 * width if query.element_size() < 4 else 0
    total: int = batch * heads * -(-rows // 64) * 64 * (accumulated + 4)
    return total


WORKSPACES: dict[Any, Callable[..., int]] = {
    getattr(_aten, name).default: workspace
    for name, workspace in (
        ("_softmax_backward_data", _softmax_backward),
        ("_scaled_dot_product_flash_attention_backward", _flash_backward),
        ("_scaled_dot_product_efficient_attention_backward", _efficient_backward),
    )
}
"""Bytes that a CUDA kernel allocates beside its results."""
