"""One tensor without memory that passes for a tensor on a GPU; fake_mode.py runs operators on them.

It is a tensor on torch's meta device under the backend key of a device that is never there (HPU):
torch dispatches it as it does any device's, and the autocast key of that device has no kernels of
its own, so ours (autocast_rules.py) disturb nobody.
"""

from __future__ import annotations

from typing import Any, Final

import torch

META: Final = torch.device("meta")
CARRIER: Final = torch.device("hpu")


class FakeCudaTensor(torch.Tensor):  # type: ignore[misc]
    """A meta tensor that Python takes for one on `pretended`."""

    pretended = torch.device("cuda", 0)
    capability = (8, 0)
    """CUDA compute capability of the pretended device."""
    inside_kernel = False
    truth = False
    """What a flag reads as that Python asks for: whether all rows are full and none is packed."""
    __torch_function__ = torch._C._disabled_torch_function_impl  # noqa: SLF001

    @property
    def device(self) -> torch.device:
        """The pretended device; kernels written in Python get the true one."""
        return META if FakeCudaTensor.inside_kernel else FakeCudaTensor.pretended

    @property
    def is_cuda(self) -> bool:
        """As the pretended device has it."""
        return bool(self.device.type == "cuda")

    @property
    def is_meta(self) -> bool:
        """Only kernels may know."""
        return FakeCudaTensor.inside_kernel

    def get_device(self) -> int:
        """Index of the pretended device."""
        return FakeCudaTensor.pretended.index or 0

    def __repr__(self, **_: Any) -> str:
        return f"FakeCudaTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Operators need the mode, which counts."""
        raise RuntimeError(f"{func} on fake tensors outside their mode")
