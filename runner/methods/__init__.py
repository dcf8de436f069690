"""How each method wraps a model: one module a family, and the registry the advisor must match.

Importing this package imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from advisor.recipe import Recipe
from runner.methods import full, lora
from runner.methods.prepared import Prepared

METHODS: dict[str, Callable[[Recipe, Path], Prepared]] = {
    "lora": lora.prepare,
    "qlora": lora.prepare,
    "full": full.prepare,
}


def prepare(recipe: Recipe, model_dir: Path) -> Prepared:
    """Load the model of a recipe for its method."""
    return METHODS[recipe.method.name](recipe, model_dir)
