"""Optimizers: what each keeps for a trained weight, and what runs it.

8-bit and paged ones are bitsandbytes'. Ranks of projected states are the defaults of galore-torch
(arXiv 2403.03507) and apollo-torch (arXiv 2412.05270).
"""

from __future__ import annotations

from typing import Final

from advisor.registry.spec import OptimizerSpec

_BITSANDBYTES: Final = ("bitsandbytes",)

ADAMW: Final = OptimizerSpec(name="adamw", title="AdamW", optim="adamw_torch_fused", rehearsed=True)
OPTIMIZERS: Final = (
    ADAMW,
    OptimizerSpec(
        name="adamw_8bit",
        title="8-bit AdamW",
        optim="adamw_bnb_8bit",
        rehearsed=True,
        needs=_BITSANDBYTES,
        bits=8,
    ),
    OptimizerSpec(
        name="paged_adamw_8bit",
        title="paged 8-bit AdamW",
        optim="paged_adamw_8bit",
        needs=_BITSANDBYTES,
        bits=8,
        paged=True,
    ),
    OptimizerSpec(name="paged_adamw", title="paged AdamW", needs=_BITSANDBYTES, paged=True),
    OptimizerSpec(name="lion", title="Lion", states=1),
    OptimizerSpec(name="lion_8bit", title="8-bit Lion", needs=_BITSANDBYTES, states=1, bits=8),
    OptimizerSpec(name="sgd", title="SGD", states=0),
    # It squares gradients and divides by the means of rows and columns.
    OptimizerSpec(name="adafactor", title="Adafactor", states=0, factored=True, extra_accesses=4),
    OptimizerSpec(
        name="galore",
        title="GaLore",
        needs=("galore_torch",),
        projected_rank=128,
        keeps_projection=True,
    ),
    OptimizerSpec(name="apollo", title="APOLLO", needs=("apollo_torch",), projected_rank=256),
    OptimizerSpec(name="lomo", title="LOMO", needs=("lomo_optim",), states=0),
)
