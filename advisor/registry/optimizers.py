"""Optimizers: what each keeps for a trained weight, where its learning rate starts, what runs it.

8-bit and paged ones, Lion and AdEMAMix are bitsandbytes', whose states are fp32 or 8 bits. Ranks of
projected states are those of the papers (GaLore: arXiv 2403.03507, APOLLO: 2412.05270).
"""

from __future__ import annotations

from typing import Final

from advisor.registry.optimizer_spec import OptimizerSpec

_BITSANDBYTES: Final = ("bitsandbytes",)
_SIGNS: Final = (
    "each of its steps has the size of the rate (arXiv 2302.06675 §5: 3 to 10 times less)"
)
_PLAIN: Final = "its steps are as small as gradients are; a heuristic"

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
    OptimizerSpec(
        name="paged_adamw",
        title="paged AdamW",
        optim="paged_adamw_32bit",
        needs=_BITSANDBYTES,
        fp32_states=True,
        paged=True,
    ),
    # It squares gradients and divides by the means of rows and columns.
    OptimizerSpec(
        name="adafactor",
        title="Adafactor",
        optim="adafactor",
        states=0,
        factored=True,
        extra_accesses=4,
    ),
    OptimizerSpec(
        name="lion",
        title="Lion",
        optim="lion_32bit",
        needs=_BITSANDBYTES,
        states=1,
        fp32_states=True,
        rate_factor=0.2,
        rate_reason=_SIGNS,
    ),
    OptimizerSpec(
        name="lion_8bit",
        title="8-bit Lion",
        optim="lion_8bit",
        needs=_BITSANDBYTES,
        states=1,
        bits=8,
        rate_factor=0.2,
        rate_reason=_SIGNS,
    ),
    OptimizerSpec(
        name="sgd",
        title="SGD with momentum",
        optim="sgd",
        options={"momentum": 0.9},
        states=1,
        rate_factor=100.0,
        rate_reason=_PLAIN,
    ),
    OptimizerSpec(
        name="ademamix",
        title="AdEMAMix",
        optim="ademamix",
        needs=_BITSANDBYTES,
        states=3,
        fp32_states=True,
    ),
    # Without compensation in 16 bits, which would be a third state.
    OptimizerSpec(
        name="stable_adamw",
        title="StableAdamW",
        optim="stable_adamw",
        options={"kahan_sum": False},
        needs=("optimi",),
    ),
    OptimizerSpec(
        name="schedule_free",
        title="schedule-free AdamW",
        module="schedule_free",
        needs=("schedulefree",),
        own_schedule=True,
    ),
    OptimizerSpec(name="muon", title="Muon, AdamW for the rest", module="muon", matrix_states=1),
    OptimizerSpec(
        name="galore",
        title="GaLore",
        module="galore",
        needs=("galore_torch",),
        projected_rank=128,
        keeps_projection=True,
        rate_factor=4.0,
        rate_reason="its updates are scaled by 1/4 (arXiv 2403.03507 §5)",
    ),
    OptimizerSpec(
        name="apollo",
        title="APOLLO",
        module="apollo",
        options={"scale": 1.0, "tensorwise": False},
        projected_rank=256,
    ),
    OptimizerSpec(
        name="apollo_mini",
        title="APOLLO-mini",
        module="apollo",
        options={"scale": 128.0, "tensorwise": True},
        projected_rank=1,
    ),
    OptimizerSpec(
        name="lomo",
        title="LOMO",
        optim="lomo",  # the Trainer hands the rate to the backward pass
        module="lomo",
        needs=("lomo_optim",),
        states=0,
        rate_factor=1000.0,
        rate_reason="no momentum, and gradients are not scaled (arXiv 2306.09782: 0.01 to 0.05)",
        steps_in_backward=True,
    ),
)
