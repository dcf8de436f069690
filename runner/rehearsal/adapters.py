"""Which weights a method trains, and what PEFT adds for it, in the types the trainer leaves them.

As TRL 1.16's SFTTrainer: adapters of a quantized base become bf16, the input of a checkpointed
adapted model asks for gradients.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from runner.rehearsal.setup import Setup

_WEIGHT_METHODS = frozenset({"full", "bitfit", "freeze"})


def adapt(model: Any, setup: Setup) -> Any:
    """The model with the method's trained weights; all others are frozen."""
    if setup.weight_bits < 16 and setup.prepare_kbit:
        _cast_leftovers(model)
    if setup.adapted is not None:
        return _as_the_worker(model, setup)
    if setup.method in _WEIGHT_METHODS:
        return _choose(model, setup)
    from peft import get_peft_model  # noqa: PLC0415

    adapted = get_peft_model(model, _config(setup))
    if setup.adapters == "bf16" or (setup.adapters == "trl" and setup.weight_bits < 16):
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    if setup.checkpointing:
        adapted.enable_input_require_grads()
    return adapted


def _as_the_worker(model: Any, setup: Setup) -> Any:
    """Adapted by the worker's own code; checkpoints of frozen layers need an input's gradient."""
    assert setup.adapted is not None
    adapted = setup.adapted(model)
    is_whole = all(parameter.requires_grad for parameter in adapted.parameters())
    if setup.checkpointing and not is_whole:
        adapted.enable_input_require_grads()
    return adapted


def _choose(model: Any, setup: Setup) -> Any:
    """Train weights of the model itself: all, the biases, or those of the last layers."""
    if setup.method == "full":
        return model
    model.requires_grad_(requires_grad=False)
    if setup.method == "bitfit":
        chosen = [p for name, p in model.named_parameters() if name.endswith("bias")]
    else:
        layers = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)
        chosen = [p for layer in layers[-setup.num_layers :] for p in layer.parameters()]
    for parameter in chosen:
        parameter.requires_grad_()
        if setup.autocasts:
            parameter.data = parameter.data.float()
    if setup.checkpointing:
        model.enable_input_require_grads()
    return model


def _cast_leftovers(model: Any) -> None:
    """As peft.prepare_model_for_kbit_training: what is not quantized goes to fp32."""
    for parameter in model.parameters():
        parameter.requires_grad = False
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def _config(setup: Setup) -> Any:
    """PEFT's config of the method, with as much of the setup as it has fields for."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: PLC0415

    names = {"qlora": "LORA"}
    name = names.get(setup.method, setup.method.upper())
    if name not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ValueError(f"no method {setup.method!r} here or in PEFT")
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[name]
    targets: Any = setup.targets
    wanted = {
        "task_type": "CAUSAL_LM",
        "r": setup.rank,
        "lora_alpha": setup.rank,
        "lora_dropout": setup.dropout,
        "num_virtual_tokens": setup.num_virtual_tokens,
        "target_modules": targets if isinstance(targets, str) else list(targets),
    } | dict(setup.peft)
    if setup.method in {"ln_tuning", "ia3"} and isinstance(targets, str):
        del wanted["target_modules"]  # PEFT knows them by model type
    fields = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in wanted.items() if name in fields})
