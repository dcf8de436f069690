"""The real worker on a device that breaks when a micro-batch of more than one row comes at step 3.

Run like `runner.training.worker`; under torchrun only the second rank is short of memory.
"""

from __future__ import annotations

import os
import sys

import torch

from runner.tasks.sft import RunSft
from runner.training import oom, worker

compute = RunSft.compute_loss


def limited(trainer, model, inputs, *args, **kw):
    """Fail as torch does, once training has begun."""
    is_short = os.environ.get("RANK", "1") == "1" and trainer.state.global_step >= 3
    if model.training and is_short and inputs["input_ids"].shape[0] > 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return compute(trainer, model, inputs, *args, **kw)


if __name__ == "__main__":
    RunSft.compute_loss = limited
    oom.is_sane = lambda _device: False
    sys.exit(worker.main(sys.argv))
