"""Under torchrun: pairs of runs, of which the second is killed and gone on with.

Run as `torchrun --nproc-per-node=2 two_ranks.py DIES_AFTER UNDISTURBED DISTURBED ...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import real_runs
import torch.distributed as dist

from profiles.runs import durable
from profiles.runs.rundir import RunDir
from runner.training.trainer import RunTrainer


class KilledError(BaseException):
    """As abrupt as a signal."""


def main(undisturbed, disturbed, dies_after):
    """Train both to the end."""
    real_runs.attempt(undisturbed)
    step = RunTrainer.training_step

    def dying(trainer, *args, **kw):
        if trainer.state.global_step == dies_after:
            raise KilledError
        return step(trainer, *args, **kw)

    RunTrainer.training_step = dying
    try:
        real_runs.attempt(disturbed)
    except KilledError:
        RunTrainer.training_step = step
    if dist.get_rank() == 0:
        durable.write_atomic(disturbed.attempt_file, b"2\n")
    dist.barrier()
    real_runs.attempt(disturbed)


if __name__ == "__main__":
    runs = [RunDir(Path(path)) for path in sys.argv[2:]]
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        main(first, second, int(sys.argv[1]))
    dist.destroy_process_group()
