"""How each method loads and changes a model: one module a family, found by its description.

A module has `load_options(plan)`, what from_pretrained is told beside the path, and `adapt(model,
plan)`, the model with what the method trains and all else frozen. Importing this package imports
torch.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import set_seed

from advisor.plan import Plan
from advisor.registry.spec import MethodSpec
from runner.methods.base import load_base


def family_of(spec: MethodSpec) -> Any:
    """The module that loads and adapts for this method."""
    return import_module(f"{__name__}.{spec.builder}")


def prepare(plan: Plan, model_dir: Path, seed: int, **head: Any) -> Any:
    """The model of a folder, ready to be trained; what is added to it is drawn from the seed.

    `head`: from_pretrained's options of a score head, such as how many numbers it gives.
    """
    family = family_of(plan.method)
    set_seed(seed)
    model = load_base(model_dir, plan.task.head, **family.load_options(plan), **head)
    set_seed(seed)
    return family.adapt(model, plan)
