"""What is alive while a piece of a network runs forward and backward, from sizes alone.

A `Tape` is written like the model's own code: each operation says which values it reads, how large
its result is and what autograd keeps for it. `play` then follows the rules by which torch frees
memory: a value goes after its last use unless an operation saved it; a saved value goes once that
operation's backward is done; gradients accumulate in place where nothing else holds them.

Sizes are linear forms, so one tape holds for every batch: bytes once, bytes per token, and bytes
per token and token of its row (scores, masks). Nothing here knows a layer, a model or a machine.
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


class Stage(NamedTuple):
    """A local peak: all that is alive at it, and the parts that have names of their own."""

    name: str
    total: Size
    saved: Size
    """Kept for the backward pass."""
    weight_grads: Size
    """Of all weights so far."""
    op_grads: Size
    """Of the weights of the operation at work."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one piece allocates; its input, which another piece made, is never counted."""

    saved: Size
    """Alive once the forward pass is done, the output left out."""
    saves_input: bool
    output: Size
    forward: tuple[Stage, ...]
    """Local peaks of the forward pass; none is exceeded by another in every part."""
    recomputed: tuple[Stage, ...]
    """The same as far as a checkpointed pass is run again: to the last operation that saves."""
    backward: tuple[Stage, ...]
    """The same for the backward pass, which starts from `saved` and the output's gradient."""
    weight_grads: Size
    retained: Size = NOTHING
    """Of `saved`, what outlives the backward pass."""


class Tape:
    """Operations in the order they run, from one input."""

    def __init__(self, entry: Size, width: int, *, needs_grad: bool) -> None:
        self.ops: list[Op] = []
        self.matrices: list[Matrix] = []
        """Weights of the linears met."""
        self.retained = NOTHING
        """What is kept beyond the backward pass."""
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

    def view(self, x: Value) -> Value:
        """The same memory in another shape."""
        output = Value(x.size, x.width, x.needs_grad, x.storage)
        return self._append(Op("view", (x,), output, hands_on=True))

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


def play(tape: Tape, *, reentrant: bool = False) -> Profile:
    """Run the tape forward and backward and note what is alive at each local peak.

    `reentrant`: it is recomputed to its last operation, and the caller holds the gradient of the
    output.
    """
    player = _Player(tape)
    forward = player.forward()
    saved = player.saved
    saving = [i for i, op in enumerate(tape.ops) if op.saved or op.kept is not NOTHING]
    again = forward[: saving[-1] + 1] if saving and not reentrant else forward
    return Profile(
        saved=saved,
        saves_input=tape.entry.storage.savers > 0,
        output=tape.output.size,
        forward=_not_exceeded(forward),
        recomputed=_not_exceeded(again),
        backward=_not_exceeded(player.backward(held=reentrant)),
        weight_grads=player.weight_grads,
        retained=tape.retained,
    )


def saved_by(tape: Tape) -> Size:
    """What the tape keeps for its backward pass, its input left out."""
    player = _Player(tape)
    player.forward()
    return player.saved


@dataclass(slots=True, eq=False)
class _Gradient:
    size: Size
    holders: int = 1


class _Player:
    """Live bytes of a tape, operation by operation."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.live = self.saved = self.weight_grads = NOTHING
        self.stages: list[Stage] = []
        self.grads: dict[Value, _Gradient] = {}
        self.savers: dict[Storage, int] = {}

    def forward(self) -> list[Stage]:
        """Stages of the forward pass, one for each operation."""
        entry, last = self.tape.entry.storage, self.tape.output.storage
        dying: dict[int, list[Storage]] = {}
        seen = {entry}
        for index, op in enumerate(self.tape.ops):
            made = op.output.storage
            if made not in seen:
                seen.add(made)
                self._grow(made.size)
                if made.savers:
                    self.saved = self.saved.plus(made.size)
                elif made is not last:
                    dying.setdefault(max(made.last_use, index), []).append(made)
            if op.kept is not NOTHING:
                self._grow(op.kept)
                self.saved = self.saved.plus(op.kept)
            self._note(op.name, op.work)
            for storage in dying.get(index, ()):
                self._shrink(storage.size)
        return self._take_stages()

    def backward(self, *, held: bool) -> list[Stage]:
        """Stages of the backward pass, from what the forward pass saved."""
        self.savers = {v.storage: v.storage.savers for op in self.tape.ops for v in op.saved}
        output = self.tape.output
        self.live = self.saved.plus(output.size)
        self.grads = {output: _Gradient(output.size, 2 if held else 1)}
        for op in reversed(self.tape.ops):
            if op.output in self.grads:
                self._step_back(op)
        return self._take_stages()

    def _step_back(self, op: Op) -> None:
        """In the order of torch's engine: compute, note, free what was saved, hand on."""
        grad = self.grads.pop(op.output)
        asking = [value for value in op.inputs if value.needs_grad]
        given = [(value, self._gradient(op, value, grad)) for value in asking]
        if op.weight_grad is not NOTHING:
            self._grow(op.weight_grad)
            self.weight_grads = self.weight_grads.plus(op.weight_grad)
        self._note(op.name, op.back_work, op.weight_grad)
        self._free_saved(op)
        self._drop(grad)
        for value, gradient in given:
            if gradient is not None:
                self._accumulate(op.name, value, gradient)

    def _gradient(self, op: Op, value: Value, grad: _Gradient) -> _Gradient | None:
        if op.hands_on:
            grad.holders += 1
            return grad
        if op.part and value in self.grads:
            return None
        self._grow(value.size)
        return _Gradient(value.size)

    def _accumulate(self, name: str, value: Value, new: _Gradient) -> None:
        """Added in place where nobody else holds the older one, as torch's InputBuffer does."""
        old = self.grads.get(value)
        if old is None:
            self.grads[value] = new
        elif old.holders == 1:
            self._drop(new)
        else:
            self._grow(value.size)
            self._note(name, NOTHING)
            self._drop(old)
            self._drop(new)
            self.grads[value] = _Gradient(value.size)

    def _drop(self, gradient: _Gradient) -> None:
        gradient.holders -= 1
        if not gradient.holders:
            self._shrink(gradient.size)

    def _free_saved(self, op: Op) -> None:
        freed = op.kept
        for value in op.saved:
            self.savers[value.storage] -= 1
            if not self.savers[value.storage] and value.storage is not self.tape.entry.storage:
                freed = freed.plus(value.storage.size)
        if freed is not NOTHING:
            self._shrink(freed)
            self.saved = self.saved.minus(freed)

    def _grow(self, size: Size) -> None:
        self.live = self.live.plus(size)

    def _shrink(self, size: Size) -> None:
        self.live = self.live.minus(size)

    def _note(self, name: str, work: Size, op_grads: Size = NOTHING) -> None:
        total = self.live if work is NOTHING else self.live.plus(work)
        self.stages.append(Stage(name, total, self.saved, self.weight_grads, op_grads))

    def _take_stages(self) -> list[Stage]:
        taken, self.stages = self.stages, []
        return taken


def _not_exceeded(stages: list[Stage]) -> tuple[Stage, ...]:
    """Those that can be the peak for some batch."""
    found: list[Stage] = []
    for stage in sorted(stages, key=lambda s: s.total, reverse=True):
        _, a, b = stage.total
        if not any(a <= other.total[1] and b <= other.total[2] for other in found):
            found.append(stage)
    return tuple(found)
