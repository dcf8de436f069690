"""The rungs: which presets there are for a model, as plans to try, and over which devices.

The presets themselves are in the registry. The batch is chosen by fit.py; which rung is taken, by
fallback.py.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.choice.upcycle import NUM_EXPERTS, obstacle, upcycled
from advisor.plan import Plan
from advisor.registry.conflicts import conflict, no_head
from advisor.registry.lookup import (
    ENGINES,
    METHODS,
    OPTIMIZERS,
    all_presets,
    is_ready,
    preset_of,
)
from advisor.registry.mixtures import LoraExperts
from advisor.registry.spec import Place, PresetSpec, Settings, keys_of
from profiles.facts import Machine, Model

NEAREST = "lora"
"""The step of the ladder at whose height stands what is not on it."""


def steps() -> tuple[str, ...]:
    """The ladder, from the most to the least device memory, as the documents order it (§1)."""
    return placed("ladder")


def placed(place: Place) -> tuple[str, ...]:
    """Names of the presets at one place, in order."""
    return tuple(preset.name for preset in all_presets() if preset.place == place)


def rungs(model: Model, num_tasks: int) -> tuple[str, ...]:
    """All rungs to show for a model, from the most to the least device memory."""

    def is_shown(preset: PresetSpec) -> bool:
        if preset.place != "mixture":
            return True
        if model.experts:
            return preset.for_experts
        return num_tasks > 1 and not preset.for_experts

    return tuple(preset.name for preset in all_presets() if is_shown(preset))


def plans(preset: PresetSpec, model: Model, base: Plan, *, num_tasks: int = 1) -> tuple[Plan, ...]:
    """The rung's plans in the order to try them; `base` is 16-bit LoRA at the wanted length."""
    method = METHODS[preset.method]
    changes = {name: getattr(base.settings, name) for name in _shared(method.settings, base)}
    if preset.many_adapters:
        changes["experts"] = num_lora_experts(num_tasks)
    changes |= preset.changes
    plan = replace(
        base,
        method=method,
        settings=method.settings(**changes),
        optimizer=OPTIMIZERS[preset.optimizer],
        offload=preset.offload,
    )
    if preset.variants is None:
        return (plan,)
    return tuple(plan.with_settings(**variant) for variant in preset.variants(model))


def _shared(settings: type[Settings], base: Plan) -> set[str]:
    """Keys that a method has from the base plan's family; others have meanings of their own."""
    family = type(base.settings)
    if issubclass(settings, LoraExperts):
        return set(keys_of(family)) & set(keys_of(settings))
    return set(keys_of(family)) if issubclass(settings, family) else set()


def trained_model(rung: str | None, model: Model) -> Model:
    """The model that a rung trains: a mixture where one is made of it first."""
    return upcycled(model) if rung and preset_of(rung).upcycles else model


def num_lora_experts(num_tasks: int) -> int:
    """One adapter a task, up to the documents' number of experts."""
    return min(NUM_EXPERTS, max(2, num_tasks))


def spread(plan: Plan, num_gpus: int) -> tuple[Plan, ...]:
    """The plan over devices in each way that is worth trying, the least communication first."""
    found: list[Plan] = []
    for engine in ENGINES:
        if plan.offload:
            can_be = plan.offload in engine.offload
        elif num_gpus == 1:
            can_be = not engine.several
        else:
            same = any(other.engine.divides == engine.divides for other in found)
            can_be = engine.several and not same and _brings(plan, engine.divides)
            can_be = can_be and not conflict(
                plan.method, plan.settings, plan.optimizer, engine, plan.task
            )
        if can_be:
            found.append(replace(plan, engine=engine, num_gpus=num_gpus))
    return tuple(found)


def _brings(plan: Plan, divides: frozenset[str]) -> bool:
    """Small methods have next to no gradients and states: only dividing the weights helps."""
    return plan.method.trains_base or not divides or "weights" in divides


def runs(plan: Plan) -> bool:
    """Our runner can run this plan, on the model as it is."""
    ready = all(map(is_ready, (plan.method, plan.task, plan.optimizer, plan.engine)))
    ready = ready and not no_head(plan.method, plan.task)
    keys = keys_of(type(plan.settings)).items()
    return ready and not any(getattr(plan.settings, name) in key.not_yet for name, (_, key) in keys)


def _no_offload(machine: Machine) -> str:
    if machine.backend != "cuda":
        return "DeepSpeed's offload needs an NVIDIA GPU"
    if any(gpu.unified for gpu in machine.gpus):
        return "processor and GPU share their memory, so that nothing can be moved out of the way"
    return ""


def unsupported(preset: PresetSpec, model: Model, machine: Machine) -> str:
    """Why a rung is none for this model or machine, or empty."""
    method, backend = METHODS[preset.method], machine.backend
    if preset.upcycles:
        return obstacle(model)
    settings = method.settings(**preset.changes)
    if reason := method.unsupported(model, settings):
        return reason
    if preset.offload and (reason := _no_offload(machine)):
        return reason
    if OPTIMIZERS[preset.optimizer].needs_gpu and backend not in {"cuda", "rocm"}:
        return "bitsandbytes' optimizers need a GPU"
    if settings.base_bits < 16 and backend == "mps":
        return (
            "what bitsandbytes takes on Apple GPUs is not measured, so no base is quantized there"
        )
    return ""
