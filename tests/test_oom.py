"""Out of memory: recognised in real messages, answered with less at a time, announced."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import real_runs  # noqa: E402

from profiles.errors import ExitCode  # noqa: E402
from profiles.runs.state import State, status  # noqa: E402
from runner.supervision import worker_command  # noqa: E402
from runner.supervision.supervisor import Supervisor  # noqa: E402
from runner.tasks.sft import RunSft  # noqa: E402
from runner.training import oom, pieces  # noqa: E402
from runner.training.oom import Shortage  # noqa: E402

GPU, HOST = Shortage.GPU, Shortage.HOST
CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
NCCL = (
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317, unhandled cuda error\n"
    "Last error:\nCuda failure 'out of memory'"
)
MESSAGES = [
    (RuntimeError, "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 23.69 GiB)", GPU),
    (RuntimeError, "HIP out of memory. Tried to allocate 512.00 MiB. GPU 0", GPU),
    (RuntimeError, "XPU out of memory. Tried to allocate 1.00 GiB.", GPU),
    (RuntimeError, "CUDA error: out of memory\nCUDA kernel errors might be reported later", GPU),
    (RuntimeError, "MPS backend out of memory (MPS allocated: 8.00 GB)", GPU),
    (RuntimeError, CUBLAS, GPU),
    (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", GPU),
    (RuntimeError, "Triton Error [CUDA]: out of memory", GPU),
    (RuntimeError, NCCL, GPU),
    (RuntimeError, "Error out of memory at line 380 in file csrc/pythonInterface.cpp", GPU),
    (RuntimeError, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", HOST),
    (RuntimeError, "DefaultCPUAllocator: not enough memory: you tried to allocate", HOST),
    (RuntimeError, "std::bad_alloc", HOST),
    (RuntimeError, "DataLoader worker (pid 46794) is killed by signal: Bus error.", HOST),
    (RuntimeError, "DataLoader worker (pid 7) is killed by signal: Killed.", HOST),
    (MemoryError, "", HOST),
    (RuntimeError, "CUDA error: device-side assert triggered", None),
    (RuntimeError, "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate`", None),
    (RuntimeError, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.", None),
    (RuntimeError, "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", None),
    (KeyError, "out of memory", None),
    (ValueError, "the word memory alone is nothing: CUDA", None),
]


@pytest.mark.parametrize(("kind", "message", "wanted"), MESSAGES)
def test_real_messages_are_told_apart(kind, message, wanted):
    """From issue trackers of torch, NCCL, Triton, bitsandbytes and their users."""
    assert oom.shortage(kind(message)) is wanted


def test_what_torch_raises_is_recognised_by_its_class_and_as_a_cause():
    """Wrapped by a library, it still is a shortage."""
    inner = torch.OutOfMemoryError("Allocation on device")
    outer = ValueError("the step failed")
    outer.__cause__ = inner

    assert (oom.shortage(inner), oom.shortage(outer)) == (GPU, GPU)
    assert oom.shortage(OSError(errno.ENOMEM, "Cannot allocate memory")) is HOST


def test_pieces_hold_every_row_once_and_lose_their_padding():
    """Five rows in two pieces: three and two, each as wide as its longest row."""
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    batch = {"input_ids": torch.arange(20).view(5, 4), "attention_mask": mask, "tag": "kept"}

    first, second = pieces.pieces_of(batch, 2)

    assert [tuple(p["input_ids"].shape) for p in (first, second)] == [(3, 3), (2, 4)]
    assert first["tag"] == "kept"
    assert torch.equal(second["input_ids"], batch["input_ids"][3:])
    assert pieces.pieces_of(batch, 1) == [batch]


def test_rows_that_belong_together_stay_together():
    """Three pairs, chosen ones first: the first piece has two of them, the second one."""
    batch = {"input_ids": torch.arange(12).view(6, 2), "margin": torch.arange(3), "tag": "kept"}

    first, second = pieces.pieces_of(batch, 2, blocks=2)

    assert first["input_ids"].tolist() == [[0, 1], [2, 3], [6, 7], [8, 9]]
    assert second["input_ids"].tolist() == [[4, 5], [10, 11]]
    assert [first["margin"].tolist(), second["margin"].tolist()] == [[0, 1], [2]]
    assert pieces.num_rows(batch, blocks=2) == 3
    assert first["tag"] == "kept"


def test_a_packed_row_is_cut_between_its_examples():
    """Three examples of 2, 3 and 1 tokens in one row: two in the first piece, one in the second."""
    positions = torch.tensor([[0, 1, 0, 1, 2, 0]])
    batch = {
        "input_ids": torch.arange(6)[None],
        "position_ids": positions,
        "cu_seq_lens_q": torch.tensor([0, 2, 5, 6], dtype=torch.int32),
        "max_length_q": 3,
        "seq_idx": torch.tensor([[0, 0, 1, 1, 1, 2]], dtype=torch.int32),
    }

    first, second = pieces.pieces_of(batch, 2)

    assert pieces.num_rows(batch) == 3
    assert [p["input_ids"].tolist() for p in (first, second)] == [[[0, 1, 2, 3, 4]], [[5]]]
    assert [p["cu_seq_lens_q"].tolist() for p in (first, second)] == [[0, 2, 5], [0, 1]]
    assert [p["max_length_q"] for p in (first, second)] == [3, 1]
    assert first["seq_idx"].tolist() == [[0, 0, 1, 1, 1]]


@pytest.fixture
def memory_for(monkeypatch):
    """Let the model take only so many tokens at a time, from some step on."""

    def arrange(tokens, *, from_step=0, during="train"):
        name = {"train": "compute_loss", "eval": "row_losses"}[during]
        compute = getattr(RunSft, name)

        def limited(trainer, model, inputs, *args, **kw):
            is_here = trainer.state.global_step >= from_step
            if is_here and inputs["input_ids"].numel() > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
            return compute(trainer, model, inputs, *args, **kw)

        monkeypatch.setattr(RunSft, name, limited)

    return arrange


NO_DROPOUT = "rank = 8\nalpha = 16"
SETTINGS = {"adapter": NO_DROPOUT, "steps": 5, "micro_batch": 4, "accumulation": 2}


@pytest.mark.parametrize(
    ("from_step", "settings"),
    [(0, {}), (3, {}), (2, {"packing": True}), (0, {"more": 'loss = "full"\n'})],
    ids=["first step", "step 3", "packed", "whole logits"],
)
def test_out_of_memory_divides_the_batch_and_repeats_no_step(
    tiny_model, orders, memory_for, from_step, settings
):
    """Steps strictly +1, the same losses, every change in the journal."""
    settings = SETTINGS | settings
    undisturbed = real_runs.new_run(tiny_model, orders, **settings)
    real_runs.attempt(undisturbed)
    short = real_runs.new_run(tiny_model, orders, **settings)
    memory_for(200, from_step=from_step)

    assert real_runs.attempt(short) == 0

    wanted = real_runs.losses(undisturbed)
    assert [s["step"] for s in real_runs.steps(short)] == [1, 2, 3, 4, 5]
    assert real_runs.losses(short) == pytest.approx(wanted, abs=1e-6)
    told = real_runs.events(short, "oom")
    assert (told[0]["micro_batch"], told[0]["accumulation"]) == (2, 4)
    assert "effective batch unchanged" in told[0]["what"]
    rehearsed = told[0]["seq"] < real_runs.events(short, "train_begun")[0]["seq"]
    assert rehearsed == (from_step == 0)


def test_a_loss_that_counts_no_tokens_of_the_step_is_divided_by_shares(
    tiny_model, orders, memory_for, monkeypatch
):
    """Some families return the mean of their batch: Gemma 3n, Gemma 4."""
    monkeypatch.setattr(RunSft, "_get_num_items_in_batch", lambda *_: None)
    init = RunSft.__init__

    def without_counts(trainer, *args, **kw):
        init(trainer, *args, **kw)
        trainer.model_accepts_loss_kwargs = False

    monkeypatch.setattr(RunSft, "__init__", without_counts)
    undisturbed = real_runs.new_run(tiny_model, orders, **SETTINGS)
    real_runs.attempt(undisturbed)
    short = real_runs.new_run(tiny_model, orders, **SETTINGS)
    memory_for(200, from_step=2)

    real_runs.attempt(short)

    assert real_runs.losses(short) == pytest.approx(real_runs.losses(undisturbed), abs=1e-6)
    assert real_runs.events(short, "oom")


def test_out_of_memory_in_evaluation_divides_the_evaluation_only(tiny_model, orders, memory_for):
    """The same evaluation losses; training is untouched."""
    settings = SETTINGS | {"split": "8:2:0", "eval_every": 2, "steps": 2}
    undisturbed = real_runs.new_run(tiny_model, orders, **settings)
    real_runs.attempt(undisturbed)
    short = real_runs.new_run(tiny_model, orders, **settings)
    memory_for(200, during="eval")

    assert real_runs.attempt(short) == 0

    wanted = [e["loss"] for e in real_runs.events(undisturbed, "evaluated")]
    assert [e["loss"] for e in real_runs.events(short, "evaluated")] == pytest.approx(wanted, 1e-6)
    assert real_runs.losses(short) == real_runs.losses(undisturbed)
    assert {e["during"] for e in real_runs.events(short, "oom")} == {"eval"}


def test_one_row_that_does_not_fit_ends_with_the_cheapest_changes(tiny_model, orders, memory_for):
    """Code 81 on a CPU, no clean process: it would end the same way."""
    run = real_runs.new_run(tiny_model, orders, **SETTINGS)
    memory_for(0)

    with pytest.raises(oom.OutOfMemoryError) as caught:
        real_runs.attempt(run)

    assert caught.value.code is ExitCode.HOST_OOM
    assert not caught.value.clean_restart
    assert "train.checkpointing = true" in caught.value.do


def test_a_device_that_no_longer_works_asks_for_a_clean_process(
    tiny_model, orders, memory_for, monkeypatch
):
    """The next one begins with the smaller pieces, at the last checkpoint."""
    run = real_runs.new_run(tiny_model, orders, **SETTINGS | {"save_every": 2})
    memory_for(200, from_step=3)
    monkeypatch.setattr(oom, "is_sane", lambda _device: False)

    with pytest.raises(oom.OutOfMemoryError) as caught:
        real_runs.attempt(run)
    real_runs.record(run, caught.value)
    assert real_runs.next_attempt(run) == 0

    assert caught.value.as_dict()["clean_restart"]
    assert [s["step"] for s in real_runs.steps(run) if s["a"] == 2] == [3, 4, 5]
    assert real_runs.events(run, "oom")[0]["micro_batch"] == 2


def test_two_processes_go_on_in_clean_ones_with_smaller_pieces(tiny_model, orders, monkeypatch):
    """The second rank runs out of memory at step 3: no rank may wait for it in a collective.

    The supervisor starts clean processes, which go on from the last checkpoint.
    """
    hardware = '[hardware]\nstrategy = "ddp"\ngpus = 2\n'
    settings = {"steps": 5, "save_every": 2, "accumulation": 1, "more": hardware}
    run = real_runs.new_run(tiny_model, orders, **settings)
    short = Path(__file__).parent / "support" / "short_worker.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    argv = [*launcher, "--signals-to-handle=SIGTERM,SIGINT", str(short), str(run.path)]
    monkeypatch.setattr(worker_command, "worker_argv", lambda _: argv)

    supervisor = os.fork()
    if supervisor == 0:
        os.setsid()
        Supervisor(run).supervise()
        os._exit(0)
    os.waitpid(supervisor, 0)

    assert status(run).state is State.FINISHED, run.console.read_text()[-2000:]
    made = [(s["a"], s["step"]) for s in real_runs.steps(run)]
    assert made == [(1, 1), (1, 2), (1, 3), (2, 3), (2, 4), (2, 5)]
    assert [e["micro_batch"] for e in real_runs.events(run, "oom")] == [1]
    assert "restarted from step 2 in a clean process" in run.supervisor_events.read_text()
