"""Bytes on disk and in RAM that a plan needs beside its device memory.

Decides how much a run writes, and what lies in RAM while weights are loaded, trained and saved.
What the machine has is compared in fit.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from advisor.cost.memory import PROCESS_BYTES
from advisor.cost.weights import (
    adapter_bytes,
    base_bytes,
    embedding_params,
    gradient_bytes,
    matrices,
    optimizer_bytes,
    reference_bytes,
    trained_params,
    whole_params,
)
from advisor.graph.layer import any_devices
from advisor.plan import Plan
from advisor.precision import base_width, frozen_width, trained_width, whole_width
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
    weight_bytes: int
    """Of it, the weights."""
    artefact_bytes: int
    """The result: the whole model, or what was added to it."""
    download_bytes: int
    """The base model's weights, where they are not here yet."""

    def total(self, kept: int = KEPT) -> int:
        """With one checkpoint more than is kept: the oldest goes when the newest is complete."""
        return (kept + 1) * self.checkpoint_bytes + self.artefact_bytes + self.download_bytes


def disk(model: Model, plan: Plan) -> Disk:
    """What a run of `plan` writes."""
    return _needs(model, plan)[0]


def _needs(model: Model, plan: Plan) -> tuple[Disk, int]:
    """What is written, and what one process copies, whatever the batch and the devices."""
    return _known(model, replace(any_devices(model, plan), optimizer=plan.optimizer))


@lru_cache(maxsize=1024)
def _known(model: Model, plan: Plan) -> tuple[Disk, int]:
    return _disk(model, plan), _copied_bytes(model, plan)


def _disk(model: Model, plan: Plan) -> Disk:
    width = trained_width(plan)
    states = sum(optimizer_bytes(model, plan))
    whole = base_bytes(model, plan) if plan.method.added is nothing_added else 0
    trained = whole or trained_params(model, plan) * width
    return Disk(
        checkpoint_bytes=int(trained + states),
        weight_bytes=int(trained),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a plan needs of the machine around its GPUs, in bytes."""

    ram_bytes: int
    """At the worst time: while all processes load, or train, or one of them saves."""
    disk_bytes: int
    """With the fewest checkpoints."""


def host(model: Model, plan: Plan) -> Host:
    """RAM and disk of a run; without a GPU the RAM is the device's memory, and told as that."""
    written, copied = _needs(model, plan)
    needed = 0
    if not plan.framework.on_cpu:
        beside = (
            _readers(plan) * copied,
            offloaded_bytes(model, plan),
            _saving_bytes(plan, written),
        )
        needed = plan.num_gpus * PROCESS_BYTES[-1] + max(beside)
    return Host(ram_bytes=needed, disk_bytes=written.total(LEAST_KEPT))


def offloaded_bytes(model: Model, plan: Plan) -> int:
    """RAM of all processes together for what the plan keeps there instead of on its devices."""
    if not plan.offload:
        return 0
    kept = float(sum(optimizer_bytes(model, plan)))
    if plan.offload == "parameters":
        kept += base_bytes(model, plan) + adapter_bytes(model, plan) + gradient_bytes(model, plan)
    return int(kept)


def loading_bytes(model: Model, plan: Plan) -> int:
    """RAM of all processes for weights on their way from the files to the devices.

    Tensors that are taken as they lie in a file are mapped: their pages are the system's cache,
    which all processes share and which goes when memory gets tight. The others are copies, and
    every process has its own (runner/engines/fsdp.py), but where the engine reads once. Measured
    with transformers 5.23, process by process: 0 MiB private of a bf16 Llama of 509 loaded as bf16,
    1 018 loaded as fp32, and of a bf16 mixture of 462 its experts' 384.
    """
    return _readers(plan) * _needs(model, plan)[1]


def _readers(plan: Plan) -> int:
    return 1 if plan.engine.reads_once else plan.num_gpus


def _copied_bytes(model: Model, plan: Plan) -> int:
    """Of one process. Quantized weights go to the device tensor by tensor."""
    if plan.base_bits < 16:
        return 0
    changed = converts(model, plan) or getattr(plan.settings, "changes_base", False)
    copied: float = model.num_params if changed else _joined_params(model)
    own = 0
    if not plan.method.trains_embedding:
        trained = trained_params(model, plan)
        own = trained * trained_width(plan)
        # What trains of the base is made wider in place, tensor by tensor
        copied *= 1 - trained / model.num_params if plan.method.trains_base else 1
    references = 2 if reference_bytes(model, plan) else 1
    return int(references * copied * _loaded_width(plan)) + own


def converts(model: Model, plan: Plan) -> bool:
    """The weights are loaded in another type than their files have."""
    return model.dtype != loaded_type(plan)


def loaded_type(plan: Plan) -> str:
    """The weights' type as they are loaded, by torch's name of it."""
    narrow = "float16" if plan.precision == "fp16" else "bfloat16"
    return "float32" if _loaded_width(plan) == 4 else narrow


def _loaded_width(plan: Plan) -> int:
    """Of the weights as they come from the files; what trains of them is made wider afterwards."""
    return base_width(plan) if plan.method.trains_embedding else frozen_width(plan)


def _joined_params(model: Model) -> int:
    """Experts lie one by one in the files, and are trained as one tensor a layer."""
    experts = model.experts
    if experts is None:
        return 0
    each = (3 if model.gated_mlp else 2) * model.hidden_size * experts.width
    return experts.num_layers * experts.num_experts * each


def _saving_bytes(plan: Plan, written: Disk) -> int:
    """Of the process that writes: the weights pass through RAM, and states that are gathered."""
    if not plan.engine.divides:
        return written.weight_bytes
    return max(written.weight_bytes, written.checkpoint_bytes - written.weight_bytes)
