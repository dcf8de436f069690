"""Methods of PEFT that put something on frozen linears, beside low-rank adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
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
from peft.tuners.lokr.layer import LoKrLayer
from peft.tuners.shira.layer import ShiraLayer
from peft.tuners.vera.layer import VeraLayer

from advisor.plan import Plan
from advisor.registry import linears, sparse
from runner.methods import low_rank
from runner.methods.products import Product, undivided, weight_of

_ADAPTER: Final = "default"
_Parts = tuple[torch.Tensor, torch.Tensor, float]
"""Left, right and what it is multiplied with."""
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


def updates(model: Any) -> Iterator[Product]:
    """Of what is a product of small matrices: LoHa's and OFT's changes are not."""
    for name, module in model.named_modules():
        parts_of = next((of for kind, of in _KINDS.items() if isinstance(module, kind)), None)
        if parts_of is not None:
            left, right, scale = parts_of(module)
            weight = partial(weight_of, module.get_base_layer())
            yield Product(name=name, left=left, right=right, scale=scale, weight=weight)


def _of_vera(module: Any) -> _Parts:
    """Its vectors weigh the rows of matrices that all linears share."""
    low, high = (undivided(part[_ADAPTER]) for part in (module.vera_A, module.vera_B))
    inner, outer = (undivided(d[_ADAPTER]) for d in (module.vera_lambda_d, module.vera_lambda_b))
    left, right = high[: module.out_features], low[:, : module.in_features]
    return outer[:, None] * left.to(outer), inner[:, None] * right.to(inner), 1.0


def _of_kron(module: Any) -> _Parts:
    """The norm of a Kronecker product is the product of the norms."""
    first, second = (_small(module, name) for name in ("lokr_w1", "lokr_w2"))
    alone = torch.linalg.vector_norm(torch.mm(*first) if len(first) > 1 else first[0])
    scale = module.scaling[_ADAPTER] * float(alone)
    return (*second, scale) if len(second) > 1 else (*_column(second[0]), scale)


def _of_sparse(module: Any) -> _Parts:
    """The weights that it changes, in any order."""
    return *_column(undivided(module.shira_weight[_ADAPTER])), module.scaling[_ADAPTER]


def _small(module: Any, name: str) -> list[torch.Tensor]:
    """A small matrix of LoKr, or the two that it is the product of."""
    parts = [getattr(module, attribute) for attribute in (name, f"{name}_a", f"{name}_b")]
    return [undivided(part[_ADAPTER]) for part in parts if _ADAPTER in part]


def _column(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A product with the same norm."""
    return values.reshape(-1, 1), values.new_ones(1, 1)


_KINDS: Final[dict[type, Callable[[Any], _Parts]]] = {
    VeraLayer: _of_vera,
    LoKrLayer: _of_kron,
    ShiraLayer: _of_sparse,
}


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
