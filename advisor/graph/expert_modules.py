"""Routed experts as modules of three linears each, visited one after the other.

Mirrors transformers before 5 (MixtralSparseMoeBlock and its like). Libraries quantize these linears
as they do any other, and only one expert's temporaries exist at a time. Tokens are taken to be
spread evenly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.graph.modules import INDEX, LayerModules
from advisor.tape import Value, per_token

if TYPE_CHECKING:
    from profiles.facts import Experts


def looped(modules: LayerModules, x: Value, shares: Value, experts: Experts) -> Value:
    """The sum of all experts' results, each on the tokens that chose it."""
    h, start = modules.model.hidden_size, len(modules.tape.ops)
    part = experts.top_k / experts.num_experts
    total = modules.value("zeros", (), h, x.width)
    for _ in range(experts.num_experts):
        picked = modules.value("gather", (x,), part * h, x.width, kept=per_token(2 * INDEX * part))
        down = _expert(modules, picked, experts.width, part)
        weighed = modules.value(
            name="weigh",
            inputs=(down, shares),
            size=down.elements,
            width=down.width,
            saved=(down, shares),
            back_work=per_token(down.elements * down.width),
        )
        total = modules.add(total, modules.cast(weighed, total.width))
    for op in modules.tape.ops[start:]:
        op.flops, op.weight_flops = op.flops * part, op.weight_flops * part
    return total


def _expert(modules: LayerModules, x: Value, f: int, part: float) -> Value:
    h = modules.model.hidden_size
    gate = _linear(modules, x, "w1", (h, f), part)
    up = _linear(modules, x, "w3", (h, f), part)
    return _linear(modules, modules.gated(gate, up), "w2", (f, h), part)


def _linear(
    modules: LayerModules, x: Value, name: str, shape: tuple[int, int], part: float
) -> Value:
    """One linear on its `part` of the tokens."""
    n_in, n_out = shape
    modules.tape.add_matrix(name, n_in, n_out, quantizable=True)
    if modules.plan.base_bits < 16 and not modules.trains:
        return modules.quantized(x, name, n_in * n_out, n_out * part)
    width = modules.base_width
    return modules.matmul(x, name, n_in * n_out, n_out * part, width, trains=modules.trains)
