"""The tables of a recipe: closed, immutable, strictly typed.

What can be chosen by name is looked up in the registry; the tables of methods are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)

from advisor.path_syntax import InputPath, sound_path
from advisor.plan import Precision
from advisor.registry.engines import SINGLE
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, nearest
from advisor.registry.optimizers import ADAMW
from advisor.registry.spec import Key, MethodSpec, Settings, keys_of
from advisor.registry.task_spec import TaskSpec
from profiles import chat_families, personal
from profiles.data import charsets, formats
from profiles.data.columns import Columns

MOST_STEPS = 10**9
_SHOWN = 40
"""Characters of a name that is not known."""


def known(names: Callable[[], Sequence[str]], kind: str) -> tuple[AfterValidator, WithJsonSchema]:
    """One of the names that there are by then; ValueError with the nearest for another."""

    def check(name: str) -> str:
        if name not in names():
            raise ValueError(f"there is no {kind} {name[:_SHOWN]!r}; {nearest(name, names())}")
        return name

    return AfterValidator(check), WithJsonSchema({"type": "string", "enum": list(names())})


OWN_TEMPLATE = "model"


def _chat_template(choice: str) -> str:
    """The model's own, a family's, or a file; ValueError with the nearest name for another."""
    if choice.endswith(chat_families.SUFFIX):
        return sound_path(choice)
    there_are = (OWN_TEMPLATE, *chat_families.names())
    if choice not in there_are:
        raise ValueError(
            f"there is no chat template {choice[:_SHOWN]!r}; {nearest(choice, there_are)}"
            f" (a file of one's own ends in {chat_families.SUFFIX})"
        )
    return choice


EvalSets = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], InputPath],
    Field(min_length=1, max_length=8),
]
"""Evaluation files by names of one's own: `[data.eval] domain = "...", general = "..."`."""


def _columns(columns: dict[str, str]) -> dict[str, str]:
    Columns.of(columns)
    return columns


Encoding = Annotated[
    str,
    AfterValidator(charsets.python_name),
    WithJsonSchema({"type": "string", "enum": [charsets.UTF8, *charsets.ENCODINGS]}),
]
"""Python's name of one that is read, by any name that it has."""


class Section(BaseModel):
    """A table of the recipe: closed, immutable, strictly typed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ModelSection(Section):
    """[model]: what is fine-tuned."""

    id: InputPath
    """Local folder with config.json, safetensors and tokenizer; relative to the recipe."""


def _masks(value: Any) -> Any:
    """True, false, or a list of kinds; ValueError with the nearest name for another."""
    if isinstance(value, bool):
        return value
    kinds, there_are = value, personal.names()
    if not (isinstance(kinds, list | tuple) and all(isinstance(kind, str) for kind in kinds)):
        raise ValueError(f"must be true, false or a list of {', '.join(there_are)}")
    for kind in kinds:
        if kind not in there_are:
            near = nearest(kind, there_are)
            raise ValueError(f"there is no kind of personal data {kind[:_SHOWN]!r}; {near}")
    return tuple(dict.fromkeys(kinds))


class CleanSection(Section):
    """[data.clean]: what is taken out of every row; each is counted and told."""

    html: bool = False
    """Tags, comments and entities of HTML become text; code between backquotes is left."""
    unicode: bool = False
    """Characters are composed (NFC)."""
    whitespace: bool = False
    """One space, one kind of line end, at most one empty line; code keeps its own."""
    duplicates: bool = False
    """Rows that the model reads exactly as an earlier one are left out."""


class MixedFile(Section):
    """One file of a mix."""

    file: InputPath
    """Relative to the recipe."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How often each row is in an epoch: of 0.05 a twentieth of the rows is drawn, none twice; of
    2.5 every row is there twice, and half of them a third time."""


def _several(files: list[MixedFile]) -> list[MixedFile]:
    names = [one.file for one in files]
    if len(set(names)) < len(names):
        raise ValueError("a file stands twice in the mix; give it one weight")
    return files


Mix = Annotated[list[MixedFile], Field(max_length=64, min_length=1), AfterValidator(_several)]


class DataSection(Section):
    """[data]: what it learns from."""

    train: InputPath | Mix
    """File or folder, relative to the recipe; or a mix of several, each with its weight:
    [{file = "a.jsonl", weight = 0.5}, {file = "b.jsonl"}]."""
    eval: InputPath | EvalSets | None = None
    """File for evaluation, or several with a name each, of which the first decides what is best;
    without it a part of `train` is split off."""
    format: Annotated[str, *known(formats.names, "data format")] | None = None
    """Found out from the rows if not given."""
    encoding: Encoding | None = None
    """What files that are not UTF-8 are in, such as "gb18030"; UTF-8 files are read as such."""
    columns: Annotated[dict[str, str], AfterValidator(_columns), Field(min_length=1)] | None = None
    """Parts of a row, such as `prompt`: a column's name, or a template of columns in braces like
    "{topic}\\n{instruction}"; only parts that are named are read then."""
    max_length: int = Field(default=1024, ge=8, le=1 << 20)
    """Tokens; longer rows are cut."""
    packing: bool = False
    """Fill every row up to max_length with several examples."""
    split: str = Field(default="8:1:1", pattern=r"^[1-9]\d{0,3}:\d{1,4}:\d{1,4}$")
    """Train : eval : test, drawn with `train.seed`; exact duplicates stay on one side."""
    split_by: str | None = Field(default=None, min_length=1, max_length=200)
    """A column of `train`, such as its label or source: each of its values is divided so."""
    on_bad: Literal["error", "skip"] = "error"
    chat_template: Annotated[str, AfterValidator(_chat_template)] = OWN_TEMPLATE
    """`model`: the tokenizer's own; else a family, for base models that have none, or a file of
    one's own that ends in .jinja, relative to the recipe."""
    learn: Literal["all", "last"] = "all"
    """Replies of a chat that the loss is taken on: every one, or the last of each row."""
    clean: CleanSection = CleanSection()
    mask: Annotated[bool | tuple[str, ...], BeforeValidator(_masks)] = False
    """Personal data and keys become marks such as <EMAIL>: the usual kinds, or those named."""

    @property
    def train_files(self) -> tuple[MixedFile, ...]:
        """The files that are trained on, with their weights."""
        if isinstance(self.train, str):
            return (MixedFile(file=self.train),)
        return tuple(self.train)

    @property
    def eval_files(self) -> dict[str, str]:
        """The evaluation files by the names of their sets; the empty name for one without."""
        if self.eval is None:
            return {}
        return {"": self.eval} if isinstance(self.eval, str) else dict(self.eval)

    @property
    def shares(self) -> tuple[int, int, int]:
        """Of `train`: for training, for evaluation where no file is given for it, for neither."""
        train, evaluation, test = (int(share) for share in self.split.split(":"))
        return train, 0 if self.eval_files else evaluation, test

    @property
    def reading(self) -> dict[str, Any]:
        """How rows are read, as `profiles.data.dataset` takes it."""
        keys = ("format", "on_bad", "encoding", "columns")
        masks = self.mask if isinstance(self.mask, tuple) else personal.USUAL if self.mask else ()
        return {
            **{key: getattr(self, key) for key in keys},
            "clean": tuple(name for name, is_wanted in self.clean if is_wanted),
            "mask": masks,
        }

    @property
    def files(self) -> dict[str, str]:
        """All files of the table by key, such as "data.train.0.file", "data.eval.general"."""
        keys = {name: f"data.eval.{name}" if name else "data.eval" for name in self.eval_files}
        held_out = {keys[name]: file for name, file in self.eval_files.items()}
        is_file = self.chat_template.endswith(chat_families.SUFFIX)
        template = {"data.chat_template": self.chat_template} if is_file else {}
        trained = {f"data.train.{n}.file": one.file for n, one in enumerate(self.train_files)}
        if isinstance(self.train, str):
            trained = {"data.train": self.train}
        return {**trained, **held_out, **template}


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
    return Literal[about.choices] if about.choices else type(default)


def _bounds(about: Key) -> dict[str, Any]:
    found = {"ge": about.ge, "le": about.le, "lt": about.lt, "description": about.doc}
    return {name: value for name, value in found.items() if value is not None}


def _choice_or_names(choices: tuple[str, ...]) -> Callable[[Any], Any]:
    """One of the words, or a list of names."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and value in choices:
            return value
        if isinstance(value, list | tuple) and value and all(_is_name(one) for one in value):
            return tuple(value)
        words = ", ".join(f'"{word}"' for word in choices)
        raise ValueError(f"must be {words} or a list of names")

    return check


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier()


class TrainSection(Section):
    """[train]: how it learns."""

    epochs: float = Field(default=1.0, gt=0, le=1000)
    max_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Optimizer steps; takes precedence over epochs."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Default: the method's own, such as 2e-4 for LoRA and 1e-5 for full fine-tuning."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps."""
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
    workers: int = Field(default=0, ge=0, le=64)
    """Processes that prepare batches; 0: the training process itself."""
    eval_every: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Steps; default: five times in a run."""
    save_every: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Steps; default: five times in a run."""
    log_every: int = Field(default=1, ge=1, le=MOST_STEPS)
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
