"""What is alive while a tape runs forward and backward, from sizes alone.

`play` follows the rules by which torch frees memory: a value goes after its last use unless an
operation saved it; a saved value goes once that operation's backward is done; gradients accumulate
in place where nothing else holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from advisor.tape import NOTHING, Op, Size, Storage, Tape, Value


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
    """What one module allocates; its input, which another module made, is never counted."""

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
    cached: Size = NOTHING
    """Beside `saved`, what is alive until the forward pass of the whole model ends."""


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
        cached=reduce(Size.plus, [v.size for v in tape.cached if not v.storage.savers], NOTHING),
    )


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
