"""Whether the linears and layers that a recipe names are in its model.

PEFT passes over a name that matches nothing, as long as another one does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from advisor.recipe import Recipe
from advisor.registry.beside import EMBEDDING, HEAD
from advisor.registry.lookup import nearest
from advisor.registry.low_rank import (
    ALL_TARGETS,
    ATTENTION_LINEARS,
    EXPERTS,
    MLP_TARGETS,
    TARGET_GROUPS,
    LowRank,
    expert_rank,
)
from advisor.registry.spec import Settings
from advisor.registry.whole import Freeze
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import safetensors_header

_OF_LAYER: Final = re.compile(r"(?:^|.*?\.)\d+\..*?([^.]+)\.weight")
"""Name of a weight in a numbered layer, with the name of its module."""
IN_LAYER: Final = re.compile(r"(?:.*?\.)?(\d+)\.(.+)")
"""The number of a layer and what comes after it, of a module."""
_MATRIX: Final = 2
"""Dimensions of a linear's weight."""
_ROUTED: Final = re.compile(r"\.experts\.\d+\.|\.router\.")
"""In the name of a weight: it is one routed expert's, or in a router."""
_ROUTERS: Final = frozenset({"gate", "router", "shared_expert_gate"})
"""Modules of a mixture that weigh experts."""


def check(recipe: Recipe, model: Model) -> None:
    """UserError (78) for the first name or number that is not in the model."""
    settings = recipe.method.settings
    _check_layers(settings, model)
    _check_whole(settings, model)
    targets = getattr(settings, "targets", "all")
    if isinstance(targets, str) and not isinstance(settings, LowRank):
        return
    known = linears_of(model)
    if known and not isinstance(targets, str):
        _check_names("targets", targets, known, model)
    if not isinstance(settings, LowRank):
        return
    _check_whole_mlp(settings, model)
    if known:
        _check_names("exclude", settings.exclude, known, model)
        _check_names("ranks", tuple(dict(settings.ranks)), known, model)
        _check_parts(settings, model)
    _check_are_targets("exclude", settings.exclude, settings)
    _check_are_targets("ranks", tuple(dict(settings.ranks)), settings)


def _check_layers(settings: Settings, model: Model) -> None:
    count, layers = model.num_layers, getattr(settings, "layers", "all")
    if isinstance(settings, Freeze) and layers == "all" and settings.frozen_layers >= count:
        why = f"leaves none of {count} layers to train"
        raise _refusal("frozen_layers", why, str(count - 1))
    if isinstance(layers, str):
        asked = int(layers.removeprefix("last ")) if layers != "all" else 0
        if asked > count:
            raise _refusal("layers", f"asks for the {layers} of {count} layers", f'"last {count}"')
    elif layers[-1] >= count:
        last = f"the layers of {model.id} are numbered from 0 to {count - 1}"
        there = [layer for layer in layers if layer < count] or [count - 1]
        raise _refusal("layers", f"names layer {layers[-1]}: {last}", str(there))


def _check_whole(settings: Settings, model: Model) -> None:
    """PEFT keeps a tied head and the embedding one table by the embedding's name alone."""
    tables = [name for name in settings.whole_modules if name in {EMBEDDING, HEAD}]
    if not tables or not model.tied_embeddings or not linears_of(model):
        return
    if EMBEDDING not in _outside(model):
        rest = [name for name in settings.whole_modules if name not in tables]
        why = f"names {tables[0]}, which is tied here and has another name than PEFT goes by"
        raise _refusal("modules_to_save", why, json.dumps(rest))


def _check_names(key: str, given: tuple[str, ...], known: tuple[str, ...], model: Model) -> None:
    for name in given:
        if name not in known:
            why = f"names {name!r}, and no linear in the layers of {model.id} is called so"
            if name in _outside(model):
                why += "; adapters on the embedding or the head are not made: where both are one "
                why += "matrix, they would change each other, and could not be merged"
            if model.experts is not None and name in _ROUTERS:
                why += '; what weighs experts is no target, but method.router = "adapted" or '
                why += '"trained" is for the router'
            near = nearest(name, known)
            raise _refusal(key, f"{why}; {near}", None)


def _check_whole_mlp(settings: LowRank, model: Model) -> None:
    """An expert's gate and up are one matrix, which gets one adapter."""
    if model.experts is None or isinstance(settings.targets, str):
        return
    missing = [name for name in MLP_TARGETS if name not in settings.targets]
    if missing and len(missing) < len(MLP_TARGETS):
        why = (
            f"leaves out {missing[0]!r}: of a mixture all linears of its MLPs are adapted, or none"
        )
        raise _refusal("targets", why, json.dumps([*settings.targets, *missing]))


def _check_parts(settings: LowRank, model: Model) -> None:
    """Adapters that begin as a part of a weight are no wider than it: more is published as less."""
    if not settings.changes_base or (model.experts is not None and expert_rank(settings)):
        return  # what begins on experts is refused as a whole
    ranks = dict(settings.ranks)
    for name, side in _smaller_sides(model).items():
        is_target = settings.targets == "all" or name in settings.target_names
        rank = ranks.get(name, settings.rank)
        if is_target and name not in settings.exclude and rank > side:
            why = f"is {rank}, and {name} has {side} directions to begin with"
            key, instead = ("ranks", None) if name in ranks else ("rank", str(side))
            raise _refusal(key, why, instead)


def _smaller_sides(model: Model) -> dict[str, int]:
    """Name of a linear in the layers -> the smaller of its sides, the smallest first."""
    sides: dict[str, int] = {}
    for name, shape in _matrices(model):
        if found := _OF_LAYER.fullmatch(name):
            sides[found[1]] = min(*shape, sides.get(found[1], shape[0]))
    return dict(sorted(sides.items(), key=lambda item: item[1]))


def _check_are_targets(key: str, given: tuple[str, ...], settings: LowRank) -> None:
    """Of what is no target nothing can be left out, and it has no width."""
    if key == "exclude" and given and not settings.target_names:
        raise _refusal(key, "leaves out all that method.targets names", "[]")
    if isinstance(settings.targets, str):
        others = set(ALL_TARGETS) - set(TARGET_GROUPS[settings.targets])
        others &= set(given)
    else:
        others = set(given) - set(settings.targets)
    if key == "ranks":
        others |= set(given) & set(settings.exclude)
    if others:
        nothing = "[]" if key == "exclude" else "{}"
        raise _refusal(key, f"names {min(others)!r}, which is no target anyway", nothing)


def linears_of(model: Model) -> tuple[str, ...]:
    """Names of the linears in its layers, by its weight files; none where it has no files.

    Of a mixture also what its routed experts go by, but not what weighs them.
    """
    found = {name: each[1] for name, _ in _matrices(model) if (each := _OF_LAYER.fullmatch(name))}
    if found and model.experts is not None:
        names = {last for name, last in found.items() if not _ROUTED.search(name)}
        return tuple(sorted((names - _ROUTERS) | {*MLP_TARGETS, EXPERTS}))
    return tuple(sorted(set(found.values())))


def reached(settings: Settings, model: Model) -> set[tuple[int, str]]:
    """(layer, name in it) of the linears that a method's targets reach, by the weight files."""
    targets: str | tuple[str, ...] = getattr(settings, "targets", "all")
    layers = set(settings.adapted_layers(model.num_layers))
    exclude = getattr(settings, "exclude", ())
    found = set()
    for weight, _ in _matrices(model):
        name = weight.removesuffix(".weight")
        if not (parts := IN_LAYER.fullmatch(name)):
            continue
        number, inside, last = int(parts[1]), parts[2], name.rpartition(".")[2]
        if targets == "attention":
            is_target = re.fullmatch(ATTENTION_LINEARS, name) is not None
        else:
            is_target = targets == "all" or last in targets
        if is_target and number in layers and last not in exclude:
            found.add((number, inside))
    return found


def shapes(model: Model) -> dict[tuple[int, str], list[int]]:
    """(layer, name in it) -> shape of all matrices in the layers."""
    named = (
        (IN_LAYER.fullmatch(n.removesuffix(".weight")), shape) for n, shape in _matrices(model)
    )
    return {(int(parts[1]), parts[2]): shape for parts, shape in named if parts}


def _outside(model: Model) -> set[str]:
    """Names of matrices that are in no layer: embeddings and heads."""
    outside = {n.split(".")[-2] for n, _ in _matrices(model) if not _OF_LAYER.fullmatch(n)}
    return outside | {"lm_head"}


def _matrices(model: Model) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes of all weights with two dimensions."""
    for shard in safetensors_header.weight_files(Path(model.path)) if model.path else ():
        for name, entry in safetensors_header.read_header(shard).items():
            if name.endswith(".weight") and len(entry["shape"]) == _MATRIX:
                yield name, entry["shape"]


def _refusal(key: str, why: str, instead: str | None) -> UserError:
    mend = f"add --set 'method.{key}={instead}'" if instead else f"correct method.{key}"
    return UserError(
        f"method.{key} does not fit the model",
        why=f"it {why}",
        do=mend,
        where=f"method.{key}",
        code=ExitCode.BAD_RECIPE,
    )
