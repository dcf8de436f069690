"""Peak memory of one training process, from the real model and optimizer on fake tensors.

The exact level beside the formulas of advisor/cost/memory.py: the model that transformers builds,
the adapter that PEFT puts on it, the loss and the optimizer are run for two steps, without weights
and without a GPU, and every storage is followed. The result is what torch's allocator would count;
fake_mode.py says how, stand_ins.py what CUDA runs in place of what a plain trace would. Workspaces
of libraries (cuBLAS) and temporaries inside one kernel are not seen.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from runner.rehearsal import autocast_rules, cuda_patches, fake_model, optimizers, stand_ins
from runner.rehearsal.allocation_sites import AllocationSites
from runner.rehearsal.fake_mode import DeviceRedirectMode, FakeCudaMode
from runner.rehearsal.fake_tensor import FakeCudaTensor
from runner.rehearsal.setup import Setup
from runner.rehearsal.storages import Ledger
from runner.training.smoothing import sums

MOMENTS: Final = ("forward", "loss_backward", "layer_backward", "optimizer_step")

_HOPPER: Final = 9
_CUBLAS_BYTES: Final = ((8192 + 128) * 1024, 32 * 2**20)
"""cuBLAS workspace a thread, before and since Hopper (aten/src/ATen/cuda/CublasHandlePool.cpp)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What was alive, in bytes, as torch counts; peaks are those of the last step."""

    peak_bytes: int
    winner: str
    """The moment of the peak, one of `MOMENTS`."""
    static_bytes: int
    """Weights, buffers and adapters, before the first step."""
    saved_bytes: int
    """What the forward pass leaves for the backward pass, loss and batch included."""
    moments: dict[str, int]
    """Peak in each of `MOMENTS`; the loss ends where the last layer's gradient is known."""
    gradient_bytes: int
    optimizer_state_bytes: int
    """Of the optimizer's states, paged ones included."""
    paged_bytes: int
    """Of them, those outside torch's count, which are on the device only for the step."""
    num_params: int
    """Weights of the base model, not quantized, and of adapters."""
    num_trainable: int
    library_bytes: int
    """cuBLAS workspaces of the forward and backward threads, on top of the peak."""
    seconds: float
    at_peak: tuple[tuple[str, int], ...] = ()
    """(number, phase, place and kind; bytes) of what is alive at the peak, the largest first."""
    timeline: tuple[tuple[str, int], ...] = ()
    """(phase, place and kind of an allocation; bytes alive then) through the last step."""


def rehearse(  # noqa: PLR0913  # how to count, beside what
    config: Any,
    setup: Setup,
    *,
    seq_len: int,
    micro_batch: int = 1,
    steps: int = 1,
    explain: bool = False,
    device: str = "cuda",
    capability: tuple[int, int] = (8, 0),
) -> Rehearsal:
    """Run an optimizer step of training on fake tensors that pretend to be on `device`.

    The step is one in which the optimizer's states exist already, as in all but the first; with
    more `steps` earlier ones are run in full for them, which changes nothing but the time.
    `capability` is CUDA's, of the pretended GPU: before 8.0 (Ampere) there is no flash attention.
    `config` is a transformers config, or a dict of its "model_type" and arguments. `explain`
    repeats the last step and tells what was alive at its peak. Raises what transformers or PEFT
    raise for a config or method that they refuse.
    """
    started = time.perf_counter()
    ledger = Ledger()
    full_rows = not setup.packing and (micro_batch == 1 or not setup.padded)
    with pretending(device, capability, full_rows=full_rows):
        with torch.device("meta"):
            model, before = fake_model.build(config, setup), None
            if setup.reference and not hasattr(model, "peft_config"):
                before = fake_model.build(config, setup).requires_grad_(requires_grad=False)
        num_params = fake_model.count_params(model)
        for one in filter(None, (model, before)):
            fake_model.make_fake(one, ledger)
        training = FakeTraining(model, setup, ledger, (micro_batch, seq_len), device=device)
        training.before = before
        with DeviceRedirectMode(stand_ins.DETOURS), FakeCudaMode(ledger):
            found = training.run(steps, explain=explain)
    library = 2 * _CUBLAS_BYTES[capability[0] >= _HOPPER] if device == "cuda" else 0
    seconds = time.perf_counter() - started
    return Rehearsal(**found, num_params=num_params, library_bytes=library, seconds=seconds)


@contextlib.contextmanager
def pretending(device: str, capability: tuple[int, int], *, full_rows: bool) -> Iterator[None]:
    """Everything around the tensors that makes fake tensors pass for tensors on `device`."""
    with contextlib.ExitStack() as stack:
        pretended = torch.device(device) if device == "cpu" else torch.device(device, 0)
        stack.enter_context(mock.patch.object(FakeCudaTensor, "pretended", pretended))
        stack.enter_context(mock.patch.object(FakeCudaTensor, "capability", capability))
        stack.enter_context(mock.patch.object(FakeCudaTensor, "truth", full_rows))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # about CUDA that is not there
        stack.enter_context(autocast_rules.registered())
        stack.enter_context(cuda_patches.cuda_patches())
        stack.enter_context(optimizers.without_kernels())
        yield


class FakeTraining:
    """Training steps of a model with every storage in the ledger."""

    def __init__(
        self, model: Any, setup: Setup, ledger: Ledger, batch: tuple[int, int], *, device: str
    ) -> None:
        self.model, self.setup, self.ledger = model, setup, ledger
        self.micro_batch, self.seq_len = batch
        self.device = device
        self.before: Any = None
        """The frozen copy, where there is one."""
        self.trained = [p for p in model.parameters() if p.requires_grad]

    def run(self, steps: int, *, explain: bool = False) -> dict[str, Any]:
        """Make the steps; returns the fields of `Rehearsal` that they tell."""
        ledger = self.ledger
        static = ledger.live
        self.prepare()
        self._mark_last_layer()
        optimizer = optimizers.make_optimizer(self.model, self.setup)
        if steps == 1:
            self._make_states(optimizer)
        for _ in range(steps):
            ledger.restart()
            saved = self.step(optimizer)
        moments = {name: ledger.peaks[name] for name in MOMENTS}
        found = {
            "peak_bytes": ledger.peak,
            "winner": max(moments, key=lambda name: moments[name]),
            "static_bytes": static,
            "saved_bytes": saved,
            "moments": moments,
            "gradient_bytes": sum(p.nbytes for p in self.trained),
            "optimizer_state_bytes": optimizers.state_bytes(optimizer),
            "paged_bytes": optimizers.paged_bytes(optimizer),
            "num_trainable": sum(p.numel() for p in self.trained),
        }
        if explain:
            with AllocationSites(self.model, optimizer, ledger, ledger.peak) as sites:
                self.step(optimizer)
            found |= {"at_peak": sites.at_peak(), "timeline": sites.timeline()}
        return found

    def _make_states(self, optimizer: Any) -> None:
        """What a first step leaves behind, without its forward and backward pass."""
        for parameter in self.trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        self._follow_up()
        optimizer.zero_grad(set_to_none=True)

    def _follow_up(self) -> None:
        """What the method does then, if anything."""
        if self.setup.after_step is not None:
            self.setup.after_step(self.model)

    def prepare(self) -> None:
        """Checkpointing as the Trainer switches it on, autocast as Accelerate wraps it."""
        if self.setup.checkpointing:
            # The state of the random numbers is on the CPU, and fake tensors have none.
            options = {"use_reentrant": False, "preserve_rng_state": False}
            self.model.gradient_checkpointing_enable(options)
        if self.setup.autocasts:
            from accelerate.utils.operations import convert_outputs_to_fp32  # noqa: PLC0415

            autocast = torch.autocast(self.device, dtype=self.setup.compute_dtype)
            self.model.forward = convert_outputs_to_fp32(autocast(self.model.forward))

    def step(self, optimizer: Any) -> int:
        """One optimizer step as the Trainer makes it; returns what the forward pass left alive."""
        ledger, saved = self.ledger, 0
        for _ in range(self.setup.accumulation):
            before = ledger.live
            ledger.enter("forward")
            batch = self._batch()
            loss = self._loss(batch)
            saved = ledger.live - before
            ledger.enter("loss_backward")
            backward(loss)
            del loss, batch
        ledger.enter("optimizer_step")
        if self.setup.max_grad_norm:
            nn.utils.clip_grad_norm_(self.trained, self.setup.max_grad_norm, foreach=False)
        optimizer.step()
        with ledger.borrowed(optimizers.paged_bytes(optimizer), "paged states"):
            pass  # paged states come for the step, which makes nothing else meanwhile
        self._follow_up()
        optimizer.zero_grad(set_to_none=True)
        ledger.enter("between")
        return saved

    def _loss(self, batch: dict[str, Any]) -> Any:
        """As the tasks' own: whole rows scored, or tokens, compared with those of a reference."""
        if self.setup.head == "score":
            del batch["labels"]
            return self.model(**batch, use_cache=False).logits.float().sum()
        reference = self._reference(batch) if self.setup.reference else None
        if reference is not None:
            return (self._log_probs(self.model, batch) - reference).sum()
        if self.setup.label_smoothing:
            labels = batch.pop("labels")[:, 1:]
            logits = self.model(**batch, use_cache=False).logits[:, -labels.shape[1] - 1 : -1]
            return sums(logits, labels).smoothed(self.setup.label_smoothing)
        count = torch.ones((), dtype=torch.long, device=self.device)
        head = {"fused_lm_head": True} if self.setup.loss == "chunked" else {}
        return self.model(**batch, **head, use_cache=False, num_items_in_batch=count).loss

    def _reference(self, batch: dict[str, Any]) -> Any:
        """Before the model itself, so that nothing waits for its backward pass meanwhile."""
        off = contextlib.nullcontext() if self.before is not None else self.model.disable_adapter()
        with torch.no_grad(), off:
            return self._log_probs(self.before or self.model, batch)

    def _log_probs(self, model: Any, batch: dict[str, Any]) -> Any:
        """Of each sequence's labels."""
        if self.setup.loss == "chunked":
            return model(**batch, fused_lm_head=True, use_cache=False).log_probs.float().sum(1)
        read = {name: value for name, value in batch.items() if name != "labels"}
        logits = model(**read, use_cache=False).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none")
        return -losses.sum(1)

    def _batch(self) -> dict[str, Any]:
        """As TRL's collators make it: rows have a mask, packed ones are one row with positions."""
        shape = (self.micro_batch, self.seq_len)
        if self.setup.packing:
            shape = (1, self.micro_batch * self.seq_len)
        names = [
            "input_ids",
            "labels",
            "position_ids" if self.setup.packing else "attention_mask",
        ]
        batch = {name: torch.zeros(shape, dtype=torch.long, device=self.device) for name in names}
        if not self.setup.packing:
            mask = batch["attention_mask"].fill_(1)
            if self.setup.padded:
                mask[1:, self.seq_len // 2 :] = 0
        return batch

    def _mark_last_layer(self) -> None:
        """Tell the loss's backward pass from the layers'."""
        lists = [m for m in self.model.modules() if isinstance(m, nn.ModuleList)]
        layers = max(lists, key=len, default=None)
        if not layers:
            return

        def mark(_module: Any, _args: Any, out: Any) -> None:
            hidden = out[0] if isinstance(out, tuple) else out
            if hidden.requires_grad and self.ledger.phase == "forward":
                hidden.register_hook(lambda _: self.ledger.enter("layer_backward"))

        layers[-1].register_forward_hook(mark)


def backward(loss: torch.Tensor) -> None:
    """loss.backward() by its engine: inside the method our redirection of devices is off."""
    run = torch.autograd.graph._engine_run_backward  # noqa: SLF001  # what backward() calls
    gradient = torch.ones_like(loss)
    run((loss,), (gradient,), False, False, (), allow_unreachable=True, accumulate_grad=True)
