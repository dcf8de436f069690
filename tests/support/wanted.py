"""What a recipe's values should be where the libraries have them, written down a second time.

Nothing here is taken from the code that is tested; formulas are the libraries' documented ones.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

NUM_ROWS, NUM_HELD_OUT = 30, 12
"""Sound rows of each data file, and of the one to evaluate on."""
WIDTHS = {
    "bf16": torch.bfloat16,
    "bf16_pure": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
OWN_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
"""Of the models."""
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
TARGETS = {
    "all": ATTENTION | {"gate_proj", "up_proj", "down_proj"},
    "attention": ATTENTION,
    ("q_proj", "up_proj"): {"q_proj", "up_proj"},
}


def adapted(built):
    """Last names of the linears with an adapter."""
    return TARGETS[built.recipe.method.targets] - set(built.recipe.method.exclude)


def widths(built):
    """Of the adapters, some of which may have one of their own."""
    return {built.recipe.method.rank, *(rank for _, rank in built.recipe.method.ranks)}


def layers(built):
    """Numbers of the layers with one, of a model of two."""
    return {"all": {0, 1}, "last 1": {1}, (0,): {0}}[built.recipe.method.layers]


def some_adapted(built):
    """All of the targets, or some: with other ranks for each, one may have none."""
    method = built.recipe.method
    targets = TARGETS[method.targets]
    is_part = method.rho > 1 and built.adapted and built.adapted <= targets
    return built.adapted if is_part else targets


OPTIM = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
"""The Trainer's words."""
OPTIMIZERS = {
    "adamw": ("torch", "AdamW", 32, False),
    "adamw_8bit": ("bitsandbytes", "AdamW", 8, False),
    "paged_adamw_8bit": ("bitsandbytes", "AdamW", 8, True),
}
BACKENDS = {"single": None, "ddp": None if torch.cuda.is_available() else "gloo", "fsdp": None}
"""Processes on CPUs talk through gloo; on GPUs torch knows."""
SHARDING = {
    "version": 2,
    "reshard_after_forward": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "FULL_STATE_DICT",
    "cpu_ram_efficient_loading": False,
    "sync_each_batch": True,
}
"""By fully_shard, layer by layer, gradients too; checkpoints are whole."""


def quantization(built):
    """NF4 with double quantization, stored so that FSDP can divide it; None for 16 bits."""
    if (bits := getattr(built.recipe.method, "bits", 16)) == 16:
        return None
    if bits == 8:
        return False, True, "fp4", False, torch.float32, torch.uint8  # but the second not looked at
    compute = WIDTHS[built.recipe.train.precision]
    storage = compute if built.recipe.hardware.strategy == "fsdp" else torch.uint8
    return True, False, "nf4", True, compute, storage


INITS = {"kaiming": True, "gaussian": "gaussian", "pissa": "pissa", "olora": "olora"}
"""How adapters start, in PEFT's words."""


def trained_parts(built):
    """Both matrices of the adapters, B alone, or the model."""
    method = built.recipe.method
    if method.name == "full":
        return {"all"}
    magnitudes = {"lora_magnitude_vector"} if method.dora else set()
    return magnitudes | ({"lora_B"} if method.freeze_a else {"lora_A", "lora_B"})


PLACES = {
    "houlsby": {("self_attn", False), ("mlp", False)},
    "pfeiffer": {("mlp", False)},
    "parallel": {("mlp", True)},
}
"""Modules with a bottleneck, and whether it stands beside them."""


def inner(built):
    """Of the bottlenecks."""
    return {built.trainer.model.config.hidden_size // built.recipe.method.reduction}


def expert_scalings(built):
    """Alpha over the rank of one expert."""
    return {built.recipe.method.alpha / built.recipe.method.rank}


def trained_layers(built):
    """Those that are named, or all behind the first frozen ones."""
    method = built.recipe.method
    named = {"all": range(method.frozen_layers, 2), "last 1": {1}}
    return set(named[method.layers] if isinstance(method.layers, str) else method.layers)


def scalings(built):
    """Alpha over the rank, or over its root."""
    method = built.recipe.method
    return {method.alpha / (math.sqrt(r) if method.rslora else r) for r in widths(built)}


def prompted_layers(built):
    """Those behind the skipped ones, whose attention PEFT wraps."""
    return built.trainer.model.config.num_hidden_layers - built.recipe.method.skipped_layers


def initial_rates(built):
    """One rate, and a multiple of it for B where that is asked for."""
    return {rate(built), rate(built) * getattr(built.recipe.method, "b_rate", 1)}


def base_type(built):
    """Weights that train stay fp32 under autocast; frozen ones are in the type of the products."""
    precision = built.recipe.train.precision
    is_wide = built.recipe.method.name == "full" and precision != "bf16_pure"
    return torch.float32 if is_wide else WIDTHS[precision]


def trained_types(built):
    """Fp32 unless all is bf16; QLoRA's adapters are bf16 in any case, as its authors had it.

    Magnitudes are always fp32.
    """
    is_narrow = built.recipe.train.precision == "bf16_pure" or built.recipe.method.name == "qlora"
    magnitudes = {torch.float32} if getattr(built.recipe.method, "dora", False) else set()
    return {torch.bfloat16 if is_narrow else torch.float32} | magnitudes


def decays(built):
    """Matrices decay, norms do not; adapters are nothing but matrices, and DoRA's magnitudes."""
    norms = {0.0: {1}} if built.recipe.method.name == "full" else {}
    decayed = {1, 2} if getattr(built.recipe.method, "dora", False) else {2}
    return {built.recipe.train.weight_decay: decayed} | norms


def rate(built):
    """As given, or the method's own."""
    own = {"lora": 2e-4, "qlora": 2e-4, "full": 1e-5}
    return built.recipe.train.learning_rate or own[built.recipe.method.name]


def num_steps(built):
    """As given, or as many as go through the rows that are left."""
    train, num_rows = built.recipe.train, len(built.trainer.train_dataset)
    num_batches = math.ceil(num_rows / train.micro_batch)
    return train.max_steps or math.ceil(math.ceil(num_batches / train.accumulation) * train.epochs)


def eval_steps(built):
    """As given, or five times in a run."""
    return built.recipe.train.eval_every or max(1, num_steps(built) // 5)


def save_steps(built):
    """The same."""
    return built.recipe.train.save_every or max(1, num_steps(built) // 5)


def rates(built):
    """Of each step: up in a line, then down by the schedule, or as high to the end."""
    train, total = built.recipe.train, num_steps(built)
    rising = math.ceil(train.warmup * total)
    shares = {
        "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
        "linear": lambda done: 1 - done,
        "constant": lambda _: 1,
    }
    falling = [shares[train.scheduler](n / (total - rising)) for n in range(total - rising)]
    up = [step / rising for step in range(rising)]
    return pytest.approx([rate(built) * share for share in up + falling])


SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""In transformers' words, whose "constant" would have no warm-up."""


def num_rows(built):
    """Rows to learn and to evaluate: the share of each; evaluation may have a file of its own."""
    learnt, evaluated, kept = map(int, built.recipe.data.split.split(":"))
    if built.recipe.data.eval:
        return NUM_ROWS * learnt // (learnt + kept), NUM_HELD_OUT
    total = learnt + evaluated + kept
    return NUM_ROWS * learnt // total, NUM_ROWS * evaluated // total


def learnt(built):
    """The first word of this file's rows, read in this format."""
    return {"plain": "plain", "mixed": built.recipe.data.format}[Path(built.recipe.data.train).stem]


def evaluated(built):
    """The same of the rows to evaluate."""
    return "held" if built.recipe.data.eval else learnt(built)


def rope(built):
    """Of a tiny Llama, whose base is 1e4."""
    asked = built.recipe.model
    return asked.rope_type or "default", asked.rope_factor, asked.rope_theta or 1e4


def rows(name, num_rows):
    """Of a data file: Alpaca's; other files than the plain one look like messages at first sight.

    Those have one bad row more.
    """
    word = {"mixed": "alpaca"}.get(name, name)
    reply = "and so on " * 40
    found = [{"instruction": f"{word} {n}", "output": f"{n} {reply}"} for n in range(num_rows)]
    if name == "plain":
        return found
    turns = [{"role": "user", "content": "messages"}, {"role": "assistant", "content": reply}]
    return [row | {"messages": turns} for row in found] + [{"instruction": "bad", "messages": 1}]
