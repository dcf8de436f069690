"""Agreement among the processes of a run, on the CPU: no device is waited for.

With one process every answer is its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")


class Ranks:
    """All training processes of one attempt; every method must be called by all of them."""

    def __init__(self, world_size: int, *, is_main: bool) -> None:
        self.world_size = world_size
        self.is_main = is_main
        self._group: Any = dist.new_group(backend="gloo") if world_size > 1 else None

    def totals(self, numbers: Sequence[int]) -> list[int]:
        """The sum of each number over the ranks."""
        return self._reduced(numbers, dist.ReduceOp.SUM)

    def largest(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        return self._reduced([number], dist.ReduceOp.MAX)[0]

    def differing(self, numbers: Sequence[int]) -> list[int]:
        """Indices of the numbers that are not the same on every rank."""
        lowest = self._reduced(numbers, dist.ReduceOp.MIN)
        highest = self._reduced(numbers, dist.ReduceOp.MAX)
        pairs = zip(lowest, highest, strict=True)
        return [index for index, (low, high) in enumerate(pairs) if low != high]

    def from_main(self, value: Value) -> Value:
        """What the first rank says; the others' values are passed over."""
        if self._group is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def gathered(self, value: Value) -> list[Value]:
        """What every rank says, in the order of the ranks, on all of them."""
        if self._group is None:
            return [value]
        box: list[Any] = [None] * self.world_size
        dist.all_gather_object(box, value, group=self._group)
        return box

    def _reduced(self, numbers: Sequence[int], operation: Any) -> list[int]:
        if self._group is None:
            return list(numbers)
        mine = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(mine, op=operation, group=self._group)
        return [int(number) for number in mine]
