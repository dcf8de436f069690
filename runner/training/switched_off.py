"""A model without its adapter, for a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from peft import PeftModel


@contextlib.contextmanager
def without_adapter(model: PeftModel) -> Iterator[None]:
    """Inside, it is the base model, in evaluation mode; behind, all is as it was."""
    was_training = model.training
    frozen = [p for p in model.parameters() if not p.requires_grad]
    model.eval()
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter in frozen:  # PEFT lets all of an adapter train that it switches on
            parameter.requires_grad_(requires_grad=False)
        model.train(was_training)
