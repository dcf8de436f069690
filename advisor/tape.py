"""A piece of a network written down as operations: what each reads, makes and keeps.

A `Tape` is written like the model's own code: each operation says which values it reads, how large
its result is and what autograd keeps for it. Sizes are linear forms, so one tape holds for every
batch: bytes once, bytes per token, and bytes per token and token of its row (scores, masks).
Nothing here knows a layer, a model or a machine; what is alive while a tape runs is `graph.play`'s
business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple


class Size(NamedTuple):
    """Bytes as a linear form of M, tokens of the micro-batch, and T, tokens of a row."""

    once: float
    per_token: float
    per_pair: float
    """Per token and token of its row: times M x T."""

    def at(self, tokens: int, row: int) -> float:
        """Bytes for M `tokens` in rows of `row`."""
        return self.once + (self.per_token + self.per_pair * row) * tokens

    def plus(self, other: Size) -> Size:
        """Sum of both."""
        return Size(self[0] + other[0], self[1] + other[1], self[2] + other[2])

    def times(self, factor: float) -> Size:
        """Every part `factor` times."""
        return Size(self[0] * factor, self[1] * factor, self[2] * factor)

    def minus(self, other: Size) -> Size:
        """What is left without the other."""
        return Size(self[0] - other[0], self[1] - other[1], self[2] - other[2])


NOTHING: Final = Size(0, 0, 0)


def once(num_bytes: float) -> Size:
    """Bytes that no batch changes: weights and what is made of them."""
    return Size(num_bytes, 0, 0)


def per_token(num_bytes: float) -> Size:
    """Bytes for each token."""
    return Size(0, num_bytes, 0)


def per_pair(num_bytes: float) -> Size:
    """Bytes for each pair of tokens in a row."""
    return Size(0, 0, num_bytes)


@dataclass(slots=True, eq=False)
class Storage:
    """Memory behind one or several values."""

    size: Size
    last_use: int = -1
    """Operation that reads it last in the forward pass."""
    savers: int = 0
    """Operations whose backward pass still needs it."""


@dataclass(slots=True, eq=False)
class Value:
    """A tensor; views share the `storage` of what they look at."""

    size: Size
    width: int
    """Bytes of one element."""
    needs_grad: bool
    storage: Storage

    @property
    def elements(self) -> float:
        """Of one token."""
        return self.size.per_token / self.width


@dataclass(slots=True, eq=False)
class Op:
    """One operation and what its two directions allocate."""

    name: str
    inputs: tuple[Value, ...]
    output: Value
    saved: tuple[Value, ...] = ()
    kept: Size = NOTHING
    """Further bytes that only the backward pass needs: statistics, masks, casts of weights."""
    work: Size = NOTHING
    """Temporaries of the forward pass."""
    back_work: Size = NOTHING
    """Temporaries of the backward pass, beside the gradients of the inputs."""
    hands_on: bool = False
    """The inputs get the result's own gradient: sums and views."""
    part: bool = False
    """The result looks at a part of its input: one gradient of the whole serves all parts."""
    weight_grad: Size = NOTHING
    """Gradients of weights; they outlive the backward pass."""
    flops: float = 0
    """Of the forward pass, per token; each input's gradient costs as much."""
    pair_flops: float = 0
    """The same, per token and token of its row."""
    weight_flops: float = 0
    """Of the gradients of weights, per token."""


class Matrix(NamedTuple):
    """Weights of one linear, or of `copies` equal ones held in a single tensor."""

    name: str
    n_in: int
    n_out: int
    copies: int
    rank: int
    """Of its adapter, 0 without one."""
    quantizable: bool
    """A plain linear, which a library can replace by a quantized one."""
    trains: bool = True
    """It is in a layer that trains, where the method trains weights of layers."""
    is_stack: bool = False
    """The copies are one parameter."""


class Tape:
    """Operations in the order they run, from one input."""

    def __init__(self, entry: Size, width: int, *, needs_grad: bool) -> None:
        self.ops: list[Op] = []
        self.matrices: list[Matrix] = []
        """Weights of the linears met."""
        self.retained = NOTHING
        """What is kept beyond the backward pass."""
        self.cached: list[Value] = []
        """Kept until the forward pass of the whole model ends."""
        self.entry = Value(entry, width, needs_grad, Storage(entry))

    @property
    def output(self) -> Value:
        """Result of the last operation."""
        return self.ops[-1].output

    def op(
        self,
        name: str,
        inputs: tuple[Value, ...],
        size: Size,
        width: int,
        *,
        saves_output: bool = False,
        **parts: Any,
    ) -> Value:
        """Append an operation with further fields of `Op` and return its result.

        Weights are trained where `weight_flops`.
        """
        needs_grad = "weight_flops" in parts and parts["weight_flops"] > 0
        needs_grad = needs_grad or any(value.needs_grad for value in inputs)
        output = Value(size, width, needs_grad, Storage(size))
        if not needs_grad:
            parts |= {"saved": (), "kept": NOTHING}
        elif saves_output:
            parts["saved"] = (*parts.get("saved", ()), output)
        return self._append(Op(name, inputs, output, **parts))

    def add_matrix(  # a matrix has as many facts
        self,
        name: str,
        n_in: int,
        n_out: int,
        *,
        copies: int = 1,
        rank: int = 0,
        quantizable: bool = False,
    ) -> Matrix:
        """Note the weights of a linear that is met."""
        is_stack = copies > 1
        matrix = Matrix(name, n_in, n_out, copies, rank, quantizable=quantizable, is_stack=is_stack)
        self.matrices.append(matrix)
        return matrix

    def view(self, x: Value, **parts: Any) -> Value:
        """The same memory in another shape; or before weights that train, with fields of `Op`."""
        needs_grad = x.needs_grad or parts.get("weight_flops", 0) > 0
        output = Value(x.size, x.width, needs_grad, x.storage)
        return self._append(Op("view", (x,), output, hands_on=True, **parts))

    def into(self, x: Value, y: Value) -> Value:
        """`y` added to `x` in the memory of `x`; both get the gradient of the result."""
        output = Value(x.size, x.width, x.needs_grad or y.needs_grad, x.storage)
        return self._append(Op("add", (x, y), output, hands_on=True))

    def part(self, x: Value, elements: float) -> Value:
        """Some of `x`, in its memory; the parts share one gradient of the whole."""
        output = Value(per_token(elements * x.width), x.width, x.needs_grad, x.storage)
        return self._append(Op("part", (x,), output, part=True))

    def promoted(self, x: Value, width: int) -> Value:
        """`x` as a kernel reads it in a wider type: only the gradient is a tensor of its own."""
        output = Value(per_token(x.elements * width), width, x.needs_grad, x.storage)
        return self._append(Op("promote", (x,), output))

    def expanded(self, x: Value, elements: float) -> Value:
        """`x` read several times over from the same memory; the gradient of all is summed."""
        size = per_token(elements * x.width)
        return self._append(Op("expand", (x,), Value(size, x.width, x.needs_grad, x.storage)))

    def hold(self, *values: Value) -> None:
        """Keep the inputs of a module until its last operation so far, as a caller's frame does."""
        for value in values:
            value.storage.last_use = max(value.storage.last_use, len(self.ops) - 1)

    def retain(self, value: Value) -> None:
        """Keep a value until the step is over, as a training loop that holds it does."""
        value.storage.savers += 1
        self.retained = self.retained.plus(value.size)

    def _append(self, op: Op) -> Value:
        for value in op.inputs:
            value.storage.last_use = len(self.ops)
        for value in op.saved:
            value.storage.savers += 1
        self.ops.append(op)
        return op.output
