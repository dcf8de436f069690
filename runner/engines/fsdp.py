"""FSDP2: every process has a shard of each weight, and gathers one layer at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, load_fsdp_model
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor

from profiles.errors import ExitCode, UserError
from profiles.runs.rundir import RunDir
from runner.engines import loading
from runner.engines.engine import Engine
from runner.engines.ranks import Ranks


class Sharded(Engine):
    """A shard of each weight, of its gradient and of its states in every process."""

    forwards_alone = False

    def arguments(self, *, on_cpu: bool) -> dict[str, Any]:  # noqa: ARG002  # the same everywhere
        """Layer by layer, and gradients divided after each micro-batch."""
        return {
            # Else the gradients of all layers stay whole on every GPU between micro-batches
            "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}},
            "fsdp": True,
            "fsdp_config": {
                "version": 2,
                "reshard_after_forward": True,
                "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
                "state_dict_type": "FULL_STATE_DICT",
                "cpu_ram_efficient_loading": False,
            },
        }

    def before_wrapping(self, accelerator: Any) -> None:
        """At the last moment: the Trainer chooses another policy for PEFT just before.

        UserError if Accelerate will not shard here.
        """
        if accelerator.distributed_type != DistributedType.FSDP:
            raise _left_whole("Accelerate shards on GPUs only")
        prepare, plugin = accelerator.prepare, accelerator.state.fsdp_plugin

        def prepared(*args: Any, **kwargs: Any) -> Any:
            shard_by_layer(plugin)
            return prepare(*args, **kwargs)

        accelerator.prepare = prepared

    def local(self, weight: torch.Tensor) -> torch.Tensor:
        """The shard."""
        return weight.to_local() if isinstance(weight, DTensor) else weight

    def load(self, accelerator: Any, model: torch.nn.Module, checkpoint: Path) -> None:
        """The first process reads, and the others are given their shards."""
        with loading.complete(model, checkpoint, self.local):
            plugin = accelerator.state.fsdp_plugin
            load_fsdp_model(plugin, accelerator, model, str(checkpoint), adapter_only=True)

    def refuse_apart(
        self,
        model: torch.nn.Module,
        ranks: Ranks,
        step: int,
        run: RunDir,  # noqa: ARG002
    ) -> None:
        """What is divided among all processes cannot be trained apart."""
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if whole := [name for name, p in trained if not _is_divided(p, ranks)]:
            raise _left_whole(f"after step {step}: {len(whole)} weights, {whole[0]} among them")


def shard_by_layer(plugin: Any) -> None:
    """Make each layer an FSDP unit of its own, under PEFT too.

    transformers gives PEFT's models a policy that Accelerate's FSDP2 does not know; it then leaves
    all layers in one unit, which gathers the whole model at once.
    """
    plugin.auto_wrap_policy = transformer_auto_wrap_policy


def _is_divided(weight: torch.Tensor, ranks: Ranks) -> bool:
    return isinstance(weight, DTensor) and weight.device_mesh.size() == ranks.world_size


def _left_whole(why: str) -> UserError:
    return UserError(
        "FSDP left weights whole, in every process",
        why=why,
        do="train with hardware.strategy = ddp, or on a machine with GPUs",
        where="hardware.strategy",
        code=ExitCode.BAD_RECIPE,
    )


ENGINE = Sharded()
