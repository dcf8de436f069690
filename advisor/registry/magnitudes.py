"""DoRA (arXiv 2402.09353): a weight's magnitude and its direction, which the adapter turns.

As PEFT 0.21 computes it: result + (m / n - 1) result + (m / n) B(A(x)) scaling, with n the norms of
the rows of W + scaling B A, which are constants to the gradient (section 4.3 of the paper).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.tape import once, per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value

WIDTH: Final = 4
"""Bytes of a magnitude: steps of a small learning rate are lost in 16 bits."""


def decomposed(
    tape: LayerTape, x: Value, result: Value, matrix: Matrix, *, drops: bool, trains_a: bool
) -> Value:
    """(tape, what the adapter reads, result of the base, matrix) -> the linear's result."""
    name, rank, n_in, n_out = matrix.name, matrix.rank, matrix.n_in, matrix.n_out
    held = _norms(tape, matrix, trains_a=trains_a)
    base = _again(tape, x, matrix) if drops else result
    low = tape.matmul(x, f"{name}.lora_A", rank * n_in, rank, tape.trained, trains=trains_a)
    high = tape.matmul(low, f"{name}.lora_B", rank * n_out, n_out, tape.trained, trains=True)
    turned = _times(tape, base, n_out, weight_grad=once(WIDTH * n_out))
    weighed = _times(tape, high, n_out)
    scaled = tape.value("scale", (weighed,), n_out, WIDTH)
    change = tape.add(turned, scaled)
    tape.tape.hold(held)
    return tape.cast(tape.add(result, change), result.width)


def _norms(tape: LayerTape, matrix: Matrix, *, trains_a: bool) -> Value:
    """What the norms take: B A as the product of both with a unit matrix, in the adapter's type.

    It is there until the module returns, with the unit matrix where A would have a gradient;
    nothing of it is kept, as no gradient goes through it.
    """
    n_in, weights = matrix.n_in, matrix.n_in * matrix.n_out
    width = tape.trained
    flow = 2 if tape.autocasts else width
    unit = width * n_in**2
    cast = flow * n_in**2 if flow != width else 0
    kept = (cast or unit) if trains_a else 0
    product = unit + max(cast, (cast if trains_a else 0) + flow * weights)
    base = width * weights if tape.is_quantized or tape.base_width != width else 0
    held = kept + width * weights + base
    wide = WIDTH * weights if tape.autocasts and width < WIDTH else 0  # autocast's norm
    most = max(product, held + 2 * width * weights, held + width * weights + wide)
    return tape.tape.op("dora_norms", (), once(held), width, work=once(most - held))


def _again(tape: LayerTape, x: Value, matrix: Matrix) -> Value:
    """The base's product with what dropout left: the weight is kept as the product had it."""
    weights = matrix.n_in * matrix.n_out
    flow = 2 if tape.autocasts else tape.trained
    is_copy = tape.is_quantized or tape.base_width != flow or flow != tape.trained
    return tape.value(
        name=f"{matrix.name}.again",
        inputs=(tape.cast(x, flow),),
        size=matrix.n_out,
        width=flow,
        kept=once(flow * weights if is_copy else 0),
        flops=2 * weights,
    )


def _times(tape: LayerTape, x: Value, n_out: int, **kw: object) -> Value:
    """The product with fp32 magnitudes over norms, one for each output."""
    return tape.value(
        name="magnitude",
        inputs=(tape.tape.promoted(x, WIDTH),),
        size=n_out,
        width=WIDTH,
        saved=(x,),
        kept=once(2 * WIDTH * n_out),
        back_work=per_token(WIDTH * n_out),
        weight_flops=float(n_out),
        **kw,
    )
