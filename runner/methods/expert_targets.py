"""Where adapters go in a mixture of experts: the same in every family.

PEFT 0.21's word for all linears reaches the routed experts and the router in some families, and
neither in others; the names of an MLP's linears are the routed experts to it in most. Here the
linears of shared experts and dense layers are adapted by their names, routed experts as parameters
(the joined gate and up at twice the rank, as PEFT has it), and routers where the recipe says so.
"""

from __future__ import annotations

import contextlib
import copy
import re
import warnings
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from peft.utils import transformers_weight_conversion
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from advisor.registry.continued import JOINED, joined_alpha
from advisor.registry.low_rank import EXPERTS, LowRank, expert_rank
from runner.methods.base import layers_of

FUSED: Final = ("gate_up_proj", "up_proj", "down_proj")
"""Parameters of routed experts, by transformers' names: (experts, ..., ...)."""
_MATRICES_OF_ALL: Final = 3
"""Dimensions of a parameter that has every expert's matrix."""
_ROUTER: Final = re.compile(r"(^|\.)(gate|router|shared_expert_gate)(\.|$)")
"""In the names of modules that weigh experts, which are no targets."""


class Places(NamedTuple):
    """Fields of PEFT's LoraConfig."""

    target_modules: Any
    target_parameters: list[str] | None = None
    rank_pattern: dict[str, int] = {}  # noqa: RUF012  # never changed
    alpha_pattern: dict[str, float] = {}  # noqa: RUF012
    modules_to_save: tuple[str, ...] = ()


def experts_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, list[str]]]:
    """(name, module, its parameters' names) of each layer's routed experts."""
    for name, module in model.named_modules():
        own = module._parameters  # noqa: SLF001  # without what is made of them
        found = [n for n in FUSED if n in own and _is_stack(own[n])]
        found += [n for n in FUSED if n in getattr(module, "parametrizations", {})]
        if found:
            yield name, module, found


def _is_stack(weight: Any) -> bool:
    """In 16 bits, or packed."""
    return weight.ndim == _MATRICES_OF_ALL or hasattr(weight, "quant_state")


def places(model: Any, settings: LowRank, given: Any) -> Places:
    """Of a mixture; `given`: what PEFT takes for the targets of a dense model."""
    found = list(experts_of(model))
    if not found:
        return Places(given)
    modules = given
    if settings.targets == "all":
        modules = _linears(model)
    elif not isinstance(settings.targets, str):
        modules = [name for name in settings.targets if name != EXPERTS]
    parameters: list[str] = []
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    if expert_rank(settings):
        parameters += [f"experts.{name}" for name in found[0][2]]
    if any(re.fullmatch(JOINED, name) for name in parameters):
        ranks[JOINED] = 2 * settings.rank
        alphas[JOINED] = joined_alpha(settings.alpha, rslora=settings.rslora)
    router = _router(found[0][0], model)
    if settings.router == "adapted":
        parameters.append(f"{router}.weight")
    whole = (router,) if settings.router == "trained" else ()
    return Places(modules, parameters or None, ranks, alphas, whole)


def _linears(model: Any) -> list[str]:
    """Last names of the linears in the layers, but for those that weigh experts."""
    named = layers_of(model).named_modules()
    linears = [name for name, module in named if isinstance(module, nn.Linear)]
    return sorted({name.rpartition(".")[2] for name in linears if not _ROUTER.search(name)})


def _router(experts: str, model: Any) -> str:
    """The last two names of the module that chooses among these experts."""
    mixture, _, _ = experts.rpartition(".")
    for name, module in model.get_submodule(mixture).named_children():
        if name in {"gate", "router"} and hasattr(module, "weight"):
            return f"{mixture.rpartition('.')[2]}.{name}"
    raise RuntimeError(f"{mixture} has no router")


def put_on(model: Any, config: LoraConfig) -> Any:
    """The model with its adapters, at these places and at no others.

    What is published must say them so that PEFT reads no MLP's linear as an expert: as parameters.
    """
    packed = {name: module for name, module, _ in experts_of(model) if is_parametrized(module)}
    for name, module in packed.items():
        model.set_submodule(name, _stand_in(module.requires_grad_(requires_grad=False)))
    with _as_given():
        adapted = get_peft_model(model, config)
    for name, module in packed.items():
        _put_beside(adapted.get_base_model(), name, module)
    read = copy.deepcopy(config)
    transformers_weight_conversion.convert_peft_config_for_transformers(read, model, None)
    if isinstance(config.target_modules, set) and read.target_modules != config.target_modules:
        mistaken = config.target_modules - read.target_modules
        config.target_modules -= mistaken
        config.target_parameters = sorted(
            {*(config.target_parameters or ()), *(f"{name}.weight" for name in mistaken)}
        )
    return adapted


class BesidePacked(ParamWrapper):  # type: ignore[misc]
    """PEFT's adapter of one parameter, where that is packed: a lasting parametrization adds it.

    PEFT 0.21 registers one for each pass. Nested ones then read what torch has cached before the
    adapter was added, and what it registers on a parametrized parameter it does not take away.
    """

    @contextlib.contextmanager
    def _activate_lora(self, _active: list[str]) -> Iterator[None]:
        yield

    def get_param(self) -> torch.Tensor:
        """The base weight alone."""
        steps: Any = self.get_base_layer().parametrizations[self.parameter_name]
        whole: torch.Tensor = steps[0](steps.original)
        return whole


class _Added(nn.Module):  # type: ignore[misc]
    """What an adapter adds to a weight that was made whole; without its forward pass, nothing."""

    def __init__(self, adapter: BesidePacked) -> None:
        super().__init__()
        self._adapter = (adapter,)  # no part of this module

    def forward(self, whole: torch.Tensor) -> torch.Tensor:
        """As ParamWrapper: one product a matrix, added in the weight's type."""
        (adapter,) = self._adapter
        if adapter.disable_adapters:
            return whole
        (name,) = adapter.active_adapters
        count = adapter.num_experts
        low, high = adapter.lora_A[name].weight, adapter.lora_B[name].weight
        low = low.reshape(count, -1, low.shape[-1]).to(whole.dtype)
        high = high.reshape(high.shape[0], -1, count).permute(2, 0, 1).to(whole.dtype)
        sides = (high, low) if adapter._did_swap_in_out_features else (low.mT, high.mT)  # noqa: SLF001
        with torch.autocast(whole.device.type, enabled=False):
            return torch.baddbmm(whole, *sides, alpha=adapter.scaling[name])


def _stand_in(module: nn.Module) -> nn.Module:
    """Packed experts as PEFT can read them: their shapes and types, and no memory."""
    found = nn.Module()
    found.is_transposed = getattr(module, "is_transposed", False)
    for name in module.parametrizations:
        whole = getattr(module, name)
        empty = whole.new_empty(()).expand(whole.shape)
        found.register_parameter(name, nn.Parameter(empty, requires_grad=False))
    return found


def _put_beside(model: Any, name: str, module: nn.Module) -> None:
    """The experts in the place of their stand-in, and adapters that were put on that at work."""
    place = model.get_submodule(name)
    if not isinstance(place, ParamWrapper):
        model.set_submodule(name, module)
        return
    outer = place
    while isinstance(place, ParamWrapper):
        place.__class__ = BesidePacked
        register_parametrization(module, place.parameter_name, _Added(place), unsafe=True)
        last, place = place, place.base_layer
    last.base_layer = module
    assert outer.get_base_layer() is module


@contextlib.contextmanager
def _as_given() -> Iterator[None]:
    """Inside, PEFT takes names as they are.

    It looks for patterns of parameters among modules alone, and warns of what it uses all the same.
    """
    name = "convert_peft_config_for_transformers"
    with (
        warnings.catch_warnings(),
        patch.object(transformers_weight_conversion, name, lambda *_args, **_kw: None),
    ):
        warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys")
        yield
