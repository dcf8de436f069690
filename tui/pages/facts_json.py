"""Model, machine and data as `advisor recommend --json` has them; json_keys.py tells the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advisor.choice.compare import machine_name
from profiles.models.parameters import active_params

if TYPE_CHECKING:
    from profiles.facts import Dataset, Machine, Model


def model(found: Model) -> dict[str, Any]:
    """A model, with the weights that one token meets beside all of them."""
    return {
        "id": found.id,
        "path": found.path,
        "architecture": found.architecture,
        "model_type": found.model_type,
        "num_params": found.num_params,
        "active_params": active_params(found),
        "origin": found.params_origin,
        "num_layers": found.num_layers,
        "hidden_size": found.hidden_size,
        "vocab_size": found.vocab_size,
        "max_positions": found.max_positions,
        "num_experts": found.experts.num_experts if found.experts else None,
        "weight_bytes": found.weight_bytes,
        "gated": found.gated,
    }


def machine(found: Machine) -> dict[str, Any]:
    """A machine, measured or named."""
    gpus = [
        {
            "name": gpu.name,
            "vram_bytes": gpu.vram_bytes,
            "vram_free_bytes": gpu.vram_free_bytes,
            "origin": gpu.origin,
        }
        for gpu in found.gpus
    ]
    return {
        "name": machine_name(found),
        "origin": found.origin,
        "backend": found.backend,
        "gpus": gpus,
        "num_nodes": found.num_nodes,
        "interconnect": found.interconnect,
        "assumed": list(found.assumed),
        "ram_free_bytes": found.ram_free_bytes,
        "ram_origin": found.ram_origin,
        "disk_free_bytes": found.disk_free_bytes,
        "disk_origin": found.disk_origin,
    }


def data(found: Dataset) -> dict[str, Any]:
    """A data set's counts."""
    tokens = found.tokens
    return {
        "path": found.path,
        "format": found.format,
        "num_rows": found.num_rows,
        "num_tasks": found.num_tasks,
        "mean_tokens": tokens.mean if tokens else None,
        "max_tokens": tokens.max if tokens else None,
        "origin": tokens.origin if tokens else None,
    }
