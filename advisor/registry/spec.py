"""What a description of a method consists of; of a task, an optimizer, an engine: `*_spec`.

A spec is frozen data and small pure functions; what needs torch is its builder, a module of the
runner; without one it can only be estimated: "not yet". Few classes, of half a millisecond each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from advisor.registry.handover import AdapterFile, Quoted, Taker
    from advisor.registry.layer_tape import LayerTape
    from advisor.tape import Matrix, Value
    from profiles.facts import Model

Offload = Literal["", "optimizer", "parameters"]
Place = Literal["ladder", "row", "beside", "mixture"]


class Key(NamedTuple):
    """A setting as people write it in a recipe: what it means and which values it takes."""

    doc: str
    choices: tuple[Any, ...] = ()
    """All values there are; empty where bounds say it."""
    not_yet: tuple[Any, ...] = ()
    """Of the choices, those that can be estimated and that no builder takes."""
    ge: float | None = None
    le: float | None = None
    lt: float | None = None
    names: bool = False
    """Beside the choices, a list of names is taken."""
    table: bool = False
    """A table of names with whole numbers within the bounds; a setting has it as pairs."""
    layers: bool = False
    """Beside the choices, a list of numbers of layers is taken, or "last N"."""


def key(default: Any, doc: str, **bounds: Any) -> Any:
    """A field of a family's settings that is a recipe key: see `Key` for the bounds."""
    made: Any = field(default=default, metadata={"key": Key(doc, **bounds)})
    return made


def numbers_of(layers: str | Sequence[int], num_layers: int) -> Sequence[int]:
    """What a key of layers means: all, "last N", or the numbers that a model has."""
    if not isinstance(layers, str):
        return [number for number in layers if number < num_layers]
    if layers == "all":
        return range(num_layers)
    return range(max(0, num_layers - int(layers.removeprefix("last "))), num_layers)


class Fault(NamedTuple):
    """A setting that does not go with the others of its method."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What a method is set to: the base of each family's frozen dataclass, and of none of its own.

    The fields of a family are its recipe keys. What the estimate asks of any method is here.
    """

    @property
    def base_bits(self) -> int:
        """Bits of the frozen linears: 16, 8 or 4."""
        return 16

    @property
    def changes_base(self) -> bool:
        """What is added starts as a part of the frozen weights, which is taken out of them."""
        return False

    @property
    def reads_base(self) -> bool:
        """What is added computes with the frozen weights themselves, not with their products."""
        return False

    @property
    def trains_router(self) -> bool:
        """The routers of a mixture train whole, beside what is added."""
        return False

    @property
    def whole_modules(self) -> tuple[str, ...]:
        """Beside adapters, what of the embedding, the head and the norms trains as a copy."""
        return ()

    @property
    def trains_biases(self) -> bool:
        """Biases of the model train beside adapters, as they lie there."""
        return False

    def without_numbers(self) -> Settings:
        """Settings of the same memory with which nothing is computed from a model's weights."""
        return self

    def adapted_layers(self, num_layers: int) -> Sequence[int]:
        """Numbers, from 0 on and in order, of the layers that get what is added, or that train."""
        return range(self.num_frozen_layers, num_layers)

    @property
    def num_frozen_layers(self) -> int:
        """The first layers, which have no graph: nothing trains in them or before them."""
        return 0

    @property
    def num_virtual_tokens(self) -> int:
        """By which every row is longer."""
        return 0

    @property
    def num_prefix_keys(self) -> int:
        """Keys and values of its own that each layer reads before those of a row."""
        return 0

    def faults(self) -> Iterable[Fault]:
        """What does not go together; nothing if all does."""
        return ()

    def too_short(self, num_steps: int) -> str:  # noqa: ARG002  # most train for any number
        """Why a run of so many optimizer steps cannot be made so; empty if it can."""
        return ""


def keys_of(settings: type[Any]) -> dict[str, tuple[Field[Any], Key]]:
    """The recipe keys of a family or of a task, in order."""
    return {f.name: (f, f.metadata["key"]) for f in fields(settings)}


class Rate(NamedTuple):
    """A learning rate to start from, and why."""

    value: float
    reason: str


class Hyperparameter(NamedTuple):
    """A hyper-parameter to start from, as a recommendation shows it, with its reason."""

    name: str
    value: str
    reason: str


def nothing_added(_model: Model, _settings: Any, _matrices: Sequence[Matrix]) -> int:
    """The method adds no weight."""
    return 0


def no_rank(_settings: Any, _model: Model, _name: str) -> int:
    """No linear has a low-rank adapter."""
    return 0


def no_expert_rank(_settings: Any) -> int:
    """The experts have none either."""
    return 0


def no_units(_settings: Any) -> int:
    """The method adds no unit that FSDP1 would wrap."""
    return 0


def no_words(_settings: Any) -> str:
    """There is nothing to tell."""
    return ""


def shows_nothing(_settings: Any, _model: Model) -> tuple[Hyperparameter, ...]:
    """There is nothing to set."""
    return ()


def always(_model: Model, _settings: Any) -> str:
    """Every model can be trained so."""
    return ""


class Named:
    """Anything that is chosen by its name, which is how it is shown."""

    name: str
    title: str

    @property
    def builder(self) -> str:
        """What runs it; empty: not yet."""
        return ""

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class MethodSpec(Named):
    """A way to fine-tune: what it adds to a model, what it trains, and how to set it."""

    name: str
    title: str
    settings: type[Settings] = Settings
    builder: str = ""
    """Module of `runner.methods`; empty: not yet."""
    needs: tuple[str, ...] = ()
    """Packages beside those that every training needs."""

    rehearsed: bool = False
    """The rehearsal can build it on a model without memory."""
    offered: bool = True
    """It is a row of the recommendation."""

    family: str = ""
    """What it is a form of, as the documents group methods."""
    quoted: Quoted | None = None
    """None: the documents give no number."""

    lm_only: bool = False
    """It is built for a model's own head, not for a new one that scores."""
    recomputes: bool = True
    """Its layers can be run again in the backward pass."""
    own_checkpoint: bool = False
    """What trains is not what is published, so that a checkpoint has it whole beside that."""
    reads_rows: bool = False
    """What it adds is made from the rows to train on, before the first step."""
    prunes: bool = False
    """Between steps it looks at whole gradients, and sets weights to zero."""
    penalizes: bool = False
    """A part of what is minimised is of the weights alone: its gradients come before all others."""

    # What trains
    trains_base: bool = False
    """The model's own weights, from the first layer that is not frozen to the head."""
    trains_embedding: bool = False
    """The embedding too."""
    trains_norms: bool = False
    """Norms, where the base does not train."""
    reaches_input: bool = True
    """The first layer's input needs a gradient."""
    asks_for_input: bool = False
    """It does so with recomputed activations: TRL asks for it where PEFT makes the model."""
    learns_tokens: bool = False
    """Beside what it adds, rows of the embedding and the head can be trained by themselves."""
    spares_first: bool = False
    """Without recomputation the first layer keeps less, because nothing before it trains."""
    added: Callable[[Model, Any, Sequence[Matrix]], int] = nothing_added
    """Number of weights that are put beside the model's own."""
    trained: Callable[[Model, Any, Sequence[Matrix]], int] | None = None
    """Number of weights that get a gradient; None: those that are added."""
    published: Callable[[Model, Any, Sequence[Matrix]], int] | None = None
    """Number of weights that are published; None: those that are added, or a whole model."""
    continued: AdapterFile | None = None
    """What its result says of itself, to be trained on; None: it cannot be."""
    mixes: AdapterFile | None = None
    """Of the adapters that its experts can begin as; None: it has no experts."""
    takers: tuple[Taker, ...] = ("PEFT",)
    """What takes what is published, where that is no whole model."""
    added_fp32: bool = False
    """What is added is fp32 in every precision."""
    added_casts: bool = False
    """Autocast makes copies of it in 16 bits that live as long as a micro-batch."""
    forward_casts: bool = False
    """The same until the forward pass ends, of all that is added."""
    kept_numbers: int = 0
    """Beside the optimizer's, for each weight that is added, in its type."""
    has_switch: bool = True
    """What is added can be switched off, which leaves the base."""

    # What it does to the operations of a layer
    rank: Callable[[Any, Model, str], int] = no_rank
    """Of the adapter on a linear of this name."""
    expert_rank: Callable[[Any], int] = no_expert_rank
    """Of the adapters on routed experts."""
    before_linear: Callable[[LayerTape, Any, Value, Matrix], Value] | None = None
    """(tape, settings, input, matrix) -> what the base weight reads."""
    around_linear: Callable[[LayerTape, Any, Value, Value, Matrix], Value] | None = None
    """(tape, settings, input, result of the base, matrix) -> what the next operation reads."""
    around_parts: (
        Callable[[LayerTape, Any, Value, Value, str, Sequence[tuple[str, int]]], Value] | None
    ) = None
    """The same for a linear that does several parts' work, as (name, width) of each."""
    beside_attention: Callable[[LayerTape, Any, Value, Value], Value] | None = None
    """(tape, settings, queries, result) -> result."""
    behind_module: Callable[[LayerTape, Any, Value, Value, str], Value] | None = None
    """(tape, settings, input, result, "attention" or "mlp") -> what is added to the stream."""
    units: Callable[[Any], int] = no_units
    """Units of a layer that FSDP1 wraps beside the layer itself."""

    # What people are told
    rate: Callable[[Model, Any], Rate]
    """Where in its range of learning rates to start."""
    default_rate: float
    """Of a recipe that names none."""
    in_short: Callable[[Any], str] = no_words
    """Its most telling setting, like "rank 16"; empty if it has none."""
    shows: Callable[[Any, Model], tuple[Hyperparameter, ...]] = shows_nothing
    unsupported: Callable[[Model, Any], str] = always
    """Why a model cannot be trained so; empty if it can."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PresetSpec(Named):
    """A rung: a method with the settings that make it a choice of its own."""

    name: str
    title: str
    method: str
    place: Place
    """A step of the ladder; a row of the table; beside the ladder; of mixtures and many tasks."""
    why_not: str = "fits, but fewer weights learn less; the documents give no number"
    """Told where it fits and another is taken."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from what is asked for."""
    variants: Callable[[Model], tuple[Mapping[str, Any], ...]] | None = None
    """Further settings, in the order to try them."""
    optimizer: str = "adamw"
    offload: Offload = ""
    lighter: str = ""
    """The preset with smaller optimizer states."""
    is_ranked: bool = False
    """Its rank follows from the data."""
    like_chosen: bool = False
    """A row with the chosen plan's batch is enough."""
    upcycles: bool = False
    """A mixture is made of a dense model first."""
    many_adapters: bool = False
    """One adapter for each task, side by side."""
    for_experts: bool = False
    """Only for a model that has experts."""

    @property
    def changes_model(self) -> bool:
        """Another model is made first, or several adapters in one."""
        return self.upcycles or self.many_adapters
