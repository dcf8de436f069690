"""One training configuration, as far as memory and speed depend on it.

A `Plan` is what the fit search varies and what the estimates read. The recipe (`recipe.py`) is the
same choice written down for people, with everything else a run needs beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

ADAPTER_METHODS = frozenset({"lora", "qlora"})
ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_TARGETS = ("gate_proj", "up_proj", "down_proj")
ALL_TARGETS = ATTENTION_TARGETS + MLP_TARGETS
LEARNING_RATES = {"lora": 2e-4, "qlora": 2e-4, "full": 1e-5}
"""Inside the ranges of the method documents §4: adapters 1e-4 to 5e-4, full 5e-6 to 2e-5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A method with its settings, the batch, and how it is spread over devices."""

    method: str
    """"lora", "qlora" or "full"."""
    seq_len: int
    """Tokens of the longest row in a micro-batch (after truncation), T."""
    micro_batch: int = 1
    """Rows per device and forward pass, B."""
    accumulation: int = 1
    """Forward passes per optimizer step."""
    rank: int = 0
    """LoRA rank; 0 for methods without adapters."""
    alpha: int = 0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    """Adapted linears, by the names of Llama-style blocks; empty for methods without adapters."""
    optimizer: str = "adamw"
    """"adamw", "adamw_8bit" or "paged_adamw_8bit"."""
    precision: str = "bf16"
    """"bf16" and "fp16": autocast; trained weights kept in fp32. "bf16_pure": trained weights,
    gradients and moments in bf16. "fp32": no autocast, weights in fp32."""
    checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""
    loss: str = "chunked"
    """"chunked": the LM head and the loss in tiles, logits never whole. "full": logits at once."""
    packing: bool = False
    strategy: str = "single"
    """"single", "ddp" or "fsdp" (parameters, gradients and moments sharded)."""
    num_gpus: int = 1
    """Devices that train together; 1 also for a CPU."""
    attention: str = "sdpa"
    """"sdpa" or "eager"."""

    @property
    def adapts(self) -> bool:
        """Trains adapters beside frozen weights."""
        return self.method in ADAPTER_METHODS

    @property
    def tokens_per_micro_batch(self) -> int:
        """Tokens one device holds activations for, padding included (M = B x T)."""
        return self.micro_batch * self.seq_len

    @property
    def effective_batch(self) -> int:
        """Rows per optimizer step over all devices."""
        return self.micro_batch * self.accumulation * self.num_gpus
