"""Routed experts as modules of three linears each, visited one after the other.

Mirrors transformers before 5 (MixtralSparseMoeBlock and its like). Libraries quantize these linears
as they do any other, and only one expert's temporaries exist at a time. Tokens are taken to be
spread evenly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.graph.pieces import INDEX, Pieces
from advisor.precision import base_width
from advisor.tape import Value, per_token

if TYPE_CHECKING:
    from profiles.facts import Experts


def looped(pieces: Pieces, x: Value, shares: Value, experts: Experts) -> Value:
    """The sum of all experts' results, each on the tokens that chose it."""
    h, start = pieces.model.hidden_size, len(pieces.tape.ops)
    part = experts.top_k / experts.num_experts
    total = pieces.value("zeros", (), h, x.width)
    for _ in range(experts.num_experts):
        picked = pieces.value("gather", (x,), part * h, x.width, kept=per_token(2 * INDEX * part))
        down = _expert(pieces, picked, experts.width, part)
        weighed = pieces.value(
            name="weigh",
            inputs=(down, shares),
            size=down.elements,
            width=down.width,
            saved=(down, shares),
            back_work=per_token(down.elements * down.width),
        )
        total = pieces.add(total, pieces.cast(weighed, total.width))
    for op in pieces.tape.ops[start:]:
        op.flops, op.weight_flops = op.flops * part, op.weight_flops * part
    return total


def _expert(pieces: Pieces, x: Value, f: int, part: float) -> Value:
    h = pieces.model.hidden_size
    gate = _linear(pieces, x, "w1", (h, f), part)
    up = _linear(pieces, x, "w3", (h, f), part)
    return _linear(pieces, pieces.gated(gate, up), "w2", (f, h), part)


def _linear(pieces: Pieces, x: Value, name: str, shape: tuple[int, int], part: float) -> Value:
    """One linear on its `part` of the tokens."""
    n_in, n_out = shape
    pieces.tape.add_matrix(name, n_in, n_out, quantizable=True)
    if pieces.plan.base_bits < 16 and not pieces.trains:
        return pieces.quantized(x, name, n_in * n_out, n_out * part)
    width = base_width(pieces.plan)
    return pieces.matmul(x, name, n_in * n_out, n_out * part, width, trains=pieces.trains)
