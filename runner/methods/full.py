"""Full fine-tuning: every weight is trained.

Under autocast the trained weights stay in fp32: at learning rates near 1e-5 an update is smaller
than the spacing of bf16 numbers and would be lost. `bf16_pure` accepts that for half the memory.
"""

from __future__ import annotations

from pathlib import Path

import torch

from advisor.recipe import Recipe
from runner.methods.prepared import Prepared, load_base


def prepare(recipe: Recipe, model_dir: Path) -> Prepared:
    """Load the weights in the precision they are trained in."""
    pure = recipe.train.precision == "bf16_pure"
    dtype = torch.bfloat16 if pure else torch.float32
    return Prepared(model=load_base(model_dir, dtype), peft_config=None)
