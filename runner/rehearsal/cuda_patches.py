"""What libraries are told about the machine while fake tensors pretend that it has a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from runner.rehearsal.autocast_rules import forget_casts
from runner.rehearsal.fake_tensor import FakeCudaTensor


class _Launch:
    """Stands in for a Triton kernel: launched on any grid, it allocates nothing."""

    def __getitem__(self, _grid: object) -> Callable[..., None]:
        return lambda *_args, **_options: None


# Functions of our own in place of mocks, which would keep every tensor that they are called with.


def _yes(*_: Any, **__: Any) -> bool:
    return True


def _no() -> bool:
    return False


def _nothing(*_: Any) -> None:
    pass


def _capability(*_: Any) -> tuple[int, int]:
    return FakeCudaTensor.capability


@contextlib.contextmanager
def cuda_patches() -> Iterator[None]:
    """Let libraries find the CUDA device that the fake tensors pretend to be on, while inside."""
    clear = torch.clear_autocast_cache

    def clear_both() -> None:
        forget_casts()
        clear()

    patches: list[Any] = [mock.patch.object(torch, "clear_autocast_cache", clear_both)]
    if FakeCudaTensor.pretended.type == "cuda":
        missing = "torch.cuda.amp.common.amp_definitely_not_available"
        patches += [
            mock.patch(missing, _no),
            mock.patch("torch.cuda.is_bf16_supported", _yes),
            mock.patch("torch.cuda.get_device_capability", _capability),
            *_fused_head_patches(),
        ]
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


def _fused_head_patches() -> list[Any]:
    """TRL's fused head on its GPU path; the fp32 products go into buffers that exist."""
    kernels, utils = "trl.kernels.chunked_logprob", "trl.trainer.utils"
    triton = SimpleNamespace(cdiv=lambda a, b: -(-a // b))
    return [
        mock.patch(f"{kernels}._use_triton", _yes),
        mock.patch(f"{utils}._use_triton", _yes),
        mock.patch(f"{kernels}.triton", triton, create=True),
        mock.patch(f"{kernels}._forward_kernel", _Launch()),
        mock.patch(f"{kernels}._backward_kernel", _Launch()),
        mock.patch(f"{kernels}._addmm_fp32", _nothing),
    ]
