"""What low-rank adapters compute beside a frozen linear, after PEFT 0.21 and lit-gpt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advisor.registry.magnitudes import decomposed
from advisor.tape import once, per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value


def adapted(tape: LayerTape, settings: Any, x: Value, result: Value, matrix: Matrix) -> Value:
    """PEFT: result + B(A(dropout(x))) * scaling, in the adapter's type or under autocast."""
    rank, n_in, n_out = matrix.rank, matrix.n_in, matrix.n_out
    if not rank:
        return result
    if tape.framework.fused_adapters and tape.is_quantized:
        return _fused(tape, settings, x, result, matrix)
    entered = x
    x = wide = tape.cast(x, tape.trained)
    if settings.dropout > 0:
        x = tape.value("dropout", (x,), n_in, tape.trained, kept=per_token(n_in))
    name = matrix.name
    trains_a = not settings.freeze_a
    if settings.dora:
        drops = settings.dropout > 0
        total = decomposed(tape, x, result, matrix, drops=drops, trains_a=trains_a)
        tape.tape.hold(entered, wide)
        return total
    low = tape.matmul(x, f"{name}.lora_A", rank * n_in, rank, tape.trained, trains=trains_a)
    high = tape.matmul(low, f"{name}.lora_B", rank * n_out, n_out, tape.trained, trains=True)
    scaled = tape.value("scale", (high,), n_out, high.width)
    total = tape.cast(tape.add(result, scaled), result.width)
    tape.tape.hold(entered, wide)
    return total


def _fused(tape: LayerTape, settings: Any, x: Value, result: Value, matrix: Matrix) -> Value:
    """One kernel adds the adapter's product to the result in place."""
    x = entered = tape.cast(x, 2)
    weights = matrix.rank * (matrix.n_in + matrix.n_out)
    if settings.dropout > 0:
        x = tape.value("dropout", (x,), matrix.n_in, 2)
    return tape.value(
        name="fused_lora",
        inputs=(tape.cast(result, 2), entered, x),
        size=matrix.n_out,
        width=2,
        saved=(entered, x),
        weight_grad=once(tape.trained * weights),
        flops=2 * weights,
        weight_flops=2 * weights,
    )


def adapted_parts(
    tape: LayerTape,
    settings: Any,
    x: Value,
    result: Value,
    name: str,
    parts: Sequence[tuple[str, int]],
) -> Value:
    """One adapter for each part of a joined linear that is a target (lit-gpt's LoRA)."""
    chosen = [width for part, width in parts if part in settings.target_names]
    if not chosen:
        return result
    rank, width, n_in = settings.rank, tape.trained, round(x.elements)
    for part_width in chosen:
        tape.tape.add_matrix(name, n_in, part_width, rank=rank)
    x = tape.cast(x, width)
    if settings.dropout > 0:
        x = tape.value("dropout", (x,), n_in, width, kept=per_token(n_in))
    ranks, part, n_out = rank * len(chosen), sum(chosen), sum(width for _, width in parts)
    low = tape.matmul(x, f"{name}.lora_A", ranks * n_in, ranks, width, trains=True)
    high = tape.matmul(low, f"{name}.lora_B", rank * part, part, width, trains=True)
    if part < n_out:
        # Filled up with zeros; index_copy keeps what it copies.
        high = tape.value("index_copy", (high,), n_out, high.width, saved=(high,))
    return tape.add(result, tape.value("scale", (high,), n_out, high.width))
