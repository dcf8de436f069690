"""The recipe: everything a run needs, as TOML that people read, keep and share.

The schema is closed: an unknown key is an error with the nearest known one, and all errors are
told at once, each with its line. A recipe is data; it names no code, no command and no output
path. Reading and writing the file is the caller's business.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from advisor.path_syntax import InputPath
from advisor.plan import ALL_TARGETS, ATTENTION_TARGETS, LEARNING_RATES, Plan
from profiles.errors import ExitCode, UserError

SCHEMA = 1
MAX_BYTES = 1_000_000
"""A recipe is a page of text; what is longer is something else, or meant to do harm."""
MOST_STEPS = 10**9
_SHOWN_CHARS = 100
TARGET_GROUPS = {"all": ALL_TARGETS, "attention": ATTENTION_TARGETS}


class Section(BaseModel):
    """A table of the recipe: closed, immutable, strictly typed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ModelSection(Section):
    """[model]: what is fine-tuned."""

    id: InputPath
    """Local folder with config.json, safetensors and tokenizer; relative to the recipe."""


class DataSection(Section):
    """[data]: what it learns from."""

    train: InputPath
    """File, relative to the recipe."""
    eval: InputPath | None = None
    """File for evaluation; without it a part of `train` is split off."""
    format: Literal["alpaca", "sharegpt", "messages", "prompt_completion", "text"] | None = None
    """Found out from the rows if not given."""
    max_length: int = Field(default=1024, ge=8, le=1 << 20)
    """Tokens; longer rows are cut."""
    packing: bool = False
    """Fill every row up to max_length with several examples."""
    split: str = Field(default="8:1:1", pattern=r"^[1-9]\d{0,3}:\d{1,4}:\d{1,4}$")
    """Train : eval : test, drawn with `train.seed`; exact duplicates stay on one side."""
    on_bad: Literal["error", "skip"] = "error"
    chat_template: Literal["model", "chatml", "plain"] = "model"
    """`model`: the tokenizer's own; the others are for base models that have none."""


class _Adapter(Section):
    rank: int = Field(default=16, ge=1, le=1024)
    alpha: int = Field(default=32, ge=1, le=4096)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all", "attention"] = "all"


class LoraMethod(_Adapter):
    """[method] name = "lora": low-rank adapters beside frozen 16-bit weights."""

    name: Literal["lora"] = "lora"


class QloraMethod(_Adapter):
    """[method] name = "qlora": low-rank adapters beside NF4 weights with double quantization."""

    name: Literal["qlora"] = "qlora"
    bits: Literal[4] = 4


class FullMethod(Section):
    """[method] name = "full": every weight is trained."""

    name: Literal["full"] = "full"


Method = Annotated[LoraMethod | QloraMethod | FullMethod, Field(discriminator="name")]
_METHODS: dict[str, Any] = {m().name: m for m in get_args(get_args(Method)[0])}
METHOD_NAMES = tuple(_METHODS)


class TrainSection(Section):
    """[train]: how it learns."""

    epochs: float = Field(default=1.0, gt=0, le=1000)
    max_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    """Optimizer steps; takes precedence over epochs."""
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    """Default: 2e-4 for adapters, 1e-5 for full fine-tuning."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    micro_batch: int = Field(default=1, ge=1, le=4096)
    """Rows per device and forward pass."""
    accumulation: int = Field(default=1, ge=1, le=4096)
    """Forward passes per optimizer step."""
    precision: Literal["bf16", "fp16", "bf16_pure", "fp32"] = "bf16"
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
    on_spike: Literal["warn", "pause", "stop"] = "warn"
    """What to do when the loss stays above twice its average."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class HardwareSection(Section):
    """[hardware]: on how many devices, and how they share the work."""

    strategy: Literal["single", "ddp", "fsdp"] = "single"
    gpus: int = Field(default=1, ge=1, le=1024)

    @model_validator(mode="after")
    def _single_is_one(self) -> HardwareSection:
        if (self.strategy == "single") != (self.gpus == 1):
            raise ValueError('strategy "single" goes with gpus = 1, "ddp" and "fsdp" with more')
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


class Recipe(BaseModel):
    """A whole recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1, max_length=80, pattern=r"^\w[\w .+-]*$")
    task: Literal["sft"] = "sft"
    model: ModelSection
    data: DataSection
    method: Method
    train: TrainSection = TrainSection()
    hardware: HardwareSection = HardwareSection()
    plan: PlanSection = PlanSection()

    @property
    def learning_rate(self) -> float:
        """The learning rate asked for, or the method's default."""
        return self.train.learning_rate or LEARNING_RATES[self.method.name]

    def to_plan(self, seq_len: int | None = None) -> Plan:
        """The part that memory and speed depend on; `seq_len` if rows are shorter than the cap."""
        method = self.method
        adapter: dict[str, Any] = {}
        if not isinstance(method, FullMethod):
            adapter = {
                "rank": method.rank,
                "alpha": method.alpha,
                "dropout": method.dropout,
                "targets": TARGET_GROUPS[method.targets],
            }
        return Plan(
            method=method.name,
            seq_len=min(seq_len or self.data.max_length, self.data.max_length),
            micro_batch=self.train.micro_batch,
            accumulation=self.train.accumulation,
            optimizer=self.train.optimizer,
            precision=self.train.precision,
            checkpointing=self.train.checkpointing,
            loss=self.train.loss,
            packing=self.data.packing,
            strategy=self.hardware.strategy,
            num_gpus=self.hardware.gpus,
            **adapter,
        )

    def to_toml(self) -> str:
        """The recipe as TOML text; values that were never set are left out."""
        content = self.model_dump(by_alias=True, exclude_none=True, mode="json")
        content["method"] = {"name": self.method.name} | content["method"]
        if content["plan"] == {"path": []}:
            del content["plan"]
        return tomli_w.dumps(content, multiline_strings=False)


def parse(text: str, *, where: str) -> Recipe:
    """Read a recipe; UserError (BAD_RECIPE) names every mistake with its line."""
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number with thousands of digits
        raise _bad([f"not TOML: {error}"], where) from error
    except RecursionError as error:
        raise _bad(["not TOML: nested too deeply"], where) from error
    return validate(content, where=where, text=text)


def validate(content: dict[str, Any], *, where: str, text: str = "") -> Recipe:
    """A recipe from its parsed content; `text` gives the line numbers."""
    version = content.get("schema")
    if isinstance(version, int) and version > SCHEMA:
        raise UserError(
            f"recipe schema {version}, this version reads up to {SCHEMA}",
            why="the recipe was written for a newer tunedeck",
            do="upgrade tunedeck",
            where=where,
            code=ExitCode.NEWER_SCHEMA,
        )
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = [_describe(dict(e), text) for e in error.errors(include_url=False)]
        raise _bad(problems, where) from error


def _bad(problems: list[str], where: str) -> UserError:
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return UserError(
        f"the recipe has {count}",
        why="\n".join(problems),
        do="correct it; `advisor recipe check` reads it again without starting anything",
        where=where,
        code=ExitCode.BAD_RECIPE,
    )


def _describe(error: dict[str, Any], text: str) -> str:
    # A discriminated union puts the chosen member into the location: method.lora.rank
    parts = [str(p) for p in error["loc"]]
    if len(parts) > 1 and parts[0] == "method" and parts[1] in METHOD_NAMES:
        del parts[1]
    place = _line_of(parts, text)
    name = ".".join(parts)
    if error["type"] == "extra_forbidden":
        return f"{place}unknown key `{name}`{_did_you_mean(parts, error)}"
    if error["type"] == "missing":
        return f"{place}missing key `{name}`"
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"{place}`method.name` must be one of {', '.join(METHOD_NAMES)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    shown = f", found {_short(error['input'])}" if not isinstance(error["input"], dict) else ""
    return f"{place}`{name}`: {message[:1].lower()}{message[1:]}{shown}"


def _short(value: object) -> str:
    text = repr(value[:_SHOWN_CHARS] if isinstance(value, str) else value)
    return text if len(text) <= 2 * _SHOWN_CHARS else f"{text[: 2 * _SHOWN_CHARS]}..."


def _did_you_mean(parts: list[str], error: dict[str, Any]) -> str:
    if len(parts) == 1:
        known = [f.alias or n for n, f in Recipe.model_fields.items()]
    elif parts[0] == "method":
        known = list(_METHODS[str(error["loc"][1])].model_fields)
    else:
        section = Recipe.model_fields[parts[0]].annotation
        known = list(section.model_fields) if isinstance(section, type) else []
    near = difflib.get_close_matches(parts[-1], known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; known keys: {', '.join(known)}"


def _line_of(parts: list[str], text: str) -> str:
    """Like "line N: " of the key, if the text says where it is."""
    for number, table, key in _keys(text):
        if [*table, key] == parts[: len(table) + 1]:
            return f"line {number}: "
    header = re.search(rf"^\[{re.escape('.'.join(parts[:-1]))}\]", text, re.MULTILINE)
    return f"line {text[: header.start()].count(chr(10)) + 1}: " if header and parts[:-1] else ""


def _keys(text: str) -> Iterator[tuple[int, list[str], str]]:
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.-]+)\]", line):
            table = header[1].split(".")
        elif key := re.match(r"\s*([\w-]+)\s*=", line):
            yield number, table, key[1]


def with_changes(text: str, changes: dict[str, str], *, where: str) -> Recipe:
    """The recipe with dotted keys set (`--set train.epochs=1`); values are TOML or bare text."""
    content = tomllib.loads(text)
    for dotted, value in changes.items():
        *tables, key = dotted.split(".")
        table = content
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise _bad([f"--set {dotted}: `{name}` is no table"], where)
        table[key] = _toml_value(value)
    if "method.name" in changes:
        _leave_method(content, changes, old=tomllib.loads(text))
    return validate(content, where=f"{where} with --set", text="")


def _leave_method(content: dict[str, Any], changes: dict[str, str], *, old: dict[str, Any]) -> None:
    """A changed method takes the old one's own keys and default learning rate with it."""
    method, before = content["method"], old.get("method", {})
    if (chosen := _METHODS.get(str(method.get("name")))) is not None:
        for key in set(before) - set(chosen.model_fields):
            method.pop(key, None)
    train = content.get("train")
    default = LEARNING_RATES.get(str(before.get("name")))
    if not isinstance(train, dict) or "train.learning_rate" in changes:
        return
    if default is not None and train.get("learning_rate") == default:
        del train["learning_rate"]


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
