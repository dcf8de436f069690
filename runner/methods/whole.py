"""Full fine-tuning: every weight is trained.

Under autocast the trained weights stay in fp32: at learning rates near 1e-5 an update is smaller
than the spacing of bf16 numbers and would be lost. `bf16_pure` accepts that for half the memory.
"""

from __future__ import annotations

from typing import Any

import torch

from advisor.plan import Plan


def load_options(plan: Plan) -> dict[str, Any]:
    """The type that weights are trained in."""
    return {"dtype": torch.bfloat16 if plan.precision == "bf16_pure" else torch.float32}


def adapt(model: Any, plan: Plan) -> Any:  # noqa: ARG001  # every family is told
    """The model as it is."""
    return model
