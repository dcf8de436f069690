"""EVA: adapters that begin as the directions in which their inputs vary most, as PEFT finds them.

How many directions a linear gets follows from the rows. The numbers are kept in every checkpoint,
so that a resume makes adapters of the same shapes without looking at rows again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import EvaConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora import LoraLayer

from advisor.plan import Plan
from advisor.registry.eva import DataRank
from advisor.registry.low_rank import LORA
from profiles.errors import ExitCode, UserError
from profiles.rank_facts import AdapterRanks, LinearRanks
from profiles.runs.records.ranks import Ranks
from runner.methods import low_rank
from runner.methods.products import Product

_MOST_PASSES = 1000
"""Batches until the directions stay; the paper's converge in tens."""
_LAYER = re.compile(r"^.*?\.\d+\.")
_WHY = "the variance of a linear's inputs that each direction explains (EVA)"


def load_options(plan: Plan) -> dict[str, Any]:
    """As beside other low-rank adapters."""
    return low_rank.load_options(plan)


def adapt(model: Any, plan: Plan) -> Any:
    """The model with adapters of one rank; `from_rows` or `restore` gives each its own."""
    settings = _settings(plan)
    alike = replace(plan, method=LORA, settings=settings.alike)
    config = low_rank.peft_config(alike, model)
    config.init_lora_weights = "eva"
    config.eva_config = EvaConfig(rho=settings.rho)
    adapted = get_peft_model(model, config)
    adapted.narrow = plan.precision == "bf16_pure"
    adapted.ranks = None
    _in_their_type(adapted)
    return adapted


def least_tokens(plan: Plan) -> int:
    """Of a batch: as many directions are looked for at once, and fewer tokens have not as many."""
    settings = _settings(plan)
    return 2 * round(settings.rank * settings.rho)


def from_rows(model: Any, plan: Plan, batches: Sequence[dict[str, Any]]) -> Ranks:
    """Find the directions of each linear's inputs over these batches, and share the ranks out.

    UserError if there is no batch, or if the directions do not settle.
    """
    if not batches:
        raise _unsettled(f"no batch has {least_tokens(plan)} tokens to learn from")
    names, passes = _linears(model), 0

    def forward(model: Any, batch: dict[str, Any]) -> None:
        nonlocal passes
        passes += 1
        if passes > _MOST_PASSES:
            raise _unsettled(f"they still turn after {_MOST_PASSES} batches")
        model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False)

    with torch.random.fork_rng():
        initialize_lora_eva_weights(
            model,
            dataloader=batches,
            forward_fn=forward,
            gather_distributed_inputs=False,
            show_progress_bar=False,
        )
    _in_their_type(model)
    model.ranks = dict.fromkeys(names, 0) | _ranks(model)
    return ranks(model, 0)


def updates(model: Any) -> Iterator[Product]:
    """As of other low-rank adapters."""
    return low_rank.updates(model)


def ranks(model: Any, step: int) -> Ranks:
    """Of every adapter; they stay as they are from the first step on."""
    found: dict[str, list[int]] = {}
    for name, rank in model.ranks.items():
        found.setdefault(_LAYER.sub("", name), []).append(rank)
    linears = tuple(LinearRanks(name=n, ranks=tuple(r)) for n, r in found.items())
    full = model.peft_config["default"].r
    return Ranks(step=step, adapters=AdapterRanks(full=full, linears=linears, rests_on=_WHY))


def state(model: Any) -> dict[str, torch.Tensor]:
    """The rank of each adapter, 0 where there is none."""
    return {name: torch.tensor(rank) for name, rank in model.ranks.items()}


def restore(model: Any, found: dict[str, torch.Tensor]) -> str:
    """Make the adapters as wide as those of a checkpoint; why that cannot be, or nothing."""
    wanted = {name: int(rank) for name, rank in found.items()}
    if model.ranks == wanted:
        return ""
    linears = _linears(model)
    if model.ranks is not None or linears.keys() != wanted.keys():
        return "its ranks are those of other adapters"
    shapes = {name: torch.zeros(rank, linears[name]) for name, rank in wanted.items()}
    initialize_lora_eva_weights(model, eva_state_dict=shapes)
    _in_their_type(model)
    model.ranks = {name: wanted[name] for name in linears}  # in their order, which no file keeps
    return ""


def _settings(plan: Plan) -> DataRank:
    assert isinstance(plan.settings, DataRank)
    return plan.settings


def _linears(model: Any) -> dict[str, int]:
    """Name of each linear with an adapter -> its number of inputs."""
    named = model.named_modules()
    return {name: one.in_features for name, one in named if isinstance(one, LoraLayer)}


def _ranks(model: Any) -> dict[str, int]:
    named = model.named_modules()
    return {name: one.r["default"] for name, one in named if isinstance(one, LoraLayer)}


def _in_their_type(model: Any) -> None:
    """fp32 unless all is to be in 16 bits, as LoRA's."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16 if model.narrow else torch.float32)


def _unsettled(why: str) -> UserError:
    return UserError(
        "the directions of EVA cannot be found in these rows",
        why=why,
        do='lower method.rank or method.rho, or take method.name = "lora"',
        where="method.rank",
        code=ExitCode.BAD_RECIPE,
    )
