"""Which weights a method trains, and what PEFT adds for it, in the types the trainer leaves them.

As TRL 1.16's SFTTrainer: adapters of a quantized base become bf16, the input of a checkpointed
adapted model asks for gradients.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from runner.rehearsal.settings import Settings

_WEIGHT_METHODS = frozenset({"full", "bitfit", "freeze"})


def adapt(model: Any, settings: Settings) -> Any:
    """The model with the method's trained weights; all others are frozen."""
    if settings.weight_bits < 16 and settings.prepare_kbit:
        _cast_leftovers(model)
    if settings.adapted is not None:
        return _as_the_worker(model, settings)
    if settings.method in _WEIGHT_METHODS:
        return _choose(model, settings)
    from peft import get_peft_model  # noqa: PLC0415

    adapted = get_peft_model(model, _config(settings))
    if settings.adapters == "bf16" or (settings.adapters == "trl" and settings.weight_bits < 16):
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_magnitude_vector" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    if settings.checkpointing:
        adapted.enable_input_require_grads()
    return adapted


def _as_the_worker(model: Any, settings: Settings) -> Any:
    """Adapted by the worker's own code; checkpoints of frozen layers need an input's gradient."""
    assert settings.adapted is not None
    adapted = settings.adapted(model)
    is_whole = all(parameter.requires_grad for parameter in adapted.parameters())
    if settings.checkpointing and not is_whole:
        adapted.enable_input_require_grads()
    return adapted


def _choose(model: Any, settings: Settings) -> Any:
    """Train weights of the model itself: all, the biases, or those of the last layers."""
    if settings.method == "full":
        return model
    model.requires_grad_(requires_grad=False)
    if settings.method == "bitfit":
        chosen = [p for name, p in model.named_parameters() if name.endswith("bias")]
    else:
        layers = max((m for m in model.modules() if isinstance(m, nn.ModuleList)), key=len)
        chosen = [p for layer in layers[-settings.num_layers :] for p in layer.parameters()]
    for parameter in chosen:
        parameter.requires_grad_()
        if settings.autocasts:
            parameter.data = parameter.data.float()
    if settings.checkpointing:
        model.enable_input_require_grads()
    return model


def _cast_leftovers(model: Any) -> None:
    """As peft.prepare_model_for_kbit_training: what is not quantized goes to fp32."""
    for parameter in model.parameters():
        parameter.requires_grad = False
        if parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def _config(settings: Settings) -> Any:
    """PEFT's config of the method, with as much of the settings as it has fields for."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: PLC0415

    names = {"qlora": "LORA"}
    name = names.get(settings.method, settings.method.upper())
    if name not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ValueError(f"no method {settings.method!r} here or in PEFT")
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[name]
    targets: Any = settings.targets
    wanted = {
        "task_type": "CAUSAL_LM",
        "r": settings.rank,
        "lora_alpha": settings.rank,
        "lora_dropout": settings.dropout,
        "num_virtual_tokens": settings.num_virtual_tokens,
        "target_modules": targets if isinstance(targets, str) else list(targets),
    } | dict(settings.peft)
    if settings.method in {"ln_tuning", "ia3"} and isinstance(targets, str):
        del wanted["target_modules"]  # PEFT knows them by model type
    fields = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in wanted.items() if name in fields})
