"""What a rehearsal needs to know about a method, in plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from advisor.registry.task_spec import Head

_COMPUTE = {
    "bf16": torch.bfloat16,
    "bf16_pure": torch.bfloat16,
    "fp16": torch.float16,
    "fp16_pure": torch.float16,
    "fp32": torch.float32,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A training method with its settings; the batch stands beside it."""

    method: str = "lora"
    """"full", "lora", "qlora", or another name that adapters.py knows."""
    adapted: Callable[[Any], Any] | None = None
    """What the worker makes of a base; None: what the method's name and these settings say."""
    after_step: Callable[[Any], Any] | None = None
    """What the worker does to the model after each optimizer step, gradients still there."""
    loaded: torch.dtype | None = None
    """Of the weights as the worker loads them; None: after the precision."""
    rank: int = 16
    """LoRA rank; the size of other adapters' bottleneck."""
    num_virtual_tokens: int = 20
    """Length of a learned prompt or prefix."""
    num_layers: int = 2
    """Last layers that "freeze" leaves trained."""
    peft: tuple[tuple[str, Any], ...] = ()
    """More arguments of PEFT's config."""
    dropout: float = 0.0
    targets: tuple[str, ...] | str = "all-linear"
    """Names of adapted linears, or PEFT's word for all of them."""
    precision: str = "bf16"
    """"bf16" and "fp16": autocast, trained weights in fp32. "bf16_pure", "fp16_pure": all in 16
    bits. "fp32"."""
    bits: int = 16
    """Of frozen linears: 16, 8 or 4; 16 with "qlora" means 4."""
    double_quant: bool = True
    quantized_experts: bool = False
    """The routed experts of a 4-bit base have 4 bits too."""
    prepare_kbit: bool = False
    """Cast what is not quantized to fp32, as peft.prepare_model_for_kbit_training does."""
    adapters: str = "trl"
    """Their type: "fp32", "bf16", or what TRL's trainer makes of them, which is fp32 on a 16-bit
    base, without autocast too, and bf16 on a quantized one."""
    checkpointing: bool = False
    loss: str = "chunked"
    """"chunked": TRL's fused head. "full": the model's own loss, with whole logits."""
    label_smoothing: float = 0.0
    """With whole logits: share of the target that all tokens have alike."""
    attention: str = "sdpa"
    """"sdpa", "eager" or "flash"."""
    optimizer: str = "adamw"
    accumulation: int = 1
    """Micro-batches per optimizer step."""
    packing: bool = False
    """The micro-batch is one row, with positions that start anew."""
    head: Head = "lm"
    """"score": one number for a row, from a head of its own."""
    reference: bool = False
    """The model before training is asked first: without its adapter, or a frozen copy."""
    padded: bool = True
    """Rows of one micro-batch have several lengths, so that attention needs a mask."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 for not at all."""

    @property
    def weight_bits(self) -> int:
        """Of frozen linears."""
        return 4 if self.method == "qlora" and self.bits == 16 else self.bits

    @property
    def compute_dtype(self) -> torch.dtype:
        """Of matrix products."""
        return _COMPUTE[self.precision]

    @property
    def autocasts(self) -> bool:
        """Accelerate runs the forward pass under autocast."""
        return self.precision in {"bf16", "fp16"}

    @property
    def load_dtype(self) -> torch.dtype:
        """Of the weights, as runner/methods loads them: trained ones in fp32 under autocast."""
        if self.loaded is not None:
            return self.loaded
        return torch.float32 if self.method == "full" and self.autocasts else self.compute_dtype
