"""Whether a model's positions can be scaled as a recipe says, and whether its rows need more.

Beside rotary positions families have learnt tables, biases of attention, or none; and some have
other rotations for each kind of layer, which one scale would not describe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from advisor.positions import TYPES
from advisor.recipe import Recipe
from profiles.errors import ExitCode, UserError
from profiles.facts import Model, TokenStats
from profiles.models.safe_config import MAX_CONFIG_BYTES, read_json
from profiles.quantities import count_text
from profiles.runs import reading

WITHOUT: Final = frozenset(
    (
        *("bert", "bloom", "deberta-v2", "distilbert", "gpt2", "gpt_bigcode", "gptj", "jamba"),
        *("mpt", "nemotron_h", "opt", "roberta"),
    )
)
"""Families without rotary positions that transformers scales."""
BY_LAYER: Final = frozenset({"gemma3_text", "gemma3n_text", "gemma4_text", "olmo3"})
"""Families with other rotations for each kind of their layers."""
_CONFIG: Final = "config.json"
_KEYS: Final = ("rope_parameters", "rope_scaling")
_LEAVE: Final = "leave model.rope_type, model.rope_factor and model.rope_theta out"


def check(recipe: Recipe, model: Model) -> None:
    """UserError (78) for positions that cannot be scaled."""
    if recipe.model.rope is None:
        return
    why = ""
    if model.model_type in WITHOUT:
        why = f"models of the family {model.model_type} have no rotary positions to be scaled"
    elif model.model_type in BY_LAYER:
        why = f"the layers of {model.model_type} have rotations of several kinds"
    elif own := _own(model):
        why = f"its config scales them already: {own}"
    if why:
        raise UserError(
            f"the positions of {recipe.model.id} cannot be scaled",
            why=why,
            do=_LEAVE,
            where="model.rope_type" if recipe.model.rope_type else "model.rope_theta",
            code=ExitCode.BAD_RECIPE,
        )


def scaled(recipe: Recipe, model: Model) -> Model:
    """The model with as many positions as it has then."""
    rope = recipe.model.rope
    return replace(model, max_positions=rope.num_positions(model.max_positions)) if rope else model


def warnings(recipe: Recipe, model: Model, tokens: TokenStats | None) -> list[str]:
    """What to mind of rows that are longer than the model was made for, and of its config.

    `model`: as the recipe has it scaled.
    """
    found, limit = [], model.max_positions
    longest = min(tokens.max, recipe.data.max_length) if tokens else 0
    if 0 < limit < longest:
        found.append(
            f"rows have up to {count_text(longest)} tokens, and {model.id} reads "
            f"{count_text(limit)}: what lies beyond is read badly. Lower data.max_length to "
            f"{limit}{_or_scale(recipe, model, longest)}"
        )
    if recipe.model.rope and not recipe.method.spec.trains_base:
        found.append(
            "what is published is for a model with scaled positions: load the base with the "
            f"{_CONFIG} that will lie beside the adapter"
        )
    return found


def check_adapter(recipe: Recipe, base: Model, folder: Path) -> None:
    """UserError (78) if an adapter was trained with other positions than the recipe makes."""
    file = folder / _CONFIG
    if not reading.is_file(file):
        return
    theirs, rope = read_json(file, MAX_CONFIG_BYTES), recipe.model.rope
    own = read_json(Path(base.path) / _CONFIG, MAX_CONFIG_BYTES) if base.path else {}
    ours = {"rope_type": rope.type, "factor": rope.factor} if rope and rope.type else _scaling(own)
    theta = rope.theta if rope and rope.theta else _theta(own)
    told = []
    if (scaling := _scaling(theirs)) and scaling != ours:
        told.append(f"rope_type {scaling['rope_type']}, factor {scaling['factor']}")
    if None not in (theta, _theta(theirs)) and theta != _theta(theirs):
        told.append(f"rope_theta {_theta(theirs)}")
    if told:
        can = not scaling or scaling["rope_type"] in TYPES
        raise UserError(
            "the adapter was trained with other positions",
            why=f"its {_CONFIG} has {', '.join(told)}",
            do="write model.rope_type, model.rope_factor and model.rope_theta so"
            if can
            else "train another: this version cannot scale them so",
            where=str(file),
            code=ExitCode.BAD_RECIPE,
        )


def _or_scale(recipe: Recipe, model: Model, longest: int) -> str:
    """The other way out, where there is one."""
    can = model.model_type not in WITHOUT | BY_LAYER and not _own(model)
    if not can or recipe.model.rope or model.is_bounded:
        return ""
    factor = -(-longest // model.max_positions)
    return f', or set model.rope_type = "yarn" and model.rope_factor = {factor}.0'


def _own(model: Model) -> str:
    """How a model's config scales its positions; empty if it does not."""
    if model.path is None:
        return ""
    found = _scaling(read_json(Path(model.path) / _CONFIG, MAX_CONFIG_BYTES))
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _scaling(config: Mapping[str, Any]) -> dict[str, Any]:
    """Type and factor in a config.json; nothing for plain rotations."""
    for one in _rotations(config):
        kind = one.get("rope_type", one.get("type", "default"))
        if isinstance(kind, str) and kind not in {"default", "mrope"}:
            factor = one.get("factor")
            return {"rope_type": kind[:40], "factor": factor if _is_number(factor) else None}
    return {}


def _theta(config: Mapping[str, Any]) -> float | None:
    """Base of the rotations in a config.json; None if it does not say."""
    known = (one.get("rope_theta") for one in (*_rotations(config), _text(config)))
    return next((float(one) for one in known if isinstance(one, int | float)), None)


def _rotations(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = (_text(config).get(key) for key in _KEYS)
    return [one for one in found if isinstance(one, dict)]


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
