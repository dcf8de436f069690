"""Sparse high-rank adapters: some weights of each linear train, drawn at random (PEFT 0.21)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from advisor.registry.handover import PEFT_AND_MERGED
from advisor.registry.linears import OnLinears, changed, plain
from advisor.registry.low_rank import in_short
from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, key
from advisor.tape import once

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

INDEX: Final = 8
"""Bytes of a row or a column (int64), as a product reads it."""


@dataclass(frozen=True, slots=True)
class Sparse(OnLinears):
    """[method] of SHiRA (arXiv 2406.13175)."""

    rank: int = key(16, "as many weights as a LoRA of this rank has", ge=1, le=1024)


def num_sparse(_model: Model, settings: Sparse, matrices: Sequence[Matrix]) -> int:
    """R (in + out) for each linear."""
    chosen = changed(settings, matrices)
    return sum([settings.rank * (m.n_in + m.n_out) * m.copies for m in chosen])


def num_with_places(model: Model, settings: Sparse, matrices: Sequence[Matrix]) -> int:
    """With a row and a column of 32 bits for each."""
    return 3 * num_sparse(model, settings, matrices)


def replaced(tape: LayerTape, settings: Sparse, x: Value, matrix: Matrix) -> Value:
    """PEFT: the linear reads a copy of its weight with the trained ones added, kept for backward.

    The copy's gradient is a whole matrix, in the type of the product and then in the weights'.
    """
    if not settings.changes(matrix.name):
        return x
    size, width = matrix.n_in * matrix.n_out, tape.products
    count = settings.rank * (matrix.n_in + matrix.n_out)
    places = 2 * INDEX * count
    wider = tape.trained if tape.trained != width else 0
    return tape.tape.view(
        x,
        saved=(x,),
        kept=once(width * size + places),
        work=once(places + tape.trained * count),
        back_work=once((width + wider) * size),
        weight_grad=once(tape.trained * count),
        weight_flops=2 * size,
    )


def too_many(model: Model, settings: Sparse) -> str:
    """No more weights can train than there are."""
    if why := plain(model, settings):
        return why
    h, q, kv, f = (
        *(model.hidden_size, model.query_width),
        *(model.kv_width, model.intermediate_size),
    )
    sides = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h)}
    sides |= {"gate_proj": (h, f), "up_proj": (h, f), "down_proj": (f, h)}
    most = min(
        [a * b // (a + b) for name, (a, b) in sides.items() if settings.changes(name)] or [1024]
    )
    if settings.rank <= most:
        return ""
    told = f"method.rank = {settings.rank} trains more weights than a linear of it has"
    return f"{told}; {most} is the most"


def rate(_model: Model, _settings: Sparse) -> Rate:
    """One, which was tried."""
    return Rate(DEFAULT_RATE, "seen to learn on a small model; the documents give none")


def shows(settings: Sparse, _model: Model) -> tuple[Hyperparameter, ...]:
    """How many weights train."""
    return (Hyperparameter("rank", str(settings.rank), "as many weights as LoRA's"),)


DEFAULT_RATE: Final = 1e-3
SHIRA: Final = MethodSpec(
    name="shira",
    title="SHiRA",
    family="sparse",
    takers=PEFT_AND_MERGED,
    settings=Sparse,
    builder="linears",
    lm_only=True,
    reaches_input=False,
    asks_for_input=True,
    spares_first=True,
    added=num_with_places,
    trained=num_sparse,
    before_linear=replaced,
    unsupported=too_many,
    rate=rate,
    default_rate=DEFAULT_RATE,
    in_short=in_short,
    shows=shows,
)
METHODS: Final = (SHIRA,)
