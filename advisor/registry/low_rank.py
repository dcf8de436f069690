"""Low-rank adapters beside frozen linears (arXiv 2106.09685), and on a quantized base.

Decides which linears are adapted, what an adapter computes (PEFT 0.21), and where in the documents'
range of learning rates to start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from advisor.registry import beside
from advisor.registry.beside import BIASES
from advisor.registry.continued import LORA_FILE
from advisor.registry.handover import Quoted
from advisor.registry.low_rank_tape import adapted, adapted_parts
from advisor.registry.spec import (
    Fault,
    Hyperparameter,
    MethodSpec,
    Rate,
    Settings,
    key,
    numbers_of,
)

if TYPE_CHECKING:
    from advisor.tape import Matrix
    from profiles.facts import Model

ATTENTION_TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_TARGETS: Final = ("gate_proj", "up_proj", "down_proj")
ALL_TARGETS: Final = ATTENTION_TARGETS + MLP_TARGETS
TARGET_GROUPS: Final = {"all": ALL_TARGETS, "attention": ATTENTION_TARGETS}
ATTENTION_LINEARS: Final = (
    r".*\.(self_attn|self_attention|attention|attn)\."
    r"(\w*_proj|\w*_proj_with_mqa|query_key_value|dense|Wqkv|c_attn"
    r"|self\.(query|key|value)(_proj)?|output\.dense|\w+_lin)"
)
"""The linears of attention by the names that transformers' families give them."""
EXPERTS: Final = "experts"
"""A target: the routed experts of a mixture."""
OWN_EXPERTS: Final = frozenset({"jetmoe"})
"""Families whose experts and routers are their own kind of module: nothing adapts or packs them."""
ROUTER: Final = "router"
"""Of a mixture: the linear that chooses among its experts."""
ROUTERS: Final = ("frozen", "adapted", "trained")
"""What becomes of it: nothing, an adapter, or that it trains whole."""
PARTS: Final = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "q_a_proj": ("q_proj",),
    "q_b_proj": ("q_proj",),
    "kv_a_proj_with_mqa": ("k_proj", "v_proj"),
    "kv_b_proj": ("k_proj", "v_proj"),
}
"""Linears that do the work of several of Llama's."""
INITS: Final = ("kaiming", "gaussian", "pissa", "olora")
"""How adapters start; the last two are parts of the weights (arXiv 2404.02948, 2406.01775)."""
_LARGE: Final = 30_000_000_000
_HIGH_RANK: Final = 64
_RANGE: Final = "documents: LoRA 1e-4 to 5e-4"


@dataclass(frozen=True, slots=True)
class LowRank(Settings):
    """[method] of LoRA: its size, its weight, and the linears that get one."""

    rank: int = key(16, "width of the adapters", ge=1, le=1024)
    alpha: int = key(32, "adapters count alpha / rank times", ge=1, le=4096)
    dropout: float = key(0.0, "share of an adapter's inputs that is dropped", ge=0, lt=1)
    targets: str | tuple[str, ...] = key(
        "all", "adapted linears", choices=tuple(TARGET_GROUPS), names=True
    )
    exclude: tuple[str, ...] = key((), "of the targets, linears that are left out", names=True)
    layers: str | tuple[int, ...] = key(
        "all", "numbers of the adapted layers, from 0 on", choices=("all",), layers=True
    )
    ranks: tuple[tuple[str, int], ...] = key(
        (), "other widths on linears of these names", table=True, ge=1, le=1024
    )
    rslora: bool = key(
        False, "adapters count alpha / sqrt(rank) times: rsLoRA", choices=(False, True)
    )
    init: str = key(INITS[0], "how adapters start: PiSSA and OLoRA from the weights", choices=INITS)
    freeze_a: bool = key(False, "A stays as it is drawn: LoRA-FA", choices=(False, True))
    b_rate: float = key(1.0, "learning rate of B over that of A; LoRA+: 16", ge=1, le=256)
    dora: bool = key(
        False,
        "magnitudes of the weights train beside their directions: DoRA",
        choices=(False, True),
    )
    modules_to_save: tuple[str, ...] = key(
        (), "what trains whole beside adapters: embed_tokens, lm_head, norms", names=True
    )
    bias: str = key(
        BIASES[0], "biases that train too: all, or those of adapted linears", choices=BIASES
    )
    router: str = key(ROUTERS[0], "the router of a mixture of experts", choices=ROUTERS)

    @property
    def trains_router(self) -> bool:
        """Whole, as a copy beside the frozen one."""
        return self.router == "trained"

    @property
    def whole_modules(self) -> tuple[str, ...]:
        """As set."""
        return self.modules_to_save

    @property
    def trains_biases(self) -> bool:
        """As set."""
        return self.bias != BIASES[0]

    def faults(self) -> Iterable[Fault]:
        """What cannot train whole, or is not the business of some layers."""
        return beside.faults(self.modules_to_save, self.bias, self.layers)

    @property
    def changes_base(self) -> bool:
        """Singular vectors (PiSSA) or columns of a QR decomposition (OLoRA) are taken out."""
        return self.init in {"pissa", "olora"}

    @property
    def reads_base(self) -> bool:
        """DoRA's norms are those of the frozen weights with the adapter added."""
        return self.dora

    def without_numbers(self) -> LowRank:
        """Drawn, as LoRA's are."""
        return replace(self, init=INITS[0])

    def adapted_layers(self, num_layers: int) -> Sequence[int]:
        """As set; numbers that a model does not have are left out."""
        return numbers_of(self.layers, num_layers)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The targets by the names of Llama-style blocks."""
        names = TARGET_GROUPS[self.targets] if isinstance(self.targets, str) else self.targets
        return tuple([name for name in names if name not in self.exclude])


@dataclass(frozen=True, slots=True)
class QuantizedLowRank(LowRank):
    """[method] of QLoRA: adapters beside weights of few bits (arXiv 2305.14314)."""

    bits: int = key(4, "of the frozen weights", choices=(4, 8))

    @property
    def base_bits(self) -> int:
        """NF4 with double quantization, or LLM.int8."""
        return self.bits


def rank_on(settings: LowRank, _model: Model, name: str) -> int:
    """Of a linear's adapter."""
    if name == ROUTER:
        return settings.rank if settings.router == "adapted" else 0
    is_target = not {name, *PARTS.get(name, ())}.isdisjoint(settings.target_names)
    if not is_target or name in settings.exclude:
        return 0
    return dict(settings.ranks).get(name, settings.rank)


def expert_rank(settings: LowRank) -> int:
    """Of a mixture's routed experts: they are targets by their own name, and with all of an MLP."""
    names = settings.target_names
    return settings.rank if EXPERTS in names or set(names).issuperset(MLP_TARGETS) else 0


def num_added(model: Model, settings: LowRank, matrices: Sequence[Matrix]) -> int:
    """P = sum of r (in + out) over the adapted linears, and a magnitude for each output (DoRA).

    Routers that train do so in a copy.
    """
    magnitudes = 1 if settings.dora else 0
    adapted = [m for m in matrices if m.rank]
    count = sum([(m.rank * (m.n_in + m.n_out) + magnitudes * m.n_out) * m.copies for m in adapted])
    if not settings.trains_router or model.experts is None:
        return count
    bias = 1 if model.experts.router_bias else 0
    return count + sum([(m.n_in + bias) * m.n_out * m.copies for m in matrices if m.name == ROUTER])


def num_published(model: Model, settings: LowRank, matrices: Sequence[Matrix]) -> int:
    """At twice the rank where an adapter began as a part of the weights: for the untouched base."""
    plain = replace(settings, dora=False)
    again = num_added(model, plain, matrices) if settings.changes_base else 0
    biases = beside.num_biases(model, settings.bias, matrices)
    return num_added(model, settings, matrices) + again + biases


def num_trained(model: Model, settings: LowRank, matrices: Sequence[Matrix]) -> int:
    """All that is added, or all but A, and biases."""
    frozen = [m.rank * m.n_in * m.copies for m in matrices] if settings.freeze_a else []
    biases = beside.num_biases(model, settings.bias, matrices)
    return num_added(model, settings, matrices) - sum(frozen) + biases


def units(settings: LowRank) -> int:
    """FSDP1 wraps both matrices of every adapter (peft.utils.other.fsdp_auto_wrap_policy)."""
    return 2 * len(settings.target_names)


def rate(model: Model, settings: LowRank) -> Rate:
    """The lower end for a large model or a high rank."""
    if model.num_params >= _LARGE or settings.rank >= _HIGH_RANK:
        return Rate(1e-4, f"{_RANGE}; the lower end for a large model or a high rank")
    return Rate(DEFAULT_RATE, _RANGE)


def in_short(settings: LowRank) -> str:
    """Like "rank 16"."""
    return f"rank {settings.rank}"


def shows(settings: LowRank, _model: Model) -> tuple[Hyperparameter, ...]:
    """What an adapter is set to."""
    names = settings.target_names
    return (
        Hyperparameter("rank", str(settings.rank), ""),
        Hyperparameter("alpha", str(settings.alpha), "twice the rank, the usual choice"),
        Hyperparameter(
            "dropout",
            f"{settings.dropout:g}",
            "costs a copy of every adapted input; raise to 0.1 if it over-fits",
        ),
        Hyperparameter(
            "targets",
            "all linears" if set(names) >= set(ALL_TARGETS) else ", ".join(names),
            "attention and MLP; more targets help more than a higher rank",
        ),
    )


def unsupported(model: Model, settings: LowRank) -> str:
    """A model without biases has none to train."""
    return beside.without_biases(model, settings.bias)


DEFAULT_RATE: Final = 2e-4
LORA: Final = MethodSpec(
    name="lora",
    title="LoRA",
    family="LoRA",
    quoted=Quoted("90-95 %, rank 64 95-98 %", "10-15 %"),
    continued=LORA_FILE,
    takers=("PEFT", "vLLM", "merged"),
    published=num_published,
    rehearsed=True,
    settings=LowRank,
    builder="low_rank",
    reaches_input=False,
    asks_for_input=True,
    learns_tokens=True,
    spares_first=True,
    added=num_added,
    trained=num_trained,
    rank=rank_on,
    expert_rank=expert_rank,
    around_linear=adapted,
    around_parts=adapted_parts,
    units=units,
    rate=rate,
    default_rate=DEFAULT_RATE,
    in_short=in_short,
    shows=shows,
    unsupported=unsupported,
)
QLORA: Final = replace(
    LORA,
    name="qlora",
    title="QLoRA",
    quoted=Quoted("90-95 %", "2-5 %"),
    settings=QuantizedLowRank,
    needs=("bitsandbytes",),
)
METHODS: Final = (LORA, QLORA)
