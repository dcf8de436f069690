"""Mixtures of LoRA experts: several adapters on each linear, and a router that weighs them.

The router is a linear of the same input with a softmax over all experts, as in LoRAMoE (arXiv
2312.09979): every expert counts, and each token decides how much. One expert a task is what the
documents have in mind; which task a row is of, nobody tells the router.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from advisor.registry import low_rank
from advisor.registry.continued import LORA_FILE
from advisor.registry.linears import OnLinears, changed
from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, key
from advisor.tape import per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

EXACT: Final = 4
"""Bytes of a share: the softmax is in fp32."""


@dataclass(frozen=True, slots=True)
class LoraExperts(OnLinears):
    """[method] of a mixture of LoRA experts."""

    experts: int = key(4, "adapters on each linear; documents: one a task", ge=2, le=64)
    rank: int = key(8, "width of each", ge=1, le=1024)
    alpha: int = key(16, "what they add counts alpha / rank times", ge=1, le=4096)
    dropout: float = key(0.0, "share of the experts' inputs that is dropped", ge=0, lt=1)
    freeze_experts: bool = key(
        False, "the routers alone learn, beside model.adapters", choices=(False, True)
    )


def width(settings: LoraExperts, _model: Model, name: str) -> int:
    """Of all experts of a linear together."""
    return settings.experts * settings.rank if settings.changes(name) else 0


def num_added(_model: Model, settings: LoraExperts, matrices: Sequence[Matrix]) -> int:
    """N (r (in + out) + in) for each linear: n experts and a router."""
    chosen = changed(settings, matrices)
    each = [settings.rank * (m.n_in + m.n_out) + m.n_in for m in chosen]
    return sum([settings.experts * n * m.copies for n, m in zip(each, chosen, strict=True)])


def num_trained(model: Model, settings: LoraExperts, matrices: Sequence[Matrix]) -> int:
    """All, or the routers alone."""
    if not settings.freeze_experts:
        return num_added(model, settings, matrices)
    return sum([settings.experts * m.n_in * m.copies for m in changed(settings, matrices)])


def routed(
    tape: LayerTape, settings: LoraExperts, x: Value, result: Value, matrix: Matrix
) -> Value:
    """Result + B(A(dropout(x)) * shares(x)) * scaling: a share for the r numbers of an expert."""
    wide = matrix.rank
    if not wide:
        return result
    count, n_in, n_out, name = settings.experts, matrix.n_in, matrix.n_out, matrix.name
    learn = not settings.freeze_experts
    entered = x
    x = own = tape.cast(x, tape.products)  # by autocast, or as the experts are
    logits = tape.matmul(x, f"{name}.router", count * n_in, count, tape.trained, trains=True)
    shares = tape.value("softmax", (tape.cast(logits, EXACT),), count, EXACT, saves_output=True)
    if settings.dropout > 0:
        x = tape.value("dropout", (x,), n_in, x.width, kept=per_token(n_in))
    low = tape.matmul(x, f"{name}.down", wide * n_in, wide, tape.trained, trains=learn)
    shares = tape.cast(shares, low.width)
    low = tape.value("share", (low, shares), wide, low.width, saved=(low, shares))
    high = tape.matmul(low, f"{name}.up", wide * n_out, n_out, tape.trained, trains=learn)
    scaled = tape.value("scale", (high,), n_out, high.width)
    total = tape.add(result, tape.cast(scaled, result.width))
    tape.tape.hold(entered, own)
    return total


def dense(model: Model, _settings: LoraExperts) -> str:
    """Routed experts lie in one tensor, beside which no linear stands."""
    if model.experts is None:
        return ""
    return "it puts experts beside linears, and the model is a mixture of experts already"


def rate(model: Model, settings: LoraExperts) -> Rate:
    """As of one adapter as wide as all of them."""
    alike = low_rank.LowRank(rank=settings.experts * settings.rank)
    return low_rank.rate(model, alike)


def shows(settings: LoraExperts, model: Model) -> tuple[Hyperparameter, ...]:
    """What the experts are set to."""
    alike = low_rank.LowRank(
        rank=settings.rank,
        alpha=settings.alpha,
        dropout=settings.dropout,
        targets=settings.targets,
    )
    count = Hyperparameter("experts", str(settings.experts), "documents: one a task, up to 8")
    return (count, *low_rank.shows(alike, model))


def in_short(settings: LoraExperts) -> str:
    """Like "4 of rank 8"."""
    return f"{settings.experts} of rank {settings.rank}"


LORA_EXPERTS: Final = MethodSpec(
    name="lora_experts",
    title="mixture of LoRA experts",
    family="mixtures",
    takers=("its own file",),
    settings=LoraExperts,
    rehearsed=True,
    builder="lora_experts",
    lm_only=True,
    own_checkpoint=True,
    has_switch=False,
    reaches_input=False,
    asks_for_input=True,
    spares_first=True,
    mixes=LORA_FILE,
    added=num_added,
    trained=num_trained,
    rank=width,
    around_linear=routed,
    unsupported=dense,
    rate=rate,
    default_rate=low_rank.DEFAULT_RATE,
    in_short=in_short,
    shows=shows,
)
METHODS: Final = (LORA_EXPERTS,)
