"""What a run asks of the engine that shares its work; as it is with one process."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch

from profiles.runs.rundir import RunDir
from runner.engines import loading
from runner.engines.ranks import Ranks


class Engine:
    """One process with the whole model. Other engines say what is different with them."""

    forwards_alone = True
    """A forward pass, or a backward pass that is thrown away, waits for no other process."""
    can_forget = True
    """A backward pass can be thrown away: it has not touched the optimizer."""

    def arguments(self, *, on_cpu: bool) -> dict[str, Any]:  # noqa: ARG002  # others ask for it
        """Fields of transformers' TrainingArguments beside those of every run."""
        return {}

    def before_wrapping(self, accelerator: Any) -> None:
        """Arrange what Accelerate does when it wraps the model for training."""

    def unsynced(
        self,
        accelerator: Any,  # noqa: ARG002  # others ask for it
        model: Any,  # noqa: ARG002
    ) -> contextlib.AbstractContextManager[None]:
        """Inside, a backward pass adds to the gradients of this process alone, where it may."""
        return contextlib.nullcontext()

    def local(self, weight: torch.Tensor) -> torch.Tensor:
        """The part of a weight that this process holds."""
        return weight

    def load(self, accelerator: Any, model: torch.nn.Module, checkpoint: Path) -> None:  # noqa: ARG002
        """Take the trained weights of a checkpoint; UserError if they are not all there."""
        loading.load(model, checkpoint)

    def refuse_apart(self, model: torch.nn.Module, ranks: Ranks, step: int, run: RunDir) -> None:
        """UserError if the processes do not train one model, told right after an optimizer step."""
