"""A count of the bytes alive in tensors, as an allocator would keep it: storages, not tensors.

A storage counts from the operation that returns it until its last reference is gone. Temporaries
inside one kernel are not seen; neither are cuBLAS workspaces nor what an allocator rounds up.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

BLOCK = 512
"""torch's caching allocator hands out multiples of this on CUDA (c10 kMinBlockSize)."""


@dataclass(slots=True)
class Ledger:
    """Bytes alive now and at most, in all and in each phase."""

    rounded: bool = False
    """Count whole blocks of `BLOCK` bytes, as CUDA's allocator does."""
    namer: Callable[[], str] | None = None
    """Says where the program is; asked for every new storage while set."""
    live: int = 0
    peak: int = 0
    phase: str = "load"
    peaks: Counter[str] = field(default_factory=Counter)
    labels: dict[int, str] = field(default_factory=dict)
    events: list[tuple[str, int]] | None = None
    """(label, bytes alive after it) of every allocation, while set."""
    watch_for: int | None = None
    """Keep `alive_then` when this many bytes are alive for the first time."""
    alive_then: tuple[tuple[str, int], ...] = ()
    _sizes: dict[int, int] = field(default_factory=dict)
    _refs: dict[int, weakref.ref[Any]] = field(default_factory=dict)

    def hold(self, tensor: torch.Tensor, made_by: str) -> None:
        """Count the storage of `tensor`, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # noqa: SLF001  # the C++ object, whatever its Python wrapper
        if key in self._sizes:
            return
        self._refs[key] = weakref.ref(storage, functools.partial(self._free_of, key))
        label = ""
        if self.namer is not None:
            kind = str(tensor.dtype).removeprefix("torch.")
            label = f"{self.phase} {self.namer()} {made_by} {kind}{list(tensor.shape)}"
        self._add(key, storage.nbytes(), label)

    def label(self, tensor: torch.Tensor, text: str) -> None:
        """Say what a storage is that is counted already."""
        key = tensor.untyped_storage()._cdata  # noqa: SLF001
        if key in self._sizes:
            self.labels[key] = text

    @contextlib.contextmanager
    def borrowed(self, num_bytes: int, made_by: str) -> Iterator[None]:
        """Count bytes that are no tensor's, while inside."""
        key = min(0, *self._sizes) - 1 if self._sizes else -1  # no storage's
        label = f"{self.phase} {self.namer()} {made_by}" if self.namer is not None else ""
        self._add(key, num_bytes, label)
        yield
        self._free(key)

    def enter(self, phase: str) -> None:
        """From now on peaks belong to `phase`; what is alive already counts in it."""
        self.phase = phase
        self.peaks[phase] = max(self.peaks[phase], self.live)

    def restart(self) -> None:
        """Forget the peaks, not what is alive."""
        self.peak = self.live
        self.peaks.clear()

    def _add(self, key: int, size: int, label: str) -> None:
        if self.rounded:
            size = -(-size // BLOCK) * BLOCK
        self._sizes[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        self.peaks[self.phase] = max(self.peaks[self.phase], self.live)
        if label:
            self.labels[key] = label
            if self.events is not None:
                self.events.append((label, self.live))
        if self.watch_for is not None and self.live >= self.watch_for:
            self.watch_for = None
            self.alive_then = tuple((self.labels.get(k, "?"), v) for k, v in self._sizes.items())

    def _free_of(self, key: int, _: object) -> None:
        self._free(key)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key)
        self._refs.pop(key, None)
        self.labels.pop(key, None)
