"""How each method prepares a model: one module a family, named by the `builder` of its specs.

The worker and the rehearsal ask the same functions; each brings a base of its own. Importing this
package imports torch.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

from peft import PeftConfig
from transformers import PreTrainedModel

from advisor.plan import Plan
from runner.methods import base


class Builder(Protocol):
    """What a module of this package has."""

    def load_options(self, plan: Plan) -> dict[str, Any]:
        """Arguments of `from_pretrained`: the weights' type, and how they are quantized."""

    def peft_config(self, plan: Plan) -> PeftConfig | None:
        """What PEFT puts on the model; None where the model's own weights train."""


def builder_of(plan: Plan) -> Builder:
    """The module that builds the plan's method."""
    assert plan.method.builder, f"{plan.method.name} cannot be started"
    found: Any = importlib.import_module(f"{__name__}.{plan.method.builder}")
    return cast("Builder", found)


def load_options(plan: Plan) -> dict[str, Any]:
    """As the method's builder has them."""
    return builder_of(plan).load_options(plan)


def peft_config(plan: Plan) -> PeftConfig | None:
    """As the method's builder has it."""
    return builder_of(plan).peft_config(plan)


def load(plan: Plan, model_dir: Path) -> PreTrainedModel:
    """The base model as the method trains on it."""
    if plan.base_bits < 16:
        base.keep_the_storage_format()
    return base.load(model_dir, **load_options(plan))
