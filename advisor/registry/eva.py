"""Low-rank adapters whose ranks follow from the data: EVA (arXiv 2410.07170).

Each A begins as the directions in which the inputs of its linear vary most over the rows to train
on. As many directions as LoRA of this rank would have are given to the linears where they explain
most, up to `rho` times the rank, so that a linear may have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from advisor.registry import low_rank, low_rank_tape
from advisor.registry.handover import PEFT_AND_MERGED
from advisor.registry.low_rank import LORA, MLP_TARGETS, TARGET_GROUPS, LowRank
from advisor.registry.spec import Hyperparameter, MethodSpec, Rate, Settings, key

if TYPE_CHECKING:
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model


@dataclass(frozen=True, slots=True)
class DataRank(Settings):
    """[method] of EVA: the mean rank, and how far one linear's may rise above it."""

    rank: int = key(16, "mean width of the adapters", ge=1, le=1024)
    alpha: int = key(32, "adapters count alpha / rank times", ge=1, le=4096)
    dropout: float = key(0.0, "share of an adapter's inputs that is dropped", ge=0, lt=1)
    targets: str | tuple[str, ...] = key(
        "all", "adapted linears", choices=tuple(TARGET_GROUPS), names=True
    )
    rho: float = key(
        2.0, "a linear's rank is at most rho times the mean; 1: all are alike", ge=1, le=16
    )

    @property
    def alike(self) -> LowRank:
        """LoRA of the same size, with one rank for all."""
        return LowRank(rank=self.rank, alpha=self.alpha, dropout=self.dropout, targets=self.targets)


def rank_on(settings: DataRank, model: Model, name: str) -> int:
    """Before anything is known of the data, the mean."""
    return low_rank.rank_on(settings.alike, model, name)


def num_added(model: Model, settings: DataRank, matrices: Sequence[Matrix]) -> int:
    """P = sum of r (in + out) at the mean rank; the data moves ranks between linears."""
    return low_rank.num_added(model, settings.alike, matrices)


def adapted(tape: LayerTape, settings: DataRank, x: Value, result: Value, matrix: Matrix) -> Value:
    """As LoRA's."""
    return low_rank_tape.adapted(tape, settings.alike, x, result, matrix)


def rate(model: Model, settings: DataRank) -> Rate:
    """As LoRA's."""
    return low_rank.rate(model, settings.alike)


def in_short(settings: DataRank) -> str:
    """Like "mean rank 16"."""
    return f"mean rank {settings.rank}"


def shows(settings: DataRank, model: Model) -> tuple[Hyperparameter, ...]:
    """As LoRA's."""
    return low_rank.shows(settings.alike, model)


def without_adapters(model: Model, settings: DataRank) -> str:
    """PEFT's EVA looks at plain linears, and experts are none."""
    if model.experts is not None and not set(MLP_TARGETS).isdisjoint(settings.alike.target_names):
        return 'EVA has no adapters for experts; take method.targets = "attention"'
    return ""


EVA: Final = MethodSpec(
    name="eva",
    title="EVA",
    family="LoRA",
    takers=PEFT_AND_MERGED,
    rehearsed=True,
    offered=False,  # no rung of its own: it takes the memory of LoRA
    settings=DataRank,
    builder="eva",
    reads_rows=True,
    reaches_input=False,
    asks_for_input=True,
    spares_first=True,
    added=num_added,
    rank=rank_on,
    around_linear=adapted,
    rate=rate,
    default_rate=LORA.default_rate,
    in_short=in_short,
    shows=shows,
    unsupported=without_adapters,
)
METHODS: Final = (EVA,)
