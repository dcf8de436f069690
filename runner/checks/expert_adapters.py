"""Whether the adapters that a mixture's experts begin as go with a recipe: read, never loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from advisor.recipe import Recipe
from advisor.registry.continued import understood
from advisor.registry.handover import PEFT_CONFIG
from advisor.registry.low_rank import LowRank
from profiles.data.words import printable
from profiles.facts import Model
from profiles.quantities import some_of
from profiles.runs import parents
from runner.checks import adapters, targets
from runner.checks.adapters import Adapter, refusal

_FREE: Final = ("rank", "alpha", "ranks", "rslora")
"""Of a LoRA adapter, what experts can take over whatever it is: width and scale."""
_PLAIN: Final = LowRank()
_OTHER: Final = "name another adapter, or train it again as plain LoRA"


def check(recipe: Recipe, base: Model, base_dir: Path) -> list[str]:
    """What is to be minded of `model.adapters`; UserError for the first that does not go."""
    folders = {text: parents.adapter_folder(text, base_dir) for text in recipe.model.adapters}
    named = {text: adapters.read(folder) for text, folder in folders.items()}
    told = []
    for text, adapter in named.items():
        _check_kind(text, recipe, adapter)
        told += adapters.check_base(text, recipe, base, adapter)
        adapters.check_shapes(base, adapter)
        adapters.check_start(adapter)
        _check_settings(text, recipe, adapter)
        _check_width(text, recipe, adapter)
    if named and targets.linears_of(base):
        _check_linears(named, recipe, base)
    return told


def _check_kind(text: str, recipe: Recipe, adapter: Adapter) -> None:
    file, kind = recipe.method.spec.mixes, adapter.config.get("peft_type")
    assert file is not None  # a recipe that says otherwise is none
    if kind != file.kind:
        why = f"it is one of {printable(str(kind), 40)}, and experts are of {file.kind}"
        raise refusal(f"no expert can begin as {text}", why, _OTHER, adapter.folder)


def _check_settings(text: str, recipe: Recipe, adapter: Adapter) -> None:
    """What is beside the two matrices of a linear would be lost."""
    file = recipe.method.spec.mixes
    assert file is not None
    try:
        said, unknown = understood(adapter.config, file)
    except (AttributeError, TypeError) as error:
        raise refusal(
            f"{PEFT_CONFIG} is none that PEFT wrote", str(error), "save it again", adapter.folder
        ) from error
    unknown += [
        f"{key} = {value!r}"
        for key, value in said.items()
        if key not in _FREE and value != getattr(_PLAIN, key)
    ]
    if unknown:
        why = f"its {PEFT_CONFIG} has {printable(some_of(unknown, 4), 200)}"
        raise refusal(f"no expert can begin as {text}", why, _OTHER, adapter.folder)


def _check_width(text: str, recipe: Recipe, adapter: Adapter) -> None:
    rank = getattr(recipe.method.settings, "rank", 0)
    widest = max((n[0] for name, n in adapter.shapes.items() if adapters.DOWN in name), default=0)
    if widest > rank:
        raise refusal(
            f"{text} is wider than an expert",
            f"it is of rank {widest}, and method.rank is {rank}",
            f"add --set method.rank={widest}",
            adapter.folder,
        )


def _check_linears(named: dict[str, Adapter], recipe: Recipe, base: Model) -> None:
    """All that they adapt must be targets; on other targets an expert is new."""
    reached = targets.reached(recipe.method.settings, base)
    adapted = {text: adapter.modules for text, adapter in named.items()}
    wanted = reached.union(*adapted.values())
    for text, adapter in named.items():
        outside = [name for name in adapter.shapes if not adapters.is_inside(name)]
        if outside:
            why = f"it holds {printable(outside[0], 200)}, which is on no linear of a layer"
            raise refusal(f"no expert can begin as {text}", why, _OTHER, adapter.folder)
        if lost := {name for _, name in adapted[text] - reached}:
            names = sorted({name.rpartition(".")[2] for _, name in wanted})
            raise refusal(
                f"{text} adapts linears that no expert stands beside",
                f"of method.targets are not: {some_of(sorted(lost))}",
                f"add --set 'method.targets={json.dumps(names)}'",
                adapter.folder,
            )
