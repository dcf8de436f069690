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


def prepare(plan: Plan, model_dir: Path, seed: int) -> Any:
    """The model of a folder, ready to be trained; what the method adds is drawn from the seed."""
    family = family_of(plan.method)
    model = load_base(model_dir, **family.load_options(plan))
    set_seed(seed)
    return family.adapt(model, plan)
