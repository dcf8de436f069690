"""What PEFT puts on frozen linears beside LoRA (PEFT 0.21): vectors, products, rotations.

Decides which linears are changed and what a change computes. None is named by the documents for a
recommendation; they run for whoever asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd, isqrt, log
from typing import TYPE_CHECKING, Any, Final

from advisor.registry.continued import LOHA_FILE, LOKR_FILE, OFT_FILE, VERA_FILE
from advisor.registry.handover import PEFT_AND_MERGED
from advisor.registry.low_rank import PARTS, TARGET_GROUPS, in_short
from advisor.registry.spec import MethodSpec, Rate, Settings, key
from advisor.tape import once, per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

TRANSPOSED: Final = frozenset({"gpt2", "openai-gpt"})
"""Families whose linears are transformers' Conv1D."""


@dataclass(frozen=True, slots=True)
class OnLinears(Settings):
    """[method] of what is put on linears."""

    targets: str | tuple[str, ...] = key(
        "all", "changed linears", choices=tuple(TARGET_GROUPS), names=True
    )

    def changes(self, name: str) -> bool:
        """A linear of this name is a target, or does the work of one."""
        names = TARGET_GROUPS[self.targets] if isinstance(self.targets, str) else self.targets
        return not {name, *PARTS.get(name, ())}.isdisjoint(names)


@dataclass(frozen=True, slots=True)
class Vectors(OnLinears):
    """[method] of VeRA (arXiv 2310.11454)."""

    rank: int = key(256, "width of the two matrices that all linears share", ge=1, le=4096)


@dataclass(frozen=True, slots=True)
class Products(OnLinears):
    """[method] of LoHa (arXiv 2108.06098) and LoKr (arXiv 2309.14859)."""

    rank: int = key(16, "width of the products", ge=1, le=1024)
    alpha: int = key(16, "what is added counts alpha / rank times", ge=1, le=4096)


@dataclass(frozen=True, slots=True)
class Rotated(OnLinears):
    """[method] of OFT (arXiv 2306.07280)."""

    block: int = key(32, "features that are rotated together", ge=2, le=1024)


def changed(settings: OnLinears, matrices: Sequence[Matrix]) -> list[Matrix]:
    """The linears that are targets."""
    return [m for m in matrices if settings.changes(m.name)]


def num_vectors(_model: Model, settings: Vectors, matrices: Sequence[Matrix]) -> int:
    """Trained: out + r for each linear."""
    return sum([(m.n_out + settings.rank) * m.copies for m in changed(settings, matrices)])


def num_shared(model: Model, settings: Vectors, matrices: Sequence[Matrix]) -> int:
    """The vectors, and one A and B, as drawn, of the widest linear."""
    sides = changed(settings, matrices)
    widest = max((m.n_in for m in sides), default=0) + max((m.n_out for m in sides), default=0)
    return num_vectors(model, settings, matrices) + settings.rank * widest


def vectors(tape: LayerTape, settings: Vectors, x: Value, result: Value, matrix: Matrix) -> Value:
    """PEFT: result + b * B(d * A(x)), with vectors b and d."""
    if not settings.changes(matrix.name):
        return result
    rank, n_out, width = settings.rank, matrix.n_out, tape.trained
    entered = x
    x = wide = tape.cast(x, width)
    low = tape.matmul(x, "vera_A", rank * matrix.n_in, rank, width, trains=False)
    low = _times_vector(tape, low, rank)
    high = tape.matmul(low, "vera_B", rank * n_out, n_out, width, trains=False)
    total = tape.add(result, _times_vector(tape, high, n_out))
    total = tape.cast(total, result.width)
    tape.tape.hold(entered, wide)
    return total


def _times_vector(tape: LayerTape, x: Value, size: int) -> Value:
    """A trained scale for each feature, in the vector's type."""
    width = max(x.width, tape.trained)
    return tape.value(
        name="scale",
        inputs=(x,),
        size=size,
        width=width,
        saved=(x,),
        # its gradient before it is cast, and the products that are summed for the vector's
        back_work=per_token((2 * width - x.width) * size),
        weight_grad=once(tape.trained * size),
        weight_flops=1,
    )


def num_hadamard(_model: Model, settings: Products, matrices: Sequence[Matrix]) -> int:
    """LoHa: two products of rank r, 2r (in + out) for each linear."""
    chosen = changed(settings, matrices)
    return sum([2 * settings.rank * (m.n_in + m.n_out) * m.copies for m in chosen])


def num_kronecker(_model: Model, settings: Products, matrices: Sequence[Matrix]) -> int:
    """LoKr: a small matrix and a large one, whole or of rank r."""
    chosen = changed(settings, matrices)
    return sum([_kronecker(m, settings.rank) * m.copies for m in chosen])


def _kronecker(matrix: Matrix, rank: int) -> int:
    """PEFT divides both sides as evenly as it can, the smaller part first."""
    small_in, small_out = (_even_divisor(n) for n in (matrix.n_in, matrix.n_out))
    large_in, large_out = matrix.n_in // small_in, matrix.n_out // small_out
    is_whole = rank >= max(large_in, large_out) / 2
    large = large_in * large_out if is_whole else rank * (large_in + large_out)
    return small_in * small_out + large


def _even_divisor(n: int) -> int:
    """The largest that is no more than the root."""
    return next(d for d in range(isqrt(n), 0, -1) if n % d == 0)


def hadamard(tape: LayerTape, settings: Products, x: Value, result: Value, matrix: Matrix) -> Value:
    """PEFT: result + (A1 B1 * A2 B2)(x); the sum of both is a matrix as large as the linear's."""
    if not settings.changes(matrix.name):
        return result
    size, width = matrix.n_in * matrix.n_out, tape.products
    delta = tape.tape.op(
        "hadamard",
        (),
        once(width * size),
        width,
        work=once(2 * width * size),
        # backward, in the type of the weights: the scaled gradient, a product, and two times both
        back_work=once((width + 3 * tape.trained) * size),
        weight_grad=once(tape.trained * 2 * settings.rank * (matrix.n_in + matrix.n_out)),
        weight_flops=1,
    )
    return tape.cast(tape.add(result, _linear(tape, x, delta, matrix)), result.width)


def kronecker(
    tape: LayerTape, settings: Products, x: Value, result: Value, matrix: Matrix
) -> Value:
    """PEFT: result + (C kron D)(x), made in the type of the weights."""
    if not settings.changes(matrix.name):
        return result
    size, width = matrix.n_in * matrix.n_out, tape.trained
    made = tape.tape.op(
        "kronecker",
        (),
        once(width * size),
        width,
        back_work=once(2 * width * size),
        weight_grad=once(width * _kronecker(matrix, settings.rank)),
        weight_flops=1,
    )
    delta = tape.tape.op("scale", (made,), once(width * size), width)
    entered, x = x, tape.cast(x, width)
    wide = x
    if width != tape.products:
        x = tape.cast(x, tape.products)
        delta = tape.tape.op("cast", (delta,), once(tape.products * size), tape.products)
    total = tape.cast(tape.add(result, _linear(tape, x, delta, matrix)), result.width)
    tape.tape.hold(entered, wide)
    return total


def num_rotations(_model: Model, settings: Rotated, matrices: Sequence[Matrix]) -> int:
    """OFT: what is above the diagonal of each block, in (b - 1) / 2 for each linear."""
    chosen = changed(settings, matrices)
    return sum([m.n_in * (settings.block - 1) // 2 * m.copies for m in chosen])


def num_with_places(model: Model, settings: Rotated, matrices: Sequence[Matrix]) -> int:
    """With the rows and columns of a block, numbers of twice a weight's bytes in each linear."""
    linears = sum([m.copies for m in changed(settings, matrices)])
    places = settings.block * (settings.block - 1)
    return num_rotations(model, settings, matrices) + 2 * places * linears


def rotated(tape: LayerTape, settings: Rotated, x: Value, matrix: Matrix) -> Value:
    """PEFT: the linear reads x R, with R a sum of powers of a skew matrix (Cayley-Neumann)."""
    if not settings.changes(matrix.name):
        return x
    n_in, trained, width = matrix.n_in, tape.trained, tape.products
    size = n_in * settings.block
    turn = tape.tape.op(
        "powers",
        (),
        once(trained * size),
        trained,
        kept=once(3 * trained * size),
        work=once(trained * size),
        back_work=once(2 * trained * size),
        weight_grad=once(trained * n_in * (settings.block - 1) // 2),
        weight_flops=1,
    )
    if width != trained:
        turn = tape.tape.op("cast", (turn,), once(width * size), width)
    wide = tape.cast(x, trained)
    narrow = tape.cast(wide, width)
    turned = tape.value(
        name="rotate",
        inputs=(narrow, turn),
        size=n_in,
        width=width,
        saved=(narrow, turn),
        flops=2 * size,
    )
    ordered = tape.value("reshape", (turned,), n_in, width)
    return tape.cast(tape.cast(ordered, trained), x.width)


def _linear(tape: LayerTape, x: Value, delta: Value, matrix: Matrix) -> Value:
    """The product with a matrix that was made for it, and trains."""
    return tape.value(
        name=f"{matrix.name}.delta",
        inputs=(x, delta),
        size=matrix.n_out,
        width=delta.width,
        saved=(x, delta),
        flops=2 * matrix.n_in * matrix.n_out,
    )


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def plain(model: Model, _settings: Any) -> str:
    """Experts lie in one tensor, and a Conv1D has its weight the other way round."""
    if model.experts is not None:
        return "it changes single linears, and the experts of a mixture lie in one tensor"
    if model.model_type in TRANSPOSED:
        return f"the linears of {model.model_type} are another class, Conv1D"
    return ""


def whole_blocks(model: Model, settings: Rotated) -> str:
    """PEFT would take another size of block for a linear that this one does not divide."""
    if why := plain(model, settings):
        return why
    h, block = model.hidden_size, settings.block
    widths = {"q_proj": h, "o_proj": model.query_width, "up_proj": h}
    widths |= {"k_proj": h, "v_proj": h, "gate_proj": h, "down_proj": model.intermediate_size}
    chosen = {n for name, n in widths.items() if settings.changes(name)} or set(widths.values())
    if (low := model.latent) is not None:
        chosen |= {low.query_rank or h, low.kv_rank, model.num_heads * low.value_dim}
    common = gcd(*chosen)
    if common % block == 0:
        return ""
    fitting = [d for d in range(2, common + 1) if common % d == 0]
    nearest = sorted(sorted(fitting, key=lambda d: abs(log(d / block)))[:4])
    told = f"method.block = {block} does not divide the widths of its linears ({_listed(chosen)})"
    return f"{told}; of {_listed(nearest)} each does" if nearest else told


def _rate(value: float, reason: str) -> Any:
    return lambda _model, _settings: Rate(value, reason)


_SEEN: Final = "seen to learn on a small model"
VERA: Final = MethodSpec(
    name="vera",
    continued=VERA_FILE,
    title="VeRA",
    family="changes of linears",
    takers=PEFT_AND_MERGED,
    rehearsed=True,
    offered=False,
    settings=Vectors,
    builder="linears",
    lm_only=True,
    reaches_input=False,
    asks_for_input=True,
    spares_first=True,
    added=num_shared,
    trained=num_vectors,
    around_linear=vectors,
    in_short=in_short,
    unsupported=plain,
    rate=_rate(2e-2, f"{_SEEN}; the documents give none"),
    default_rate=2e-2,
)
LOHA: Final = replace(
    VERA,
    name="loha",
    continued=LOHA_FILE,
    title="LoHa",
    settings=Products,
    added=num_hadamard,
    forward_casts=True,
    trained=None,
    around_linear=hadamard,
    rate=_rate(1e-2, f"{_SEEN}; the documents give none"),
    default_rate=1e-2,
)
LOKR: Final = replace(
    LOHA,
    name="lokr",
    continued=LOKR_FILE,
    title="LoKr",
    forward_casts=False,
    added=num_kronecker,
    around_linear=kronecker,
)
OFT: Final = replace(
    VERA,
    name="oft",
    continued=OFT_FILE,
    title="OFT",
    settings=Rotated,
    added=num_with_places,
    trained=num_rotations,
    published=num_rotations,
    around_linear=None,
    before_linear=rotated,
    in_short=lambda settings: f"blocks of {settings.block}",
    unsupported=whole_blocks,
    rate=_rate(1e-3, f"{_SEEN}; the documents give none"),
    default_rate=1e-3,
)
METHODS: Final = (VERA, LOHA, LOKR, OFT)
