"""The recipe: everything a run needs, as TOML that people read, keep and share.

The schema is closed: an unknown key is an error with the nearest known one, and all errors are
told at once, each with its line. A recipe is data; it names no code, no command and no output
path. Reading and writing the file is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Literal, Union

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from advisor import recipe_adapters, recipe_conflicts, recipe_errors
from advisor.framework import OURS, Framework
from advisor.plan import Plan
from advisor.plan_conflicts import unstartable
from advisor.recipe_data import DataSection
from advisor.recipe_sections import (
    HardwareSection,
    MethodSection,
    ModelSection,
    PlanSection,
    Section,
    TrainSection,
    known,
    method_section,
    objective_section,
)
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS
from advisor.registry.optimizers import ADAMW
from advisor.registry.spec import MethodSpec, Rate, keys_of
from advisor.registry.task_spec import TaskSpec
from advisor.registry.tasks import SFT
from profiles import toml_text
from profiles.data import formats
from profiles.errors import ExitCode, UserError

SCHEMA = 1
MAX_BYTES = 1_000_000
"""A recipe is a page of text; what is longer is something else, or meant to do harm."""
_MOST_PROBLEMS = 50
"""Told at once: who has more needs no list of them."""


class Recipe(BaseModel):
    """A whole recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1, max_length=80, pattern=r"^\w[\w .+-]*$")
    task: Annotated[str, *known(TASKS.names, TASKS.kind)] = SFT.name
    model: ModelSection
    data: DataSection
    method: MethodSection
    objective: Section = Section()
    train: TrainSection = TrainSection()
    hardware: HardwareSection = HardwareSection()
    plan: PlanSection = PlanSection()

    @property
    def learning_rate(self) -> float:
        """The learning rate asked for, or the method's default for task and optimizer."""
        return self.train.learning_rate or self.default_rate

    @property
    def default_rate(self) -> float:
        """Where method, task and optimizer start if nobody says otherwise."""
        return _default_rate(self.method.name, self.task, self.train.optimizer)

    @property
    def goal(self) -> Any:
        """The task's settings, as its frozen dataclass takes them."""
        kind = TASKS[self.task].objective
        given = self.objective.model_dump(exclude_none=True)
        return kind(**{name: given[name] for name in keys_of(kind) if name in given})

    def to_plan(self, framework: Framework, seq_len: int | None = None) -> Plan:
        """The part that memory and speed depend on, as it is on a machine.

        `framework`: how our runner computes there; `seq_len`: the longest row, where it is known.
        """
        return Plan(
            method=self.method.spec,
            settings=self.method.settings,
            task=TASKS[self.task],
            seq_len=min(seq_len or self.data.max_length, self.data.max_length),
            micro_batch=self.train.micro_batch,
            accumulation=self.train.accumulation,
            optimizer=OPTIMIZERS[self.train.optimizer],
            precision=self.train.precision,
            checkpointing=self.train.checkpointing,
            loss=self.train.loss,
            packing=self.data.packing,
            engine=ENGINES[self.hardware.strategy],
            num_gpus=self.hardware.gpus,
            num_new_tokens=len(self.model.new_tokens),
            shifted_attention=self.train.shifted_attention,
            label_smoothing=getattr(self.goal, "label_smoothing", 0.0),
            framework=framework,
        )

    def to_toml(self) -> str:
        """The recipe as TOML text; values that were never set are left out."""
        content = self.model_dump(by_alias=True, exclude_none=True, mode="json")
        method = {key: value for key, value in content["method"].items() if value not in ([], {})}
        content["method"] = {"name": self.method.name} | method
        if content["plan"] == {"path": []}:
            del content["plan"]
        if not content["objective"]:
            del content["objective"]
        for key in ("new_tokens", "adapters"):
            if not content["model"][key]:
                del content["model"][key]
        for key in ("clean", "mask"):
            if getattr(self.data, key) == DataSection.model_fields[key].default:
                del content["data"][key]
        return tomli_w.dumps(content, multiline_strings=False)


def schema() -> type[Recipe]:
    """The recipe with a table for each method of the registry, and the settings of its tasks."""
    return _schema(tuple(METHODS), tuple(TASKS))


@lru_cache(maxsize=8)
def _schema(methods: tuple[MethodSpec, ...], tasks: tuple[TaskSpec, ...]) -> type[Recipe]:
    sections = tuple(method_section(method) for method in methods)
    method: Any = Annotated[Union[sections], Field(discriminator="name")]  # noqa: UP007  # of a tuple
    goal: Any = objective_section(tasks)
    return create_model("Recipe", __base__=Recipe, method=(method, ...), objective=(goal, goal()))


def parse(text: str, *, where: str) -> Recipe:
    """Read a recipe; UserError (BAD_RECIPE) names every mistake with its line."""
    try:
        content = toml_text.parse(text)
    except ValueError as error:
        raise recipe_errors.refusal([f"not TOML: {error}"], where) from error
    return validate(content, where=where, text=text)


def is_recipe(text: str) -> bool:
    """Whether a text was written as a recipe, sound or not: it has all that each must have."""
    try:
        content = toml_text.parse(text)
    except ValueError:
        return False
    fields = Recipe.model_fields.items()
    return {field.alias or name for name, field in fields if field.is_required()} <= set(content)


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
    model = schema()
    try:
        found = model.model_validate(content)
    except ValidationError as error:
        errors = [dict(e) for e in error.errors(include_url=False)]
        problems = [recipe_errors.describe(e, text, model) for e in errors[:_MOST_PROBLEMS]]
        raise recipe_errors.refusal(problems, where, number=len(errors)) from error
    if problems := [recipe_errors.at(key, text) + what for key, what in _refused(found)]:
        raise recipe_errors.refusal(problems, where)
    return found


def _refused(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, why) of what is known and cannot be started, alone or together."""
    plan = recipe.to_plan(OURS)  # where it runs makes no difference to what goes together
    yield from unstartable(plan)
    yield from recipe_conflicts.of_own_keys(recipe.method, recipe.train)
    yield from recipe_adapters.refused(recipe.model, plan)
    yield from recipe_conflicts.of_positions(recipe.model)
    yield from recipe_conflicts.of_groups(recipe.train, recipe.data)
    yield from recipe_conflicts.beside_the_task(
        plan.task, recipe.objective, recipe.data, recipe.train
    )
    yield from recipe_conflicts.of_schedule(recipe.train, recipe.data)
    if plan.optimizer.steps_in_backward:
        yield from recipe_conflicts.in_backward(recipe.train, plan.optimizer.title)
    chosen = formats.by_name(recipe.data.format) if recipe.data.format else None
    if chosen and not chosen.serves(plan.task.learns_from):
        can_be = ", ".join(formats.names(plan.task.learns_from))
        yield "data.format", f"{chosen.name} is not for {recipe.task}; that learns from {can_be}"


def with_changes(text: str, changes: dict[str, str], *, where: str) -> Recipe:
    """The recipe with dotted keys set (`--set train.epochs=1`); values are TOML or bare text."""
    content = toml_text.parse(text)
    for dotted, value in changes.items():
        *tables, key = dotted.split(".")
        table = content
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise recipe_errors.refusal([f"--set {dotted}: `{name}` is no table"], where)
        table[key] = _toml_value(value)
    _leave_behind(content, changes, old=toml_text.parse(text))
    return validate(content, where=f"{where} with --set", text="")


def _default_rate(method: str, task: str, optimizer: str) -> float:
    of_adamw = Rate(TASKS[task].rate(METHODS[method].default_rate), "")
    return OPTIMIZERS[optimizer].rate(of_adamw).value


def _leave_behind(content: dict[str, Any], changes: dict[str, str], *, old: dict[str, Any]) -> None:
    """A changed method, task or optimizer takes its keys and its default learning rate with it."""
    method, before = content.get("method"), old.get("method", {})
    if not isinstance(method, dict):  # `--set method=...` besides: the schema says what is wrong
        return
    (name, task, _), (was, did, _) = new, previous = _chosen(content), _chosen(old)
    if name != was and name in METHODS:
        for key in set(before) - {"name", *keys_of(METHODS[name].settings)}:
            method.pop(key, None)
    if task != did and task in TASKS:
        goal = content.get("objective")
        for key in set(old.get("objective", {})) - set(keys_of(TASKS[task].objective)):
            if isinstance(goal, dict):
                goal.pop(key, None)
    train = content.get("train")
    if new == previous or "train.learning_rate" in changes or not isinstance(train, dict):
        return
    if was not in METHODS or did not in TASKS or previous[2] not in OPTIMIZERS:
        return
    if train.get("learning_rate") == _default_rate(*previous):
        del train["learning_rate"]


def _chosen(content: dict[str, Any]) -> tuple[str, str, str]:
    """Names of method, task and optimizer, whatever else stands in their place."""
    method, train = (content.get(table) for table in ("method", "train"))
    return (
        str(method.get("name") if isinstance(method, dict) else None),
        str(content.get("task", SFT.name)),
        str(train.get("optimizer", ADAMW.name) if isinstance(train, dict) else ADAMW.name),
    )


def _toml_value(text: str) -> Any:
    try:
        return toml_text.parse(f"value = {text}")["value"]
    except ValueError:
        return text
