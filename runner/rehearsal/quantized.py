"""Linears with 4-bit and 8-bit weights, with the storage and temporaries of bitsandbytes 0.50.

They are bitsandbytes' classes by inheritance, so that PEFT takes them for such, with forward and
backward passes that allocate what the CUDA ones do (autograd/_functions.py, backends/cuda/ops.py):
4 bits for more than 1536 rows, where the weight is dequantized; 8 bits without outlier columns.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrize import register_parametrization

from runner.methods.expert_targets import experts_of
from runner.rehearsal.setup import Setup

_BLOCK = 64
"""4-bit weights per block scale."""
_OUTER_BLOCK = 256
"""Block scales per scale of their own."""


def quantize(model: nn.Module, setup: Setup, *, skip: Any) -> None:
    """Put quantized linears in the place of all but `skip`, as transformers does on loading.

    Experts in one three-dimensional parameter are no linears: they are packed as the worker does.
    """
    kind = four_bit_class() if setup.weight_bits == 4 else eight_bit_class()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear and child is not skip:
                setattr(module, name, kind(child, setup))
    if setup.quantized_experts:
        _pack_experts(model, setup)
    model.requires_grad_(requires_grad=False)
    model.is_quantized = True
    setattr(model, f"is_loaded_in_{setup.weight_bits}bit", True)


def _pack_experts(model: nn.Module, setup: Setup) -> None:
    """As bitsandbytes.nn.parametrize: whole again whenever they are read, cached for a pass."""
    from bitsandbytes.nn import parametrize  # noqa: PLC0415

    for _, module, names in list(experts_of(model)):
        for name in names:
            restored = _Restored(module.get_parameter(name), setup)
            setattr(module, name, _frozen((restored.num + 1) // 2, 1, kind=torch.uint8))
            register_parametrization(module, name, restored, unsafe=True)
            parametrize._register_parametrization_hooks(module, name)  # noqa: SLF001


class _Restored(nn.Module):  # type: ignore[misc]
    """The scales of one packed parameter, and what makes it whole."""

    def __init__(self, whole: nn.Parameter, setup: Setup) -> None:
        super().__init__()
        self.num = whole.numel()
        sizes = scale_tensors(self.num, double_quant=setup.double_quant)
        self.scales = nn.ParameterList([_frozen(n, kind=kind) for n, kind in sizes])
        self.state = SimpleNamespace(
            nested=setup.double_quant,
            num_blocks=-(-self.num // _BLOCK),
            shape=tuple(whole.shape),
            kind=whole.dtype,
        )
        self.num_saved = self.num - (self.num + 1) // 2 - sum(n for n, _ in sizes)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def forward(self, packed: torch.Tensor) -> torch.Tensor:
        """In the type that it was loaded in."""
        whole: torch.Tensor = _backward_weight(packed, self.state)
        return whole


def _frozen(*shape: int, kind: torch.dtype) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, dtype=kind), requires_grad=False)


def scale_tensors(num: int, *, double_quant: bool) -> list[tuple[int, torch.dtype]]:
    """(elements, type) of a 4-bit QuantState: the NF4 code, the block scales, and theirs."""
    blocks = -(-num // _BLOCK)
    code = (16, torch.float32)
    if not double_quant:
        return [code, (blocks, torch.float32)]
    outer = (-(-blocks // _OUTER_BLOCK), torch.float32)
    return [code, (blocks, torch.uint8), outer, (256, torch.float32), (1, torch.float32)]


class _FourBitMatmul(torch.autograd.Function):  # type: ignore[misc]
    """MatMul4Bit: saves no activation, dequantizes the weight once in each direction."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, packed: Any, bias: Any, state: Any) -> Any:
        ctx.state, ctx.packed = state, packed
        ctx.bias_kind = None if bias is None else bias.dtype
        return functional.linear(hidden, _forward_weight(packed, state, hidden.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        bias = gradient.sum(0, dtype=ctx.bias_kind) if ctx.needs_input_grad[2] else None
        if not ctx.needs_input_grad[0]:
            return None, None, bias, None
        whole = _backward_weight(ctx.packed, ctx.state)
        return torch.matmul(gradient, whole.to(gradient.dtype)), None, bias, None


def _forward_weight(packed: Any, state: Any, kind: torch.dtype) -> Any:
    """As _dequant_linear_fallback: it adds the offset to the fp32 scales out of place."""
    if not state.nested:
        return packed.new_empty(state.shape, dtype=kind)
    scales = packed.new_empty(state.num_blocks, dtype=torch.float32)
    shifted = scales + 0.0
    whole = packed.new_empty(state.shape, dtype=kind)
    del scales, shifted
    return whole


def _backward_weight(packed: Any, state: Any) -> Any:
    """As dequantize_4bit: one copy of the scales beside the weight."""
    scales = None
    if state.nested:
        scales = packed.new_empty(state.num_blocks, dtype=torch.float32)
    whole = packed.new_empty(state.shape, dtype=state.kind)
    del scales
    return whole


def four_bit_class() -> Any:
    """A subclass of bitsandbytes' Linear4bit; needs bitsandbytes."""
    from bitsandbytes.nn import Linear4bit  # noqa: PLC0415  # only quantized methods need it

    class FourBit(Linear4bit):  # type: ignore[misc]
        """NF4 in blocks of 64."""

        def __init__(self, linear: nn.Linear, setup: Setup) -> None:
            nn.Module.__init__(self)
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.compute_dtype, self.compute_type_is_set = setup.compute_dtype, True
            num = linear.weight.numel()
            self.weight = _frozen((num + 1) // 2, 1, kind=torch.uint8)
            self.weight.quant_type = "nf4"
            self.weight.compress_statistics = setup.double_quant
            self.bias = linear.bias
            sizes = scale_tensors(num, double_quant=setup.double_quant)
            self.scales = nn.ParameterList([_frozen(n, kind=kind) for n, kind in sizes])
            self.state = SimpleNamespace(
                nested=setup.double_quant,
                num_blocks=-(-num // _BLOCK),
                shape=tuple(linear.weight.shape),
                kind=setup.compute_dtype,
            )
            self.num_saved = num - (num + 1) // 2 - sum(n for n, _ in sizes)

        @property
        def W_q(self) -> nn.Parameter:  # noqa: N802  # PEFT's name
            """Modules that have it are asked by PEFT to make their weight whole themselves."""
            return self.weight

        def dequantize(self) -> torch.Tensor:
            """The weight in 16 bits."""
            whole: torch.Tensor = _backward_weight(self.weight, self.state)
            return whole

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """As Linear4bit: compute in `compute_dtype`, return the input's type."""
            given = x.dtype
            x = x.to(self.compute_dtype)
            bias = None if self.bias is None else self.bias.to(self.compute_dtype)
            out: torch.Tensor = _FourBitMatmul.apply(x, self.weight, bias, self.state)
            return out.to(given)

    return FourBit


class _EightBitMatmul(torch.autograd.Function):  # type: ignore[misc]
    """MatMul8bitLt with frozen int8 weights: saves its input, makes fp16 and int32 temporaries."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, scales: Any, bias: Any) -> Any:
        given, hidden = hidden.shape, hidden.reshape(-1, hidden.shape[-1])
        ctx.kept, ctx.given, ctx.weight, ctx.scales = hidden, given, weight, scales
        half = hidden.to(torch.float16)
        rows = half.new_empty(half.shape[0], dtype=torch.float32)
        narrow = half.new_empty(half.shape, dtype=torch.int8)
        outliers = half.abs() >= 6.0
        del half, outliers
        whole = narrow.new_empty((narrow.shape[0], weight.shape[0]), dtype=torch.int32)
        out = whole.new_empty(whole.shape, dtype=torch.float16)
        if bias is not None:
            out.add_(bias)
        out = out.to(ctx.kept.dtype)
        del whole, rows, narrow
        return out.reshape(*given[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        gradient = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        kind = ctx.kept.dtype
        whole = ctx.weight.to(kind, copy=True).mul_(ctx.scales.unsqueeze(1).mul(1.0 / 127.0))
        return torch.matmul(gradient.to(kind), whole).view(ctx.given), None, None, None


def eight_bit_class() -> Any:
    """A subclass of bitsandbytes' Linear8bitLt; needs bitsandbytes."""
    from bitsandbytes.nn import Linear8bitLt  # noqa: PLC0415

    class EightBit(Linear8bitLt):  # type: ignore[misc]
        """LLM.int8 with transformers' threshold of 6."""

        def __init__(self, linear: nn.Linear, _: Setup) -> None:
            nn.Module.__init__(self)
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.weight = _frozen(*linear.weight.shape, kind=torch.int8)
            self.scales = _frozen(self.out_features, kind=torch.float32)
            self.bias, self.index = linear.bias, None
            self.state = SimpleNamespace(has_fp16_weights=False, threshold=6.0)
            self.num_saved = -self.out_features

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """As Linear8bitLt: whatever the input's type is, inside it is fp16 and int8."""
            out: torch.Tensor = _EightBitMatmul.apply(x, self.weight, self.scales, self.bias)
            return out

    return EightBit
