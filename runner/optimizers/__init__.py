"""Optimizers that transformers' Trainer does not make, or not as the recipe says: one module each.

A module has `make(model, asked)`, a torch optimizer of the weights that train. Importing this
package imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from advisor.registry.optimizer_spec import OptimizerSpec


def module_of(spec: OptimizerSpec) -> Any:
    """The module that makes this optimizer."""
    return import_module(f"{__name__}.{spec.module}")
