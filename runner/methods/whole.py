"""Full fine-tuning: every weight is trained.

Under autocast the trained weights stay in fp32: at learning rates near 1e-5 an update is smaller
than the spacing of bf16 numbers and would be lost. `bf16_pure` accepts that for half the memory.
"""

from __future__ import annotations

from typing import Any

import torch

from advisor.plan import Plan


def load_options(plan: Plan) -> dict[str, Any]:
    """The weights in the precision they are trained in."""
    pure = plan.precision == "bf16_pure"
    return {"dtype": torch.bfloat16 if pure else torch.float32}


def peft_config(_plan: Plan) -> None:
    """Nothing is put on the model."""
