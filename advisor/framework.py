"""How a training framework carries out the same mathematics, as far as bytes depend on it.

Every field is a documented difference of code, never a correction. `OURS` is what our own runner
does; the benchmarks describe other people's frameworks with the same fields.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Framework:
    """One way to run a training step."""

    on_cpu: bool = False
    """There is no GPU: everything is computed in fp32, for want of fast 16-bit arithmetic."""

    # Types of tensors
    autocast: bool = True
    """Linears run under torch.autocast where the plan's precision is "bf16" or "fp16"."""
    trained_fp32: bool = True
    """Trained weights are fp32 under bf16 and fp16: PEFT's autocast_adapter_dtype, Trainer."""
    fp32_base: bool = False
    """The frozen base is loaded in fp32 too, and autocast to 16 bits (Fabric's "bf16-mixed")."""
    fp32_leftovers: bool = False
    """PEFT's prepare_model_for_kbit_training: what is not quantized becomes fp32."""
    fp32_norms: bool = False
    """TRL before 1.0: of that, embedding and head are cast back, and the norms stay fp32. A
    quantized linear returns its input's type, so the residual stream is fp32."""
    quantized_adapters_16bit: bool = True
    """TRL casts the adapters of a quantized base to bf16."""

    # Quantized linears
    double_quant: bool = True
    """The block scales of 4-bit weights are quantized too."""
    gptq_group: int = 0
    """4-bit weights are GPTQ's, with a 16-bit scale and a 4-bit zero for so many inputs (-1: for
    all), and an int32 for each input's group (AutoGPTQ, QuantLinear); 0: they are NF4."""
    quantizes_subclasses: bool = False
    """Also classes derived from nn.Linear, such as Falcon's; transformers 5 takes none of them."""
    quantized_head: bool = False
    """The LM head is quantized like the layers' linears (Fabric's BitsandbytesPrecision)."""
    keeps_quantized_input: bool = False
    """MatMul4Bit keeps its input although nothing needs it (bitsandbytes before 0.43)."""
    dequantizes_twice: bool = False
    """The weight is restored in fp16 and then cast to bf16: two copies at once (bitsandbytes
    where the quantization state was made in fp16)."""

    quantized_experts: bool = False
    """The experts of a 4-bit base have 4 bits too: bitsandbytes' parametrization makes those of a
    layer whole for its pass, and autograd keeps them."""
    expert_modules: bool = False
    """Experts are modules of plain linears (transformers before 5), not slices of one tensor."""

    # Kernels
    fused_norm: bool = False
    """A kernel that keeps the norm's input as it is, instead of fp32 copies."""
    fused_rope: bool = False
    """Rotary positions are applied in place."""
    fused_mlp: bool = False
    """A kernel that keeps gate and up only and computes the rest again."""
    fused_adapters: bool = False
    """Kernels for a quantized linear with its adapter, all in 16 bits, that keep the layer's
    input and its dropped copies and nothing else (Unsloth's and fms-acceleration's)."""
    grouped_adapters: bool = False
    """A fused qkv has one adapter for each part, and none for the parts that are no targets."""
    heads_first: bool = False
    """Rotary positions are given to repeated keys, and leave heads before tokens in memory: flash
    attention's result has the same order, and o_proj reads a copy (lit-gpt)."""
    expanded_kv: bool = False
    """Keys and values are repeated for every query head before attention."""
    unmasked: bool = False
    """Padding is left to the causal order, or there is none: SDPA gets no explicit mask."""
    narrow_math: bool = False
    """SDPA's plain math computes in the type of its inputs (torch before 2.5)."""
    unfused_attention: bool = False
    """SDPA has no kernel with a backward pass, and takes its plain math (MPS, pytorch#179294)."""
    efficient_attention: bool = False
    """SDPA's memory-efficient kernel: no fp32 sums (GPUs before Ampere; fp32 inputs)."""

    # Head and loss
    upcast_logits: bool = True
    """Logits become fp32 before the loss (transformers' ForCausalLMLoss)."""
    upcast_in_model: bool = False
    """They do so in the model, which returns them in fp32 (transformers before 4.46)."""
    shifted_logits: bool = False
    """Logits, or hidden states for Liger, are copied without the last row (transformers before
    4.50); from then on the labels are shifted instead."""
    returned_logits: str = "loss"
    """How long the model's outputs hold the logits: "loss" until it is computed, or "step", where
    the training loop keeps the outputs."""
    carried_logits: bool = False
    """The last micro-batch's logits, and what bitsandbytes keeps of its graph, are there until
    the new logits take their name (a loop in which long rows may follow each other)."""
    chunked_head: bool = False
    """The head runs on chunks, whose gradients of its weight are summed: one more of them at
    once (torchtune's CEWithChunkedOutputLoss)."""
    liger_fp32: bool = False
    """Liger before 0.5 works on an fp32 copy of a chunk's 16-bit logits."""

    # Order of the step
    reentrant_checkpoints: bool = False
    """torch.utils.checkpoint(use_reentrant=True): a layer is recomputed to its very end, and its
    output and the gradient that it was given stay until its own backward pass is done."""
    offloaded_checkpoints: bool = False
    """What a recomputed layer keeps waits in host memory (torchtune's OffloadActivations)."""
    optimizer_in_backward: bool = False
    """Each weight is updated as soon as its gradient is there, which is then dropped (torchtune's
    optimizer_in_bwd)."""
    foreach_optimizer: bool = False
    """torch.optim's multi-tensor path: temporaries as large as the trained weights."""
    first_step: bool = False
    """The peak is that of the first step, whose rows are the longest (lit-gpt), or that is all
    that was run: gradients and moments do not exist before it."""

    expandable_segments: bool = True
    """PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True: segments grow instead of being replaced."""

    # Sharding
    fsdp1: bool = False
    """torch's FullyShardedDataParallel. The root unit, embedding and head, stays whole until the
    backward pass ends, its gradient too. Units of frozen weights hold their inputs, with their
    gradients, as long (the hooks that reshard them do). Reentrant checkpoints do not prefetch."""
    outer_units: bool = False
    """Embedding and head are units of their own, gathered for their own time only (torchtune's
    custom_sharded_layers)."""
    flat_parameters: bool = False
    """FSDP1 with trained and frozen weights in one unit: they are parts of one parameter, which
    requires a gradient as a whole; the gradients of its parts are then joined (Fabric)."""
    no_sync: bool = False
    """Gradients stay whole on each device until a step's last micro-batch (Fabric's
    no_backward_sync)."""
    replicated_adapters: bool = False
    """Adapters are left out of the shards, one whole copy on each device (fms-acceleration)."""


OURS: Final = Framework(quantized_experts=True)

ON_CPU: Final = replace(OURS, on_cpu=True)
"""Ours where there is no GPU."""

BEFORE_AMPERE: Final = replace(OURS, expanded_kv=True, efficient_attention=True)
"""Ours on GPUs that have no flash attention: the memory-efficient kernel, which wants keys and
values for every query head."""

ON_APPLE: Final = Framework(unfused_attention=True)
"""Ours on Apple GPUs."""
