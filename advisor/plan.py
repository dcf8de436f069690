"""One training configuration, as far as memory and speed depend on it.

A `Plan` is what the fit search varies and what the estimates read. The recipe (`recipe.py`) is the
same choice written down for people, with everything else a run needs beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.stack import OURS, Stack

LORA_METHODS = frozenset({"lora", "qlora"})
"""Low-rank adapters beside frozen linears."""
WHOLE_METHODS = frozenset({"full", "freeze"})
"""The model's own weights train, all of them or from one layer on."""
SOFT_PROMPTS = frozenset({"prompt_tuning", "prefix_tuning", "p_tuning"})
SMALL_METHODS = frozenset({"adapter", "ia3", "bitfit", "ln_tuning"}) | SOFT_PROMPTS
"""Methods that train a small addition, or a small part, of every layer or of the input."""
LLAMA_ADAPTERS = frozenset({"llama_adapter", "llama_adapter_v2"})
"""lit-gpt's LLaMA-Adapters: ten learned prompts for each layer's attention from the third on; in v2
a scale and a bias on every linear and the norms too. Not offered, but published runs use them."""
METHODS = LORA_METHODS | WHOLE_METHODS | SMALL_METHODS
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_TARGETS = ("gate_proj", "up_proj", "down_proj")
ALL_TARGETS = ATTENTION_TARGETS + MLP_TARGETS
LEARNING_RATES = {"lora": 2e-4, "qlora": 2e-4, "full": 1e-5}
"""Inside the ranges of the method documents §4: adapters 1e-4 to 5e-4, full 5e-6 to 2e-5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A method with its settings, the batch, and how it is spread over devices."""

    method: str
    """One of `METHODS`."""
    seq_len: int
    """Tokens of the longest row in a micro-batch (after truncation), T."""
    micro_batch: int = 1
    """Rows per device and forward pass, B."""
    accumulation: int = 1
    """Forward passes per optimizer step."""
    rank: int = 0
    """LoRA rank; 0 for methods without low-rank adapters."""
    alpha: int = 0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    """Adapted linears, by the names of Llama-style blocks, and "experts"; else empty."""
    bits: int | None = None
    """Of the frozen linears: 16, 8 or 4; None for the method's own (4 for "qlora")."""
    double_quant: bool = True
    """The block scales of 4-bit weights are quantized too."""
    virtual_tokens: int = 0
    """Length of a soft prompt or prefix."""
    reduction: int = 16
    """Hidden size over the width of a bottleneck adapter."""
    frozen_layers: int = 0
    """The first layers, with the embedding, that "freeze" leaves alone."""
    optimizer: str = "adamw"
    """One of `weights.OPTIMIZERS`."""
    precision: str = "bf16"
    """"bf16" and "fp16": autocast; trained weights kept in fp32. "bf16_pure": trained weights,
    gradients and moments in bf16. "fp32": no autocast, weights in fp32."""
    checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""
    checkpointed_layers: int | None = None
    """How many of the layers are recomputed; None for all."""
    loss: str = "chunked"
    """"chunked": the LM head and the loss in tiles, logits never whole. "full": logits at once.
    "liger": Liger's fused linear cross-entropy. "fused": a kernel that writes the gradient over the
    logits. "listed": lit-gpt's list of chunks, all kept."""
    packing: bool = False
    strategy: str = "single"
    """"single", "ddp", "zero1" (moments sharded), "zero2" (gradients too), "zero3" or "fsdp"
    (weights too)."""
    offload: str = ""
    """What lives in host memory: "", "optimizer" (moments, and the step), "parameters" (both)."""
    num_gpus: int = 1
    """Devices that train together, over all nodes; 1 also for a CPU."""
    attention: str = "sdpa"
    """"sdpa", "flash" (flash-attn 2, which needs no mask) or "eager"."""
    stack: Stack = OURS

    @property
    def base_bits(self) -> int:
        """Bits of the frozen linears."""
        return self.bits or (4 if self.method == "qlora" else 16)

    @property
    def adapts(self) -> bool:
        """Trains low-rank adapters beside frozen weights."""
        return self.method in LORA_METHODS

    @property
    def shards_weights(self) -> bool:
        """Every device keeps a part of the weights and gathers the others' for a layer's time."""
        return self.num_gpus > 1 and self.strategy in {"fsdp", "zero3"}

    @property
    def tokens_per_micro_batch(self) -> int:
        """Tokens one device holds activations for, padding included (M = B x T)."""
        return self.micro_batch * self.seq_len

    @property
    def effective_batch(self) -> int:
        """Rows per optimizer step over all devices."""
        return self.micro_batch * self.accumulation * self.num_gpus
