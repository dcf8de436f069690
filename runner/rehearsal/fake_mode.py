"""Running a program on tensors without memory, as if they were on a GPU, and counting their bytes.

`FakeCudaMode` gives every operator its shapes, types and views from torch's meta kernels and tells
the ledger what they return; `DeviceRedirectMode` sends Python calls that name the device to fake
tensors. This works in builds of torch without CUDA too, where FakeTensorMode's tensors can have no
gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from runner.rehearsal.fake_tensor import CARRIER, META, FakeCudaTensor
from runner.rehearsal.kernels import RULES, WORKSPACES
from runner.rehearsal.storages import Ledger

_C: Final = torch._C  # noqa: SLF001  # the guards that FakeTensorMode is made of
_AUTOCAST: Final = _C.DispatchKeySet(_C.DispatchKey.AutocastHPU)


def wrap(tensor: torch.Tensor) -> FakeCudaTensor:
    """A fake tensor over the storage of a meta tensor."""
    made: FakeCudaTensor = torch.Tensor._make_subclass(  # noqa: SLF001  # as FakeTensor is made
        FakeCudaTensor, tensor, tensor.requires_grad, device_for_backend_keys=CARRIER
    )
    return made


class FakeCudaMode(TorchDispatchMode):  # type: ignore[misc]
    """Runs operators on fake tensors and counts what they return.

    Results that alias nothing are remembered by the shapes of the arguments: meta kernels written
    in Python take 0.2 ms, and every layer asks the same.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        self._recipes: dict[Any, Any] = {}
        self._pure: dict[Any, bool] = {}

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count its results."""
        kwargs = kwargs or {}
        workspace = WORKSPACES.get(func)
        if workspace is None or FakeCudaTensor.pretended.type != "cuda":
            return self._counted(func, self._result(func, args, kwargs))
        with self.ledger.borrowed(workspace(*args, **kwargs), f"inside {func.__name__}"):
            return self._counted(func, self._result(func, args, kwargs))

    def _result(self, func: Any, args: Any, kwargs: Any) -> Any:
        rule = RULES.get(func)
        if rule is not None:
            out = rule(*args, **kwargs)
            if out is not NotImplemented:
                return _wrapped(out)
        if self._is_pure(func):
            return self._remembered(func, args, kwargs)
        return _run(func, args, kwargs)

    def _is_pure(self, func: Any) -> bool:
        known = self._pure.get(func)
        if known is None:
            schema = func._schema  # noqa: SLF001  # no public way to a schema
            parts = (*schema.arguments, *schema.returns)
            known = self._pure[func] = all(part.alias_info is None for part in parts)
        return known

    def _remembered(self, func: Any, args: Any, kwargs: Any) -> Any:
        try:
            key = (func, _key(args), _key(tuple(kwargs.items())))
            recipe = self._recipes.get(key)
        except (TypeError, NotImplementedError):  # an argument that cannot be hashed
            return _run(func, args, kwargs)
        if recipe is not None:
            return _follow(recipe)
        out = _run(func, args, kwargs)
        recipe = _recipe(out, {id(leaf.untyped_storage()) for leaf in _tensors((args, kwargs))})
        if recipe is not None:
            self._recipes[key] = recipe
        return out

    def _counted(self, func: Any, out: Any) -> Any:
        for leaf in _tensors(out):
            if isinstance(leaf, FakeCudaTensor):
                self.ledger.hold(leaf, func.__name__)
        return out


class DeviceRedirectMode(TorchFunctionMode):  # type: ignore[misc]
    """Python calls: what names the pretended device gets fake tensors, and `detours` are taken."""

    def __init__(self, detours: dict[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.detours = detours

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, or its detour."""
        kwargs = kwargs or {}
        detour = self.detours.get(func)
        if detour is not None:
            with self:  # detours name the device too
                return detour(*args, **kwargs)
        if func is torch.Tensor.to:
            args = tuple(META if _is_pretended(arg) else arg for arg in args)
        if not _is_pretended(kwargs.get("device")):
            return func(*args, **kwargs)
        if func is not torch.tensor:
            return func(*args, **kwargs | {"device": META})
        made = func(*args, **kwargs | {"device": "cpu"})  # torch.tensor asks no mode
        if FakeCudaTensor.pretended.type == "cpu" and not made.dim():
            return made  # a counter on the CPU by intention, to be read back
        return made.to(META)


def _is_pretended(value: Any) -> bool:
    name = FakeCudaTensor.pretended.type
    if isinstance(value, torch.device):
        return bool(value.type == name)
    return isinstance(value, str) and value.split(":", 1)[0] == name


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """The operator's own meta kernel, on the fake tensors as they are."""
    on_fakes = any(isinstance(leaf, FakeCudaTensor) for leaf in _tensors((args, kwargs)))
    with (
        _C._DisableTorchDispatch(),  # noqa: SLF001
        _C._PreserveDispatchKeyGuard(),  # noqa: SLF001
        _C._ExcludeDispatchKeyGuard(_AUTOCAST),  # noqa: SLF001
    ):
        FakeCudaTensor.inside_kernel = True
        try:
            if on_fakes:
                _C._set_meta_in_tls_dispatch_include(True)  # noqa: SLF001
            return _wrapped(func(*args, **kwargs))
        finally:
            FakeCudaTensor.inside_kernel = False


def _wrapped(out: Any) -> Any:
    if isinstance(out, torch.Tensor):
        return wrap(out) if type(out) is torch.Tensor and out.is_meta else out
    if isinstance(out, tuple | list):
        return type(out)(_wrapped(part) for part in out)
    return out


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Tensors in an operator's arguments or results: they nest in lists and dicts only."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _key(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.shape, value.stride(), value.dtype, isinstance(value, FakeCudaTensor))
    if isinstance(value, tuple | list):
        return tuple([_key(part) for part in value])
    return (type(value), value)


def _recipe(out: Any, given: set[int]) -> Any:
    """How to make this result again; None where it is not made of whole new storages."""
    if isinstance(out, FakeCudaTensor):
        storage = out.untyped_storage()
        reach = 1 + sum((n - 1) * s for n, s in zip(out.shape, out.stride(), strict=True))
        if id(storage) in given or (out.numel() and storage.nbytes() != reach * out.element_size()):
            return None
        return ("tensor", tuple(out.shape), out.stride(), out.dtype)
    if isinstance(out, torch.Tensor):
        return None
    if isinstance(out, tuple | list):
        parts = [_recipe(part, given) for part in out]
        return None if any(part is None for part in parts) else ("several", type(out), parts)
    return ("value", out)


def _follow(recipe: Any) -> Any:
    if recipe[0] == "tensor":
        _, shape, strides, kind = recipe
        with _C._DisableTorchDispatch():  # noqa: SLF001
            return wrap(torch.empty_strided(shape, strides, dtype=kind, device=META))
    if recipe[0] == "several":
        return recipe[1](_follow(part) for part in recipe[2])
    return recipe[1]
