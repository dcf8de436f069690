"""Bytes on disk and in RAM that a plan needs beside its device memory.

Decides how much a run writes and what passes through RAM when weights are loaded. What the machine
has is compared elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from advisor.cost.weights import (
    adapter_bytes,
    base_bytes,
    embedding_params,
    gradient_bytes,
    matrices,
    optimizer_bytes,
    trained_params,
    whole_params,
)
from advisor.plan import Plan
from advisor.precision import base_width, trained_width, whole_width
from advisor.registry.spec import nothing_added
from profiles.facts import Model

KEPT: Final = 3
"""Checkpoints that a run keeps, the recipe's default."""
LEAST_KEPT: Final = 2
"""The least that a recipe allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Bytes that a run writes."""

    checkpoint_bytes: int
    """One checkpoint: the adapter, or the whole model where nothing is added, and the states."""
    artefact_bytes: int
    """The result: the whole model, or what was added to it."""
    download_bytes: int
    """The base model's weights, where they are not here yet."""

    def total(self, kept: int = KEPT) -> int:
        """With one checkpoint more than is kept: the oldest goes when the newest is complete."""
        return (kept + 1) * self.checkpoint_bytes + self.artefact_bytes + self.download_bytes


def disk(model: Model, plan: Plan) -> Disk:
    """What a run of `plan` writes."""
    width = trained_width(plan)
    states = sum(optimizer_bytes(model, plan))
    whole = base_bytes(model, plan) if plan.method.added is nothing_added else 0
    trained = whole or trained_params(model, plan) * width
    return Disk(
        checkpoint_bytes=int(trained + states),
        artefact_bytes=published_bytes(model, plan),
        download_bytes=0 if model.path else weight_bytes(model),
    )


def published_bytes(model: Model, plan: Plan) -> int:
    """Tensors of what is published: the whole model in the types it has, or what was added."""
    method, width = plan.method, trained_width(plan)
    if method.added is not nothing_added:
        count = method.published or method.added
        width = 4 if method.added_fp32 else width
        whole = whole_params(model, plan)
        if model.tied_embeddings and plan.task.head == "lm":  # PEFT writes a tied table twice
            whole += embedding_params(model) * bool(plan.settings.whole_modules)
        added = count(model, plan.settings, matrices(model, plan)) * width
        return added + whole * whole_width(plan)
    return int(base_bytes(model, plan))


def weight_bytes(model: Model) -> int:
    """Size of the weight files, or 16 bits a weight where it is not known."""
    return model.weight_bytes or 2 * model.num_params


def offloaded_bytes(model: Model, plan: Plan) -> int:
    """RAM of all processes together for what the plan keeps there instead of on its devices."""
    if not plan.offload:
        return 0
    kept = float(sum(optimizer_bytes(model, plan)))
    if plan.offload == "parameters":
        kept += base_bytes(model, plan) + adapter_bytes(model, plan) + gradient_bytes(model, plan)
    return int(kept)


def loading_bytes(model: Model, plan: Plan) -> int:
    """RAM that weights pass through on their way to the devices.

    Every process loads the whole model, for FSDP too (runner/engines/fsdp.py);
    quantized weights go to the device tensor by tensor.
    """
    if plan.base_bits < 16:
        return 0
    return base_width(plan) * model.num_params * plan.num_gpus
