"""Low-rank adapters whose ranks follow from the training itself: AdaLoRA (arXiv 2303.10512).

Every adapter is a product B diag(E) A of the same width at first. The directions that matter least
over all linears are set to zero step by step, so that the mean rank falls from `init_rank` to
`target_rank`. Formulas are PEFT's (0.21).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from advisor.registry.handover import PEFT_AND_MERGED
from advisor.registry.low_rank import ALL_TARGETS, MLP_TARGETS, PARTS, TARGET_GROUPS
from advisor.registry.spec import Fault, Hyperparameter, MethodSpec, Rate, Settings, key
from advisor.tape import once, per_token

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

_MOST_STEPS: Final = 10**9
_LEAST_BEFORE: Final = 2
"""Steps up to the last pruning: there is no importance before the first one is made."""
_SCORES: Final = 3
"""Numbers for each weight: its importance, the mean of it, and the mean of how it varies."""


class Schedule(NamedTuple):
    """When the ranks fall, in steps of the run."""

    begin: int
    """Up to this step all directions stay."""
    end: int
    """At this step the ranks are final."""
    every: int
    """Steps between two prunings."""


@dataclass(frozen=True, slots=True)
class AdaptiveRank(Settings):
    """[method] of AdaLoRA: ranks at first and in the end, and when they fall."""

    init_rank: int = key(12, "width that each adapter begins with", ge=1, le=1024)
    target_rank: int = key(4, "mean rank in the end, below init_rank", ge=1, le=1024)
    alpha: int = key(32, "adapters count alpha / init_rank times", ge=1, le=4096)
    dropout: float = key(0.0, "share of an adapter's inputs that is dropped", ge=0, lt=1)
    targets: str | tuple[str, ...] = key(
        "all", "adapted linears", choices=tuple(TARGET_GROUPS), names=True
    )
    tinit: float = key(
        0.1, "steps before the ranks fall; below 1 a share of all", ge=0, le=_MOST_STEPS
    )
    tfinal: float = key(
        0.5, "last steps, with final ranks; below 1 a share of all", ge=0, le=_MOST_STEPS
    )
    delta_t: float = key(
        0.01, "steps between two prunings; below 1 a share of all", ge=0, le=_MOST_STEPS
    )
    orthogonality: float = key(
        0.5, "weight of the penalty that keeps an adapter's directions apart", ge=0, le=100
    )

    @property
    def target_names(self) -> tuple[str, ...]:
        """The targets by the names of Llama-style blocks."""
        return TARGET_GROUPS[self.targets] if isinstance(self.targets, str) else self.targets

    def schedule(self, num_steps: int) -> Schedule:
        """For a run of so many steps; `too_short` says whether there is one."""
        end = num_steps - _steps(self.tfinal, num_steps)
        every = max(1, _steps(self.delta_t, num_steps))
        return Schedule(_steps(self.tinit, num_steps), end, every)

    def too_short(self, num_steps: int) -> str:
        """The ranks must be final before the run ends, and something must be known by then."""
        begin, end, _ = self.schedule(num_steps)
        if end >= _LEAST_BEFORE and begin < end:
            return ""
        mend = f"train for {_LEAST_BEFORE} steps at least"
        if num_steps >= _LEAST_BEFORE:
            mend = "lower method.tinit or method.tfinal, or train for more steps"
        return (
            f"ranks are to fall after step {begin} and to be final at step {max(0, end)} of "
            f"{num_steps}; {mend}"
        )

    def faults(self) -> Iterator[Fault]:
        """A rank that does not fall, and parts of steps."""
        if self.target_rank >= self.init_rank:
            why = f"must be below init_rank = {self.init_rank}: the ranks fall to it"
            yield Fault("target_rank", f'{why}; for a fixed rank take method.name = "lora"')
        for name in ("tinit", "tfinal", "delta_t"):
            value = getattr(self, name)
            if value >= 1 and value != int(value):
                yield Fault(name, "must be a share below 1 or a whole number of steps")


def _steps(share_or_steps: float, num_steps: int) -> int:
    return int(share_or_steps if share_or_steps >= 1 else share_or_steps * num_steps)


def rank_on(settings: AdaptiveRank, _model: Model, name: str) -> int:
    """The width that a linear's adapter keeps in memory to the end."""
    is_target = not {name, *PARTS.get(name, ())}.isdisjoint(settings.target_names)
    return settings.init_rank if is_target else 0


def num_added(_model: Model, _settings: AdaptiveRank, matrices: Sequence[Matrix]) -> int:
    """P = sum of r (in + out + 1) over the adapted linears."""
    return sum([m.rank * (m.n_in + m.n_out + 1) * m.copies for m in matrices if m.rank])


def num_left(_model: Model, settings: AdaptiveRank, matrices: Sequence[Matrix]) -> int:
    """Of what is published, where each linear ends with the mean rank; the rest is cut off."""
    rank = settings.target_rank
    return sum([rank * (m.n_in + m.n_out + 1) * m.copies for m in matrices if m.rank])


def adapted(
    tape: LayerTape, settings: AdaptiveRank, x: Value, result: Value, matrix: Matrix
) -> Value:
    """PEFT: result += dropout(x) (A E)^T B^T * alpha / r, in place.

    The width r is an fp32 tensor, and what is divided by it is in fp32 too.
    """
    rank, n_in, n_out = matrix.rank, matrix.n_in, matrix.n_out
    if not rank:
        return result
    entered = x
    x = wide = tape.cast(x, tape.trained)
    if settings.dropout > 0:
        x = tape.value("dropout", (x,), n_in, tape.trained, kept=per_token(n_in))
    name = matrix.name
    low = tape.matmul(x, f"{name}.lora_A", rank * n_in, rank, tape.trained, trains=True)
    high = tape.matmul(low, f"{name}.lora_B", rank * n_out, n_out, tape.trained, trains=True)
    # without autocast the product of A and E is kept itself, where else its copy in 16 bits is
    kept = once(high.width * rank * n_in if high.width == tape.trained else 0)
    scaled = tape.value("scale", (high,), n_out, high.width, kept=kept)
    divided = tape.value("divide", (scaled,), n_out, 4)
    total = tape.tape.into(result, tape.tape.promoted(divided, result.width))
    tape.tape.hold(entered, wide)
    return total


def rate(_model: Model, _settings: AdaptiveRank) -> Rate:
    """Of the paper's range."""
    return Rate(DEFAULT_RATE, "the AdaLoRA paper: 5e-4 to 2e-3; the documents give none")


def in_short(settings: AdaptiveRank) -> str:
    """Like "rank 12 to 4"."""
    return f"rank {settings.init_rank} to {settings.target_rank}"


def shows(settings: AdaptiveRank, _model: Model) -> tuple[Hyperparameter, ...]:
    """Where the ranks begin and end."""
    names = settings.target_names
    return (
        Hyperparameter(
            "rank",
            f"{settings.init_rank}, in the mean {settings.target_rank} in the end",
            "documents: 12 at first, 4 in the end",
        ),
        Hyperparameter("alpha", str(settings.alpha), ""),
        Hyperparameter(
            "targets",
            "all linears" if set(names) >= set(ALL_TARGETS) else ", ".join(names),
            "the more there are, the more there is to choose from",
        ),
    )


def without_adapters(model: Model, settings: AdaptiveRank) -> str:
    """PEFT's AdaLoRA replaces plain linears, and experts are none."""
    if model.experts is not None and not set(MLP_TARGETS).isdisjoint(settings.target_names):
        return 'AdaLoRA has no adapters for experts; take method.targets = "attention"'
    return ""


DEFAULT_RATE: Final = 1e-3
ADALORA: Final = MethodSpec(
    name="adalora",
    title="AdaLoRA",
    family="LoRA",
    takers=PEFT_AND_MERGED,
    published=num_left,
    rehearsed=True,
    offered=False,  # no rung of its own: it takes a little more memory than LoRA
    settings=AdaptiveRank,
    builder="adaptive",
    own_checkpoint=True,
    prunes=True,
    penalizes=True,
    kept_numbers=_SCORES,
    reaches_input=False,
    asks_for_input=True,
    learns_tokens=True,
    spares_first=True,
    added=num_added,
    rank=rank_on,
    around_linear=adapted,
    rate=rate,
    default_rate=DEFAULT_RATE,
    in_short=in_short,
    shows=shows,
    unsupported=without_adapters,
)
METHODS: Final = (ADALORA,)
