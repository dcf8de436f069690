"""Methods of PEFT that put something on frozen linears, beside low-rank adapters."""

from __future__ import annotations

from typing import Any, Final

import torch
from peft import (
    LoHaConfig,
    LoKrConfig,
    OFTConfig,
    PeftConfig,
    ShiraConfig,
    TaskType,
    VeraConfig,
    get_peft_model,
)

from advisor.plan import Plan
from advisor.registry import linears, sparse
from runner.methods import low_rank

_OWN_BUFFERS: Final = ("vera_A", "vera_B")
"""Of matrices that are shared and not trained, in names of buffers."""


def load_options(plan: Plan) -> dict[str, Any]:
    """As beside low-rank adapters."""
    return low_rank.load_options(plan)


def adapt(model: Any, plan: Plan) -> Any:
    """The model with what is put on its linears, in fp32 unless all is to be in 16 bits."""
    config = peft_config(plan)
    if isinstance(config, ShiraConfig):
        config.mask_fn = None
    adapted = get_peft_model(model, config)
    if isinstance(config, ShiraConfig):
        _draw_places(adapted)
    dtype = torch.bfloat16 if plan.precision == "bf16_pure" else torch.float32
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    for name, buffer in adapted.named_buffers():
        if any(own in name for own in _OWN_BUFFERS):
            buffer.data = buffer.data.to(dtype)
    return adapted


def _draw_places(adapted: Any) -> None:
    """Of SHiRA's weights, with the seed of the run; PEFT's own mask is the same in every layer."""
    for module in adapted.modules():
        for name, weights in getattr(module, "shira_weight", {}).items():
            drawn = torch.randperm(module.in_features * module.out_features)[: weights.numel()]
            places = torch.stack([drawn // module.in_features, drawn % module.in_features])
            module.shira_indices[name] = places.int()


def peft_config(plan: Plan) -> PeftConfig:
    """What is put on, in PEFT's terms."""
    settings: Any = plan.settings
    told: dict[str, Any] = {
        "task_type": TaskType.CAUSAL_LM,
        "target_modules": low_rank.targets_of(settings.targets),
    }
    if plan.method is linears.VERA:
        return VeraConfig(r=settings.rank, **told)
    if plan.method is sparse.SHIRA:
        return ShiraConfig(r=settings.rank, **told)
    if plan.method is linears.OFT:
        return OFTConfig(oft_block_size=settings.block, r=0, **told)
    kind = LoHaConfig if plan.method is linears.LOHA else LoKrConfig
    return kind(r=settings.rank, alpha=settings.alpha, **told)
