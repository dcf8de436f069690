"""The operations that all modules of a layer are made of, under a plan's precision.

Decides what autocast copies, what a quantized weight costs for the time of its product, and where
the gradient of a weight goes. Nothing here knows what a layer looks like.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from advisor.precision import autocasts, flow_width, trained_width
from advisor.tape import NOTHING, Size, Tape, Value, once, per_token

if TYPE_CHECKING:
    from advisor.framework import Framework
    from advisor.plan import Plan
    from profiles.facts import Model

DEQUANTIZED_SCALES: Final = 4 / 64
"""fp32 scales of 4-bit blocks, restored from their 8 bits for each use (bitsandbytes 0.50)."""


class Matmuls:
    """Appends operations to one tape for one model and plan."""

    def __init__(self, tape: Tape, model: Model, plan: Plan) -> None:
        self.tape, self.model, self.plan = tape, model, plan
        self.autocasts = autocasts(plan)
        self.flow = flow_width(plan)
        self.trained = trained_width(plan)
        self.products = 2 if self.autocasts else self.trained

    @property
    def framework(self) -> Framework:
        """How the framework carries the mathematics out."""
        return self.plan.framework

    @property
    def is_quantized(self) -> bool:
        """The frozen linears have few bits."""
        return self.plan.base_bits < 16

    def value(
        self, name: str, inputs: tuple[Value, ...], size: float, width: int, **kw: Any
    ) -> Value:
        """An operation whose result has `size` elements of `width` bytes a token."""
        return self.tape.op(name, inputs, per_token(size * width), width, **kw)

    def cast(self, x: Value, width: int) -> Value:
        """`x` in another type, or itself."""
        if x.width == width:
            return x
        return self.value("cast", (x,), x.elements, width)

    def add(self, a: Value, b: Value) -> Value:
        """Sum; both get the gradient of the result, cast back where it is wider."""
        width = max(a.width, b.width)
        a, b = self.promoted(a, width), self.promoted(b, width)
        return self.value("add", (a, b), a.elements, width, hands_on=True)

    def promoted(self, x: Value, width: int) -> Value:
        """What a kernel reads in a wider type than it has: only the gradient is a new tensor."""
        if x.width == width:
            return x
        return self.tape.promoted(x, width)

    def matmul(
        self, x: Value, name: str, weights: int, n_out: float, width: int, *, trains: bool
    ) -> Value:
        """Product with a matrix of `width` bytes an element; autocast makes 16-bit copies."""
        flow = 2 if self.autocasts else width
        x = self.cast(x, flow)
        # What FSDP gathers, it casts itself.
        casts = self.autocasts and width == 4 and not self.plan.shards_weights
        kept = once(2 * weights) if casts else NOTHING
        if not trains:
            return self.value(name, (x,), n_out, flow, kept=kept, flops=2 * weights)
        grad, work = self.weight_gradient(weights, flow)
        return self.value(
            name=name,
            inputs=(x,),
            size=n_out,
            width=flow,
            saved=(x,),
            kept=kept,
            weight_grad=grad,
            back_work=work,
            flops=2 * weights,
            weight_flops=2 * weights,
        )

    def weight_gradient(self, weights: float, flow: int) -> tuple[Size, Size]:
        """(lasting, passing) bytes; autocast's own gradient is cast to the weight's type."""
        if self.plan.shards_weights:
            return once(flow * weights), NOTHING  # and then reduced to a shard
        lasting = self.trained * weights
        passing = flow * weights if flow != self.trained else 0
        return once(lasting), once(passing)

    def quantized(self, x: Value, name: str, weights: int, n_out: float) -> Value:
        """bitsandbytes: the weight in 16 bits for the time of the matmul, in both directions."""
        copy = once(self.dequantized(weights))
        entered = self.cast(x, 2)
        keeps = self.plan.framework.keeps_quantized_input or self.plan.base_bits == 8
        result = self.value(
            name=name,
            inputs=(entered,),
            size=n_out,
            width=2,
            saved=(entered,) if keeps else (),
            work=copy,
            back_work=copy,
            flops=2 * weights,
        )
        return self.cast(result, x.width)

    def dequantized(self, weights: int) -> float:
        """Bytes of a quantized weight made whole for a matmul."""
        plan = self.plan
        if plan.framework.gptq_group:
            return 2 * weights
        scales = DEQUANTIZED_SCALES if plan.base_bits == 4 and plan.framework.double_quant else 0
        copies = 2 if plan.framework.dequantizes_twice else 1
        return weights * (2 * copies + scales)
