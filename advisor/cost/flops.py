"""FLOPs of a training step per token, from the tapes; exact, and independent of any machine.

Every matmul of a tape says what its forward pass costs. Its backward pass costs as much for each
input that needs a gradient, and as much again for weights that train. What checkpointing repeats
ends where torch stops early: at the last operation that keeps something.

Checked: equal to torch's FlopCounterMode on real models (tests/test_flops.py), with eager
attention, whose products are all counted. Symbols as in reference/bottlenecks.md §3.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from advisor.graph.layer import any_devices, kinds, layer_tape
from advisor.graph.outer import outer, reaches_input
from advisor.precision import norm_width

if TYPE_CHECKING:
    from advisor.graph.layer import Kind
    from advisor.plan import Plan
    from advisor.tape import Op, Tape
    from profiles.facts import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Flops:
    """Per token of a micro-batch, forward and backward."""

    model_flops: int
    """What training needs: counts attention over the full square, without recomputation."""
    hardware_flops: int
    """What is executed: with recomputed layers and loss tiles."""
    forward_flops: int
    """What an evaluation needs: the forward pass alone."""


class Count(NamedTuple):
    """FLOPs as a linear form: per token, and per token and token that its layer attends to."""

    per_token: float = 0.0
    per_pair: float = 0.0

    def plus(self, other: Count, times: float = 1.0) -> Count:
        """Sum with the other, taken `times` times."""
        return Count(self[0] + times * other[0], self[1] + times * other[1])

    def at(self, row: int) -> float:
        """Per token, where each attends to a row of `row` tokens."""
        return self.per_token + self.per_pair * row


class Group(NamedTuple):
    """Layers that cost the same."""

    kind: Kind
    num_layers: int
    is_first: bool
    """Nothing before it trains."""


class Passes(NamedTuple):
    """What the passes of one layer cost."""

    forward: Count
    backward: Count
    again: Count
    """The part of the forward pass that checkpointing repeats."""


def flops_per_token(model: Model, plan: Plan) -> Flops:
    """FLOPs per token, forward and backward (§3.1); a window limits what its layers attend to."""
    row = row_tokens(plan)
    short = min(row, model.sliding_window or row)
    totals = _totals(model, plan)
    needed = totals.needed.at(row) + totals.needed_sliding.at(short)
    extra = totals.extra.at(row) + totals.extra_sliding.at(short)
    whole = totals
    if plan.shifted_attention:  # in training alone
        whole = _totals(model, replace(plan, shifted_attention=False))
    forward = whole.forward.at(row) + whole.forward_sliding.at(short)
    # A soft prompt lengthens every row.
    longer = 1 + plan.settings.num_virtual_tokens / row
    # What goes forward alone, beside each sequence that goes both ways.
    alone = forward * plan.task.extra_forwards / plan.task.sequences_per_row
    return Flops(
        model_flops=round((needed + alone) * longer),
        hardware_flops=round((needed + extra + alone) * longer),
        forward_flops=round((forward + alone) * longer),
    )


def row_tokens(plan: Plan) -> int:
    """Tokens that attention goes over: with a mask, packing makes one row of all (TRL)."""
    flattened = plan.packing and plan.attention != "flash"
    return plan.tokens_per_micro_batch if flattened else plan.seq_len


def passes(tape: Tape) -> Passes:
    """FLOPs of a tape's passes, for gradients that start from its output."""
    forward = backward = again = Count()
    last = last_recomputed(tape.ops)
    for index, op in enumerate(tape.ops):
        forward = forward.plus(_forward(op))
        backward = backward.plus(_backward(op))
        again = again.plus(_forward(op)) if index <= last else again
    return Passes(forward, backward, again)


def _forward(op: Op) -> Count:
    return Count(op.flops, op.pair_flops)


def _backward(op: Op) -> Count:
    """Gradients of the inputs, and of the weights of matmuls."""
    if not op.output.needs_grad:
        return Count()
    if is_fused_attention(op):
        return _attention_backward(op)
    asked, weights = asked_gradients(op)
    return Count(asked * op.flops + weights * op.weight_flops, asked * op.pair_flops)


def asked_gradients(op: Op) -> tuple[int, int]:
    """How many products a matmul's backward pass has: for its inputs, and for its weights."""
    asked = sum([value.needs_grad for value in op.inputs])
    if not (op.flops and op.weight_flops):  # elsewhere it only says that weights train
        return asked, 0
    return min(asked, 1), 1


def is_fused_attention(op: Op) -> bool:
    """One kernel makes the scores, their softmax and the product with v."""
    return op.name == "attention" and len(op.inputs) == len("qkv")


def _attention_backward(op: Op) -> Count:
    """Four products: of v and of the shares, then of q and of k; no more than are asked for."""
    q, k, v = op.inputs
    scores, product = 2 * q.elements, 2 * op.output.elements
    pairs = v.needs_grad * product + (q.needs_grad or k.needs_grad) * product
    pairs += (q.needs_grad + k.needs_grad) * scores
    keys = op.pair_flops / (scores + product)  # over those of a row
    return Count(0, keys * pairs)


def last_recomputed(ops: list[Op]) -> int:
    """Index of the last operation that checkpointing runs again: torch stops early.

    Inputs are kept before an operation runs, its own result only after. A matmul that gradients
    pass through keeps its weights, trained or not.
    """
    for index in range(len(ops) - 1, -1, -1):
        op = ops[index]
        if not op.output.needs_grad:
            continue
        if op.output in op.saved:
            return index
        if op.saved or op.flops or op.weight_flops:
            return index - 1
    return -1


class _Totals(NamedTuple):
    """Of the whole network; layers that slide over a window apart."""

    needed: Count
    needed_sliding: Count
    extra: Count
    extra_sliding: Count
    forward: Count
    """The part of `needed` that is the forward pass."""
    forward_sliding: Count


def _totals(model: Model, plan: Plan) -> _Totals:
    return _count(model, any_devices(model, plan))


@lru_cache(maxsize=4096)
def _count(model: Model, plan: Plan) -> _Totals:
    # As one operation, attention says what each of its products costs.
    plan = replace(plan, attention="flash")
    needed, extra, forward = ([Count(), Count()] for _ in range(3))
    for group in groups(model, plan):
        found = passes(group_tape(model, plan, group))
        slides = int(group.kind.is_sliding)
        needed[slides] = needed[slides].plus(found.forward, group.num_layers)
        forward[slides] = forward[slides].plus(found.forward, group.num_layers)
        if group.kind.has_graph:
            needed[slides] = needed[slides].plus(found.backward, group.num_layers)
            repeated = group.num_layers * recomputed_share(model, plan)
            extra[slides] = extra[slides].plus(found.again, repeated)
    head = 2 * model.vocab_size * model.hidden_size if plan.task.head == "lm" else 0
    passes_of_head = 3 if outer(model, plan).head else 2
    needed[0] = needed[0].plus(Count(passes_of_head * head))
    forward[0] = forward[0].plus(Count(head))
    if plan.loss == "chunked":
        extra[0] = extra[0].plus(Count(head))
    return _Totals(*needed, *extra, *forward)


def groups(model: Model, plan: Plan) -> list[Group]:
    """All layers from the bottom up, by what their passes cost.

    The first layer's input needs no gradient, unless the embedding trains, or TRL asks for it
    because checkpoints need one, or a soft prompt stands before it.
    """
    first = not (reaches_input(model, plan) or (plan.method.asks_for_input and plan.checkpointing))
    found: list[Group] = []
    for kind in kinds(model, plan):
        if not kind.has_graph:
            found.append(Group(kind, kind.count, is_first=True))
            continue
        found.append(Group(kind, int(first), is_first=True))
        found.append(Group(kind, kind.count - int(first), is_first=False))
        first = False
    return [group for group in found if group.num_layers]


def group_tape(model: Model, plan: Plan, group: Group) -> Tape:
    """The tape of one of the group's layers."""
    stream = norm_width(plan)
    return layer_tape(model, plan, group.kind, stream=stream, first=group.is_first)


def recomputed_share(model: Model, plan: Plan) -> float:
    """Share of the layers that run forward twice."""
    if not plan.checkpointing:
        return 0.0
    if plan.checkpointed_layers is None:
        return 1.0
    return plan.checkpointed_layers / model.num_layers
