"""DDP: every process has the whole model, and gradients are averaged once a micro-batch."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from profiles.runs.rundir import RunDir
from runner.engines import together
from runner.engines.engine import Engine
from runner.engines.ranks import Ranks


class Replicated(Engine):
    """The whole model in every process."""

    def arguments(self, *, on_cpu: bool) -> dict[str, Any]:
        """NCCL is for GPUs alone."""
        return {"ddp_backend": "gloo"} if on_cpu else {}

    def unsynced(self, accelerator: Any, model: Any) -> contextlib.AbstractContextManager[None]:
        """Gradients are added up until a backward pass outside."""
        context: contextlib.AbstractContextManager[None] = accelerator.no_sync(model=model)
        return context

    def refuse_apart(self, model: torch.nn.Module, ranks: Ranks, step: int, run: RunDir) -> None:
        """Weights and gradients must be the same, bit for bit."""
        if names := together.differences(model, ranks):
            raise together.trains_apart(names, step, run)


ENGINE = Replicated()
