"""Where in the model and the step each storage was made: what a rehearsal explains itself with."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any, Self

import torch

from runner.rehearsal.storages import Ledger


class AllocationSites:
    """Inside it every new storage gets a label; afterwards the labels at the peak are known.

    The place of an operation is its module's path, without layer numbers; in the backward pass the
    path is that of the forward operation that it undoes, found through autograd's nodes.
    """

    def __init__(self, model: Any, optimizer: Any, ledger: Ledger, peak: int) -> None:
        self.ledger = ledger
        self._peak = peak
        self._path: list[str] = []
        self._hooks: list[Any] = []
        self._model = model
        for name, parameter in model.named_parameters():
            ledger.label(parameter, f"weights {_place(name)}")
        for name, buffer in model.named_buffers():
            ledger.label(buffer, f"buffers {_place(name)}")
        for state in optimizer.state.values():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    ledger.label(value, f"optimizer {name}")

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            self._hooks.append(
                module.register_forward_pre_hook(lambda _m, _a, name=name: self._enter(name))
            )
            self._hooks.append(
                module.register_forward_hook(lambda _m, _a, out: self._leave(out), always_call=True)
            )
        ledger = self.ledger
        ledger.namer, ledger.events, ledger.watch_for = self._here, [], self._peak
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self.ledger.namer = self.ledger.watch_for = None
        for hook in self._hooks:
            hook.remove()

    def at_peak(self) -> tuple[tuple[str, int], ...]:
        """Storages alive at the peak, equal ones together."""
        sizes: Counter[str] = Counter()
        numbers: Counter[str] = Counter()
        for label, size in self.ledger.alive_then:
            sizes[label] += size
            numbers[label] += 1
        return tuple((f"{numbers[label]} x {label}", size) for label, size in sizes.most_common())

    def timeline(self) -> tuple[tuple[str, int], ...]:
        """Every allocation of the step, and the bytes alive after it."""
        return tuple(self.ledger.events or ())

    def _enter(self, name: str) -> None:
        self._path.append(_place(name))

    def _leave(self, out: Any) -> None:
        for leaf in torch.utils._pytree.tree_iter(out):  # noqa: SLF001
            if isinstance(leaf, torch.Tensor) and leaf.grad_fn is not None:
                _mark(leaf.grad_fn, self._path[-1])
        self._path.pop()

    def _here(self) -> str:
        node = torch._C._current_autograd_node()  # noqa: SLF001  # no public name
        if self._path:
            return self._path[-1] + (" again" if node is not None else "")
        if node is None:
            return "-"
        return f"{node.metadata.get('place', '-')} {node.name()}"


def _mark(node: Any, place: str) -> None:
    """Name the nodes that lead to `node`, as far as inner modules have not."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is None or "place" in node.metadata:
            continue
        node.metadata["place"] = place
        waiting += [above for above, _ in node.next_functions]


def _place(name: str) -> str:
    """A module's path without layer numbers and wrappers, so that equal ones fall together."""
    parts = ["*" if part.isdigit() else part for part in name.split(".")]
    return ".".join(p for p in parts if p not in {"base_model", "model", "base_layer"}) or "model"
