"""Engines: how devices share the work, those with the least communication first.

`unit_seconds` is host time to gather one unit and let it go, which computing does not hide.
DeepSpeed does so for every module: its figure is a layer's. Fitted on half of the published rows
with FSDP; ZeRO-3 on few.
"""

from __future__ import annotations

from typing import Final

from advisor.registry.engine_spec import EngineSpec

_DEEPSPEED: Final = ("deepspeed",)

SINGLE: Final = EngineSpec(name="single", title="one device", builder="single", several=False)
DDP: Final = EngineSpec(name="ddp", title="DDP", builder="ddp")
ENGINES: Final = (
    SINGLE,
    DDP,
    EngineSpec(
        name="zero1",
        title="ZeRO-1",
        needs=_DEEPSPEED,
        needs_gpu=True,
        divides=frozenset({"states"}),
    ),
    EngineSpec(
        name="zero2",
        title="ZeRO-2",
        needs=_DEEPSPEED,
        needs_gpu=True,
        divides=frozenset({"states", "gradients"}),
        offload=("optimizer",),
    ),
    EngineSpec(
        name="fsdp",
        title="FSDP",
        builder="fsdp",
        needs_gpu=True,
        divides=frozenset({"states", "gradients", "weights"}),
        float_shards=True,
        unit_seconds=0.5e-3,
    ),
    EngineSpec(
        name="zero3",
        title="ZeRO-3",
        needs=_DEEPSPEED,
        needs_gpu=True,
        divides=frozenset({"states", "gradients", "weights"}),
        offload=("optimizer", "parameters"),
        reads_once=True,  # transformers: "Only rank 0 reads the values"
        unit_seconds=2.4e-3,
    ),
)
