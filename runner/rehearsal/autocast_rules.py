"""Autocast for fake tensors: the same casts, in the same places, as torch makes on the real device.

The lists are those of torch 2.13's ATen/autocast_mode.h (CUDA) and autocast_mode.cpp (CPU, as far
as language models call it). A cast of a trained fp32 weight is kept until the outermost autocast
ends, as torch's cache does; the cache is what keeps casts of all layers alive in a forward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch.utils._pytree import tree_iter

from runner.rehearsal.fake_tensor import CARRIER, FakeCudaTensor

_aten = torch.ops.aten

_CUDA: Final = {
    "lower": "conv1d conv2d conv3d conv_transpose1d convolution prelu addmm addmv addr matmul "
    "einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot "
    "_scaled_dot_product_flash_attention scaled_dot_product_attention",
    "wide": "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan "
    "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm "
    "group_norm cosine_similarity nll_loss nll_loss2d kl_div l1_loss smooth_l1_loss huber_loss "
    "mse_loss binary_cross_entropy_with_logits dist cdist renorm logsumexp",
    "wide_result": "prod prod.dim_int softmax.int log_softmax.int cumprod cumsum "
    "linalg_vector_norm sum sum.dim_IntList",
    "widest": "addcdiv addcmul atan2 cross dot vdot index_put tensordot scatter_add cat stack",
}
"""Operators that autocast knows on CUDA, by what it does to them."""
_CPU: Final = {
    "lower": "conv1d conv2d conv3d bmm mm linalg_vecdot baddbmm addmm addbmm linear matmul prelu "
    "scaled_dot_product_attention",
    "widest": "stack cat index_copy",
}
_OWN_KERNEL: Final = ("silu_backward", "mish_backward", "native_channel_shuffle")
"""Operators that CPU and CUDA have kernels for and others compose: the carrier must claim one."""
_KEY: Final = "AutocastHPU"
_OURS = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastHPU)  # noqa: SLF001
_cache: dict[int, tuple[Any, Any]] = {}


def _never(*_: Any) -> None:
    raise AssertionError("fake tensors are dispatched before any device's kernel")


def forget_casts() -> None:
    """What torch.clear_autocast_cache does for real tensors."""
    _cache.clear()


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """Our autocast in torch's dispatcher, by the pretended device's lists, while inside."""
    fallback = torch.library.Library("_", "IMPL", _KEY)
    fallback.fallback(torch.library.fallthrough_kernel)
    library = torch.library.Library("aten", "IMPL")
    for policy, names in (_CPU if FakeCudaTensor.pretended.type == "cpu" else _CUDA).items():
        for name in names.split():
            library.impl(name, _kernel(name, _POLICIES[policy]), _KEY)
    for name in _OWN_KERNEL:
        library.impl(name, _never, CARRIER.type.upper())
    before = torch.is_autocast_enabled(CARRIER.type)
    torch.set_autocast_enabled(CARRIER.type, True)  # ours, not the device's
    try:
        yield
    finally:
        torch.set_autocast_enabled(CARRIER.type, before)
        forget_casts()
        library._destroy()  # noqa: SLF001  # as torch.library's own scoped use does
        fallback._destroy()  # noqa: SLF001


def suspended() -> contextlib.AbstractContextManager[None]:
    """No autocast inside, as below an operator that it has seen."""
    guard: contextlib.AbstractContextManager[None]
    guard = torch._C._ExcludeDispatchKeyGuard(_OURS)  # noqa: SLF001  # as FakeTensorMode does
    return guard


def _kernel(name: str, policy: Callable[..., Any]) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(_aten, packet), overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with suspended():
            if name == "softmax.int" and _is_fused_softmax(args, kwargs):
                return _aten._softmax.default(args[0], args[1], True)  # noqa: SLF001
            device = FakeCudaTensor.pretended.type
            if not torch.is_autocast_enabled(device):
                return op(*args, **kwargs)
            return policy(op, args, kwargs, torch.get_autocast_dtype(device))

    return kernel


def _is_fused_softmax(args: Any, kwargs: Any) -> bool:
    """CUDA takes fp16 to an fp32 softmax without an fp32 copy of the input, and no other type."""
    wide = (args[2] if len(args) > 2 else kwargs.get("dtype")) is torch.float32
    return wide and args[0].dtype is torch.float16 and FakeCudaTensor.pretended.type == "cuda"


def _lower(op: Any, args: Any, kwargs: Any, kind: torch.dtype) -> Any:
    return op(*_cast(args, kind), **_cast(kwargs, kind))


def _wide(op: Any, args: Any, kwargs: Any, _: torch.dtype) -> Any:
    return op(*_cast(args, torch.float32), **_cast(kwargs, torch.float32))


def _wide_result(op: Any, args: Any, kwargs: Any, _: torch.dtype) -> Any:
    """Sums and softmaxes return fp32 unless told otherwise."""
    names = [argument.name for argument in op._schema.arguments]  # noqa: SLF001
    position = names.index("dtype")
    given = args[position] if len(args) > position else kwargs.get("dtype")
    if given is None and args[0].is_floating_point():
        kwargs = {**kwargs, "dtype": torch.float32}
        args = args[:position]
    return op(*args, **kwargs)


def _widest(op: Any, args: Any, kwargs: Any, kind: torch.dtype) -> Any:
    leaves = [leaf for leaf in tree_iter(args) if isinstance(leaf, FakeCudaTensor)]
    kinds = {leaf.dtype for leaf in leaves if leaf.is_floating_point()}
    wide = torch.float32 if torch.float32 in kinds else kind
    return op(*_cast(args, wide), **kwargs)


_POLICIES: Final = {
    "lower": _lower,
    "wide": _wide,
    "wide_result": _wide_result,
    "widest": _widest,
}


def _cast(value: Any, kind: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return _cast_tensor(value, kind)
    if isinstance(value, tuple | list):
        # From the last to the first: so GCC evaluates arguments.
        return type(value)([_cast(part, kind) for part in reversed(value)][::-1])
    if isinstance(value, dict):
        return {name: _cast(part, kind) for name, part in value.items()}
    return value


def _cast_tensor(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    eligible = isinstance(tensor, FakeCudaTensor) and tensor.is_floating_point()
    if not eligible or tensor.dtype in (kind, torch.float64):
        return tensor
    kept = (
        kind is not torch.float32
        and tensor.dtype is torch.float32
        and tensor.requires_grad
        and tensor.is_leaf
        and not tensor._is_view()  # noqa: SLF001
        and torch.is_autocast_cache_enabled()
    )
    if not kept:
        return tensor.to(kind)
    known = _cache.get(id(tensor))
    if known is None:
        known = (tensor, tensor.to(kind))
        _cache[id(tensor)] = known
    return known[1]
