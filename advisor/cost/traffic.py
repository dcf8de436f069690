"""What one micro-batch makes a device do: matmuls by shape, attention, and bytes moved.

Read off the tapes, like the memory: an operation reads its inputs and writes its result, and its
backward pass reads what was kept and writes the gradients, each in a kernel of its own, as eager
PyTorch runs them. How fast a device does this is rates.py's business.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from advisor.cost.flops import (
    asked_gradients,
    group_tape,
    groups,
    is_fused_attention,
    last_recomputed,
    recomputed_share,
)
from advisor.graph.experts import RESTORE
from advisor.graph.head import loss_tape, norm_tape
from advisor.graph.layer import any_devices, is_masked
from advisor.graph.outer import outer
from advisor.precision import flow_width, norm_width
from advisor.tape import NOTHING, Size, once, per_token

if TYPE_CHECKING:
    from advisor.plan import Plan
    from advisor.tape import Op, Tape, Value
    from profiles.facts import Model

VIEWS: Final = frozenset({"view", "part", "promote"})
"""Operations that run no kernel in the forward pass."""
KERNELS: Final = {"rotary": 6, "attention": 2, "normalise": 2, "gather": 2}
"""Kernels behind one operation of a tape, where they are several."""
QUANTIZED_KERNELS: Final = 4
"""A quantized linear: its scales, the weights, a cast, the product."""
TILE_PASSES: Final = {"chunked": 3, "liger": 2}
"""How often the tiles of a fused head are read or written beside the products: once in the forward
pass, twice in the backward pass; Liger does both at once."""


class Product(NamedTuple):
    """Shape of a matmul; its gradients are matmuls of the same FLOPs and bytes."""

    flops: float
    """Per token."""
    pair_flops: float
    """Per token and token of its row."""
    size: Size
    """Bytes read and written: operands and result."""
    width: int
    """Bytes of an element."""
    grouped: bool
    """One kernel for the slices of many experts."""


class Attention(NamedTuple):
    """Fused attention: FLOPs per token and token of its row, without a mask's savings."""

    forward: float
    backward: float
    masked: bool
    sliding: bool
    width: int


@dataclass(frozen=True, slots=True)
class Work:
    """Of one micro-batch on one device."""

    products: tuple[tuple[Product, float], ...]
    """Each with how often it runs."""
    attention: tuple[Attention, ...]
    moved: Size
    """Bytes through memory outside of matmuls."""
    dequantized: float
    """Bytes that the restoring of quantized weights reads and writes."""
    forward_kernels: float
    """Kernels that the forward passes start."""
    backward_kernels: float


def work(model: Model, plan: Plan) -> Work:
    """The work of a micro-batch of `plan`, as forms that hold for every length."""
    return _work(model, any_devices(model, plan))


@lru_cache(maxsize=4096)
def _work(model: Model, plan: Plan) -> Work:
    counted = _Counted(plan)
    # What goes forward alone, beside each sequence that goes both ways
    alone = plan.task.extra_forwards / plan.task.sequences_per_row
    for group in groups(model, plan):
        tape = group_tape(model, plan, group)
        again = group.num_layers * recomputed_share(model, plan) if group.kind.has_graph else 0.0
        counted.add(tape, group.num_layers, again, backward=group.kind.has_graph)
        masked = is_masked(model, plan, group.kind)
        sliding = group.kind.is_sliding
        counted.attend(tape, group.num_layers, again, masked=masked, sliding=sliding)
        if alone:
            counted.add(tape, group.num_layers * alone, 0, backward=False)
            counted.attend(tape, 0, group.num_layers * alone, masked=masked, sliding=sliding)
    norm = norm_tape(model, plan, stream=norm_width(plan))
    counted.add(norm, 1, 0, backward=True)
    counted.add(norm, alone, 0, backward=False)
    loss = loss_tape(model, plan, width=norm.output.width)
    if plan.loss in TILE_PASSES and plan.task.head == "lm":
        counted.fused_head(model, alone)
    else:
        counted.add(loss, 1, 0, backward=True)
        counted.add(loss, alone, 0, backward=False)
    return counted.result()


class _Counted:
    """Sums over the operations of tapes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.products: defaultdict[Product, float] = defaultdict(float)
        self.attention: list[Attention] = []
        self.moved = NOTHING
        self.dequantized = self.forward_kernels = self.backward_kernels = 0.0

    def result(self) -> Work:
        return Work(
            tuple(self.products.items()),
            tuple(self.attention),
            self.moved,
            self.dequantized,
            self.forward_kernels,
            self.backward_kernels,
        )

    def add(self, tape: Tape, count: float, again: float, *, backward: bool) -> None:
        """All operations of `count` equal tapes, of which `again` run forward twice."""
        last = last_recomputed(tape.ops)
        copies = {m.name: m for m in tape.matrices if m.copies > 1}
        for index, op in enumerate(tape.ops):
            forward = count + (again if index <= last else 0)
            returns = count if backward and op.output.needs_grad else 0
            self._launch(op, forward, returns)
            if is_fused_attention(op):
                continue
            if op.flops or op.pair_flops:
                self._multiply(op, forward, returns, copies)
            elif op.name == RESTORE:
                stored = op.output.size.once / op.output.width * self.plan.base_bits / 8
                self.dequantized += (op.output.size.once + op.work.once + stored) * forward
            else:
                self.moved = self.moved.plus(_forward_bytes(op).times(forward))
                self.moved = self.moved.plus(_backward_bytes(op).times(returns))
        if backward:
            self.moved = self.moved.plus(_added_gradients(tape).times(count))

    def attend(
        self, tape: Tape, count: float, again: float, *, masked: bool, sliding: bool
    ) -> None:
        """Fused attention, which torch runs again where it recomputes."""
        for op in tape.ops:
            if is_fused_attention(op):
                back = count if op.output.needs_grad else 0
                forward = (count + again) * op.pair_flops
                self.attention.append(
                    Attention(forward, back * op.pair_flops, masked, sliding, op.output.width)
                )

    def fused_head(self, model: Model, alone: float) -> None:
        """Products with the head in tiles, each tile read and written beside them."""
        h, v, width = model.hidden_size, model.vocab_size, flow_width(self.plan)
        size = once(width * h * v).plus(per_token(width * (h + v)))
        again = 1 if self.plan.loss == "chunked" else 0
        trained = 1 if outer(model, self.plan).head else 0
        self.products[Product(2.0 * h * v, 0, size, width, grouped=False)] += (
            2 + again + trained + alone
        )
        passes = TILE_PASSES[self.plan.loss] + alone
        self.moved = self.moved.plus(per_token(width * v * passes))

    def _launch(self, op: Op, forward: float, returns: float) -> None:
        if op.name in VIEWS:
            return
        kernels = QUANTIZED_KERNELS if _is_quantized(op) else KERNELS.get(op.name, 1)
        self.forward_kernels += kernels * forward
        grads = sum([value.needs_grad for value in op.inputs]) + (op.weight_flops > 0)
        self.backward_kernels += max(kernels, grads) * returns * (not op.hands_on)

    def _multiply(self, op: Op, forward: float, returns: float, copies: dict[str, Any]) -> None:
        asked, weights = asked_gradients(op)
        elements = op.flops / 2
        if op.name in copies:
            matrix = copies[op.name]
            elements = matrix.n_in * matrix.n_out * matrix.copies
        size = once(op.output.width * elements).plus(op.output.size)
        for value in op.inputs:
            is_weight = op.name in copies and value.size.once
            size = size if is_weight else size.plus(value.size)
        product = Product(op.flops, op.pair_flops, size, op.output.width, op.name in copies)
        self.products[product] += forward + returns * (asked + weights)
        self._weights(op, forward, returns * (asked > 0))
        if weights and self.plan.accumulation > 1:
            self.moved = self.moved.plus(op.weight_grad.times(2 * returns))

    def _weights(self, op: Op, forward: float, returns: float) -> None:
        """What makes the weights ready: restored from few bits, or cast by autocast."""
        if _is_quantized(op):
            stored = op.flops / 2 * self.plan.base_bits / 8
            self.dequantized += (op.work.once + stored) * (forward + returns)
        elif op.kept.once:
            self.moved = self.moved.plus(once(3 * op.kept.once * forward))


def _is_quantized(op: Op) -> bool:
    return op.flops > 0 and op.work.once > 0


def _forward_bytes(op: Op) -> Size:
    """Inputs read, the result and temporaries written, temporaries read."""
    if op.name in VIEWS:
        return NOTHING
    size = op.output.size.plus(op.kept).plus(op.work.times(2))
    for value in op.inputs:
        size = size.plus(value.size)
    return size


def _backward_bytes(op: Op) -> Size:
    """The result's gradient and what was kept read, the inputs' gradients written."""
    if op.hands_on:
        return NOTHING
    size = op.output.size.plus(op.kept).plus(op.back_work.times(2))
    for value in op.saved:
        size = size.plus(value.size)
    for value in op.inputs:
        if value.needs_grad:
            size = size.plus(op.output.size if op.part else value.size)
    return size


def _added_gradients(tape: Tape) -> Size:
    """Values with several readers add up their gradients: two read, one written."""
    readers: Counter[Value] = Counter()
    for op in tape.ops:
        if op.output.needs_grad and not op.part:
            readers.update([value for value in op.inputs if value.needs_grad])
    size = NOTHING
    for value, count in readers.items():
        size = size.plus(value.size.times(3 * (count - 1)))
    return size
