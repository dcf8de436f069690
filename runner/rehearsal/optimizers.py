"""The optimizers that recipes name, as the Trainer sets them up, on fake tensors or real tensors.

bitsandbytes' own classes make the 8-bit states; only their kernels are left out. Paged states lie
outside torch's count and come to the device for the step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import nn

from runner.rehearsal.fake_tensor import FakeCudaTensor
from runner.rehearsal.setup import Setup

_LEARNING_RATE = 1e-5


def make_optimizer(model: nn.Module, setup: Setup) -> Any:
    """The optimizer with the name in the setup; ValueError for one that is not known."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    maker = _MAKERS.get(setup.optimizer)
    if maker is not None:
        return maker(trained)
    if setup.optimizer in _BITSANDBYTES:
        return _bitsandbytes(model, trained, setup.optimizer)
    raise ValueError(f"no optimizer {setup.optimizer!r}; {sorted({*_MAKERS, *_BITSANDBYTES})}")


def _adafactor(trained: list[Any]) -> Any:
    from transformers.optimization import Adafactor  # noqa: PLC0415

    return Adafactor(trained, lr=_LEARNING_RATE, scale_parameter=False, relative_step=False)


_MAKERS: dict[str, Callable[[list[Any]], Any]] = {
    "adamw": lambda trained: torch.optim.AdamW(trained, fused=True),
    "adamw_foreach": lambda trained: torch.optim.AdamW(trained, foreach=True),
    "adamw_loop": lambda trained: torch.optim.AdamW(trained, foreach=False),
    "sgd": lambda trained: torch.optim.SGD(trained, foreach=False),
    "sgd_momentum": lambda trained: torch.optim.SGD(trained, momentum=0.9, foreach=False),
    "adafactor": _adafactor,
}
_BITSANDBYTES = {
    "adamw_8bit": ("AdamW", {"optim_bits": 8}),
    "paged_adamw_8bit": ("AdamW", {"optim_bits": 8, "is_paged": True}),
    "paged_adamw": ("AdamW", {"optim_bits": 32, "is_paged": True}),
    "lion_8bit": ("Lion", {"optim_bits": 8}),
}


def _bitsandbytes(model: nn.Module, trained: list[Any], name: str) -> Any:
    """As Trainer.create_optimizer: embeddings keep fp32 states under 8-bit optimizers."""
    from bitsandbytes import optim  # noqa: PLC0415

    kind, options = _BITSANDBYTES[name]
    optimizer = getattr(optim, kind)(trained, **options)
    # The Trainer asks a manager that lives for ever; ours must not keep this model.
    optimizer.mng = optim.GlobalOptimManager.__new__(optim.GlobalOptimManager)
    optimizer.mng.initialize()
    if options["optim_bits"] == 8:
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                optimizer.mng.register_module_override(module, "weight", {"optim_bits": 32})
    return optimizer


def paged_bytes(optimizer: Any) -> int:
    """Of states that are on the device only for the step."""
    return sum(
        tensor.nbytes
        for state in optimizer.state.values()
        for tensor in state.values()
        if getattr(tensor, "is_paged", False)
    )


def state_bytes(optimizer: Any) -> int:
    """Of all states on the device, each storage once; paged ones too."""
    found: dict[int, int] = {}
    for state in optimizer.state.values():
        for tensor in state.values():
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                found[storage._cdata] = storage.nbytes()  # noqa: SLF001  # its identity
    return sum(found.values())


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Updates of bitsandbytes, which fake tensors have no numbers for, do nothing inside."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError):
            import bitsandbytes.optim  # noqa: F401, PLC0415

            for name, stand_in in _STAND_INS.items():
                stack.enter_context(mock.patch(f"bitsandbytes.{name}", stand_in))
        yield


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _paged(*shape: int, dtype: torch.dtype = torch.float32, **_: Any) -> torch.Tensor:
    """Managed memory: no tensor of torch's, so no fake tensor."""
    with torch._C._DisableTorchDispatch():  # noqa: SLF001  # past FakeCudaMode
        made = torch.empty(shape, dtype=dtype, device="meta")
    assert not isinstance(made, FakeCudaTensor)
    made.is_paged = True
    return made


_STAND_INS: dict[str, Callable[..., Any]] = {
    "functional.optimizer_update_32bit": _nothing,
    "functional.optimizer_update_8bit_blockwise": _nothing,
    "functional.fill": _nothing,
    "functional.prefetch_tensor": _nothing,
    "functional.get_paged": _paged,
    "optim.optimizer.sync_gpu": _nothing,
}
