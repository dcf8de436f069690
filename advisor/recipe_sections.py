"""The tables of a recipe: closed, immutable, strictly typed.

What can be chosen by name is looked up in the registry; the tables of methods are made from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    create_model,
    model_validator,
)

from advisor.path_syntax import InputPath
from advisor.plan import Precision
from advisor.positions import Rope, RopeType
from advisor.registry.engines import SINGLE
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, SCHEDULES, nearest
from advisor.registry.optimizers import ADAMW
from advisor.registry.schedules import COSINE
from advisor.registry.spec import Key, MethodSpec, Settings, keys_of
from advisor.registry.task_spec import TaskSpec
from profiles.data import new_tokens

MOST_STEPS = 10**9
LAST_LAYERS = re.compile(r"last [1-9][0-9]{0,3}")
MOST_TOKENS = 10_000
SHOWN_CHARS = 40
"""Characters of a name that is not known."""


def known(names: Callable[[], Sequence[str]], kind: str) -> tuple[AfterValidator, WithJsonSchema]:
    """One of the names that there are by then; ValueError with the nearest for another."""

    def check(name: str) -> str:
        if name not in names():
            raise ValueError(f"there is no {kind} {name[:SHOWN_CHARS]!r}; {nearest(name, names())}")
        return name

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(names())})


def _tokens(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Each once, and none that white space would hide."""
    if what := new_tokens.fault(texts):
        raise ValueError(what)
    return texts


class Section(BaseModel):
    """A table of the recipe: closed, immutable, strictly typed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ModelSection(Section):
    """[model]: what is fine-tuned."""

    id: InputPath
    """Local folder with config.json, safetensors and tokenizer, relative to the recipe; or
    `run:ID`, a whole model that a run has published."""
    new_tokens: Annotated[tuple[str, ...], AfterValidator(_tokens)] = Field(
        default=(), strict=False, max_length=MOST_TOKENS
    )
    """Texts that become tokens and are learnt; each starts as the mean of what it was read as."""
    rope_type: RopeType | None = None
    """How its rotary positions are scaled, to read longer texts than it was made for."""
    rope_factor: float | None = Field(default=None, ge=1, le=1000)
    """How many times as long; with rope_type."""
    rope_theta: float | None = Field(default=None, gt=1, le=1e12)
    """Base of the rotations; default: the model's own."""
    adapter: InputPath | None = None
    """Of this model, in PEFT's format or as `run:ID` has published it: trained on, or merged."""
    adapter_use: Literal["continue", "merge"] | None = None
    """Default: continue. `merge` adds it to the model first, and [method] begins anew."""
    adapters: tuple[InputPath, ...] = Field(default=(), strict=False, max_length=64)
    """LoRA adapters of this model, named like `adapter`: the experts of a mixture begin as them."""

    @property
    def rope(self) -> Rope | None:
        """What becomes of its positions; None if they are as the model has them."""
        asked = Rope(self.rope_type, self.rope_factor, self.rope_theta)
        return asked if any(asked) else None

    @property
    def continues(self) -> bool:
        """The adapter itself is trained on."""
        return self.adapter is not None and self.adapter_use != "merge"

    @property
    def merges(self) -> bool:
        """The adapter is added to the model before anything trains."""
        return self.adapter is not None and self.adapter_use == "merge"


class MethodSection(Section):
    """[method]: what is trained; a subclass for each method has its settings as keys."""

    name: str

    @property
    def spec(self) -> MethodSpec:
        """The method."""
        return METHODS[self.name]

    @property
    def settings(self) -> Settings:
        """As the method's family takes them."""
        keys = keys_of(self.spec.settings)
        return self.spec.settings(**{key: getattr(self, key) for key in keys})


@lru_cache(maxsize=128)
def method_section(spec: MethodSpec) -> type[MethodSection]:
    """The table of one method: its name, and a key for each of its settings."""
    name: Any = (Literal[spec.name], spec.name)
    keys: dict[str, Any] = {
        key: (_type_of(field.default, about), Field(default=field.default, **_bounds(about)))
        for key, (field, about) in keys_of(spec.settings).items()
    }
    doc = f'[method] name = "{spec.name}": {spec.title}.'
    return create_model(
        f"{spec.name}_method", __base__=MethodSection, __doc__=doc, name=name, **keys
    )


@lru_cache(maxsize=32)
def objective_section(tasks: tuple[TaskSpec, ...]) -> type[Section]:
    """[objective]: the settings of all tasks; which of them a recipe may name, its task says."""
    keys: dict[str, Any] = {}
    for name, (field, about) in (
        pair for task in tasks for pair in keys_of(task.objective).items()
    ):
        keys[name] = (_type_of(field.default, about) | None, Field(default=None, **_bounds(about)))
    doc = "[objective]: settings of the task; what is left out is as the task has it."
    return create_model("objective", __base__=Section, __doc__=doc, **keys)


def _type_of(default: Any, about: Key) -> Any:
    if about.names:
        return Annotated[Any, BeforeValidator(_choice_or_names(about.choices))]
    if about.table:
        return Annotated[Any, BeforeValidator(_table_of_numbers(about)), PlainSerializer(dict)]
    if about.layers:
        return Annotated[Any, BeforeValidator(_choice_or_layers(about.choices))]
    return Literal[about.choices] if about.choices else type(default)


def _bounds(about: Key) -> dict[str, Any]:
    found: dict[str, Any] = {"description": about.doc}
    if not about.table:  # whose numbers are bounded one by one
        found |= {"ge": about.ge, "le": about.le, "lt": about.lt}
    return {name: value for name, value in found.items() if value is not None}


def _choice_or_names(choices: tuple[str, ...]) -> Callable[[Any], Any]:
    """One of the words, or a list of names."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in choices:
            return value
        is_list = isinstance(value, list | tuple) and (value or not choices)
        if is_list and all(_is_name(one) for one in value):
            return tuple(value)
        words = ", ".join(f'"{word}"' for word in choices)
        raise ValueError(f"must be {words} or a list of names" if words else "must list names")

    return check


def _choice_or_layers(choices: tuple[str, ...]) -> Callable[[Any], Any]:
    """One of the words, "last N", or a list of numbers."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and (value in choices or LAST_LAYERS.fullmatch(value)):
            return value
        if isinstance(value, list | tuple) and value and all(_is_number(one) for one in value):
            return tuple(sorted(set(value)))
        words = ", ".join(f'"{word}"' for word in choices)
        raise ValueError(f'must be {words}, "last N" or a list of numbers of layers from 0 on')

    return check


def _table_of_numbers(about: Key) -> Callable[[Any], Any]:
    """Names with whole numbers within the bounds, as pairs in the order of the names."""
    least, most = about.ge or 0, about.le or MOST_STEPS

    def check(value: Any) -> Any:
        pairs = list(value.items()) if isinstance(value, dict) else value
        is_pairs = isinstance(pairs, list | tuple) and all(
            isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
        )
        if not is_pairs or not all(
            _is_name(name) and type(number) is int and least <= number <= most
            for name, number in pairs
        ):
            raise ValueError(f"must be a table of names with whole numbers of {least} to {most}")
        return tuple(sorted((name, number) for name, number in pairs))

    return check


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


def _share_or_steps(value: float) -> float:
    """A share below 1, or whole steps."""
    if value >= 1 and value != int(value):
        raise ValueError("must be a share below 1 or a whole number of steps")
    return value


class TrainSection(Section):
    """[train]: how it learns."""

    epochs: float = Field(default=1.0, gt=0, le=1000)
    max_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Optimizer steps; takes precedence over epochs."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Default: the method's own, such as 2e-4 for LoRA and 1e-5 for full fine-tuning."""
    scheduler: Annotated[str, *known(SCHEDULES.names, SCHEDULES.kind)] = COSINE.name
    warmup: Annotated[float, AfterValidator(_share_or_steps)] = Field(
        default=0.1, ge=0, le=MOST_STEPS
    )
    """Below 1 a share of the steps, otherwise their number."""
    optimizer: Annotated[str, *known(OPTIMIZERS.names, OPTIMIZERS.kind)] = ADAMW.name
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    micro_batch: int = Field(default=1, ge=1, le=4096)
    """Rows per device and forward pass."""
    accumulation: int = Field(default=1, ge=1, le=4096)
    """Forward passes per optimizer step."""
    precision: Precision = "bf16"
    checkpointing: bool = False
    """Recompute activations in the backward pass."""
    loss: Literal["chunked", "full"] = "chunked"
    """`chunked` never holds the whole logits."""
    shifted_attention: bool = False
    """Train with attention within quarters of a row, half of the heads' shifted (LongLoRA)."""
    neftune_noise_alpha: float | None = Field(default=None, gt=0, le=1000)
    """Noise on the embeddings while training (NEFTune, arXiv 2310.05914: 5 to 15)."""
    router_aux_loss_coef: float | None = Field(default=None, ge=0, le=10)
    """Weight of the loss that keeps a mixture's experts in balance; default: the model's own."""
    workers: int = Field(default=0, ge=0, le=64)
    """Processes that prepare batches; 0: the training process itself."""
    eval_every: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Steps; default: five times in a run."""
    save_every: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Steps; default: five times in a run."""
    log_every: int = Field(default=1, ge=1, le=MOST_STEPS)
    stats_every: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Steps between records of what the layers do: where a mixture's tokens go, how far adapters
    have moved. Default: a hundred times in a run, and not before ten steps."""
    keep_checkpoints: int = Field(default=3, ge=2, le=MOST_STEPS)
    keep: Literal["best", "last"] = "best"
    """Which weights are published: those of the lowest evaluation loss, or of the last step."""
    early_stopping: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """End after so many evaluations without a lower loss; default: train to the end."""
    samples: int = Field(default=3, ge=0, le=20)
    """Held-out prompts that are answered before training, at evaluations and after it."""
    on_spike: Literal["warn", "pause", "stop"] = "warn"
    """What to do when the loss stays above twice its average."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class HardwareSection(Section):
    """[hardware]: on how many devices, and how they share the work."""

    strategy: Annotated[str, *known(ENGINES.names, ENGINES.kind)] = SINGLE.name
    gpus: int = Field(default=1, ge=1, le=1024)

    @model_validator(mode="after")
    def _single_is_one(self) -> HardwareSection:
        if ENGINES[self.strategy].several != (self.gpus > 1):
            alone = ", ".join(f'"{engine.name}"' for engine in ENGINES if not engine.several)
            raise ValueError(f"strategy {alone} goes with gpus = 1, every other with more")
        return self


class PlanSection(Section):
    """[plan]: what was predicted when this was recommended; read by reports, never by training."""

    machine: str | None = Field(default=None, max_length=500)
    peak_bytes: int | None = None
    peak_low_bytes: int | None = None
    peak_high_bytes: int | None = None
    tokens_per_second: float | None = None
    hours: float | None = None
    advisor_version: str | None = Field(default=None, max_length=100)
    path: tuple[str, ...] = Field(default=(), strict=False, max_length=1000)
    """The questions and answers that led here."""
