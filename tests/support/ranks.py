"""Attempts of runs in several processes, with what each rank sees of every optimizer step.

Run as `torchrun --nproc-per-node=2 ranks.py PLAN.json`. The plan is a list of attempts, in order; a
run that comes again begins its next attempt. Each rank writes its steps, and the errors that ended
an attempt, beside the plan.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch

ROOT = Path(__file__).parents[2]
_SHARDS = "TEST_SHARDS_ON_CPU"


class Attempt(NamedTuple):
    """One of a run, and what happens in it."""

    run: object
    """In a plan on disk the path of its directory."""
    kill: int | None = None
    """The step at which it dies."""
    apart: bool = False
    """Accelerate takes the model as ready and leaves it unwrapped."""
    short: bool = False
    """The second rank has memory for one row at a time."""
    worse: bool = False
    """Evaluations get worse with each step after the second."""


class KilledError(BaseException):
    """As abrupt as a signal: no handler of the run sees it."""


def together(plan, folder, *, processes=2, shards=False):
    """Carry out a plan of attempts, (run, step at which it is killed or None, ...), in processes.

    `shards`: what asks for FSDP gets it, on CPUs too. Returns for each rank its notes, in order: of
    each step the run, the attempt, digests of the trained weights and gradients, the gradient's
    norm, the kind of the wrapped model; and what ended an attempt.
    """
    path = folder / "plan.json"
    attempts = [Attempt(*entry) for entry in plan]
    path.write_text(json.dumps([a._replace(run=str(a.run.path)) for a in attempts]))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), __file__, str(path)],
        capture_output=True,
        text=True,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
        | ({_SHARDS: "1"} if shards else {}),
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(processes)]


def shard_on_cpu():
    """Let Accelerate shard on CPUs, where it takes DDP without a word."""
    import torch.distributed as dist
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    def use_cpu(state):
        state.device = torch.device("cpu")

    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = use_cpu
    dist.init_process_group("gloo")


def whole(tensor):
    """A tensor that may be divided among the ranks, as one."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def digest(tensors):
    """A hash of the bytes of tensors, in order."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(whole(tensor.detach()).contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def watch(notes):
    """Make every trainer note its optimizer steps."""
    from transformers import TrainerCallback

    from runner.tasks.sft import RunSft

    class Watch(TrainerCallback):
        def __init__(self, trainer):
            self.trainer = trainer

        def on_optimizer_step(self, _args, state, _control, **_):
            trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
            gradients = [p.grad for p in trained if p.grad is not None]
            notes.append(
                {
                    "run": self.trainer.attempt.run.id,
                    "attempt": self.trainer.attempt.run.attempt(),
                    "step": state.global_step + 1,
                    "weights": digest(trained),
                    "gradients": digest(gradients),
                    "norm": sum(float(whole(g).double().square().sum()) for g in gradients) ** 0.5,
                    "kind": type(self.trainer.model_wrapped).__name__,
                }
            )

    init = RunSft.__init__

    def watched(trainer, *args, **kw):
        init(trainer, *args, **kw)
        trainer.add_callback(Watch(trainer))

    RunSft.__init__ = watched


@contextlib.contextmanager
def as_planned(attempt, rank):
    """Inside, a run's attempt has what the plan says of it."""
    from runner.tasks.sft import RunSft

    init, step, compute = RunSft.__init__, RunSft.training_step, RunSft.compute_loss
    row_losses = RunSft.row_losses

    def begin(trainer, *args, **kw):
        init(trainer, *args, **kw)
        if attempt.apart:
            trainer.model._is_accelerate_prepared = True

    def dying(trainer, *args, **kw):
        if trainer.state.global_step == attempt.kill:
            raise KilledError
        return step(trainer, *args, **kw)

    def limited(trainer, model, inputs, *args, **kw):
        if attempt.short and rank == 1 and model.training and len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return compute(trainer, model, inputs, *args, **kw)

    def shifted(trainer, model, inputs):
        found = row_losses(trainer, model, inputs)
        factor = 2 + abs(trainer.state.global_step - 2) if attempt.worse else 1
        return found._replace(losses=found.losses * factor)

    changed = {"training_step": dying, "compute_loss": limited, "row_losses": shifted}
    with mock.patch.multiple(RunSft, __init__=begin, **changed):
        yield


def main(path):
    """Carry out the plan in this rank."""
    import real_runs
    import torch.distributed as dist
    from accelerate.state import GradientState

    from profiles.errors import UserError
    from profiles.runs import durable
    from profiles.runs.rundir import RunDir

    notes, known, rank = [], set(), int(os.environ.get("RANK", "0"))
    if os.environ.get(_SHARDS):
        shard_on_cpu()
    watch(notes)
    for attempt in (Attempt(*entry) for entry in json.loads(path.read_text())):
        run = RunDir(Path(attempt.run))
        if attempt.run in known:
            if rank == 0:
                durable.write_atomic(run.attempt_file, f"{run.attempt() + 1}\n".encode())
            if dist.is_initialized():
                dist.barrier()
        known.add(attempt.run)
        gc.collect()
        gc.freeze()  # each run has all garbage collected, and would look at what is loaded
        GradientState._reset_state()  # a process that is killed takes it along
        try:
            with as_planned(attempt, rank):
                real_runs.attempt(run)
        except KilledError:
            assert attempt.kill is not None
        except UserError as error:
            notes.append({"run": run.id, "what": error.what, "why": error.why, "do": error.do})
    path.with_name(f"rank{rank}.json").write_text(json.dumps(notes))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
