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

from advisor import recipe_adapters, recipe_errors
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
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, SCHEDULES, TASKS
from advisor.registry.optimizers import ADAMW
from advisor.registry.schedules import CONSTANT
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
    yield from _of_own_keys(recipe)
    yield from recipe_adapters.refused(recipe.model, plan)
    yield from _beside_the_task(recipe, plan.task)
    yield from _of_schedule(recipe)
    if plan.optimizer.steps_in_backward:
        yield from _in_backward(recipe, plan.optimizer.title)
    chosen = formats.by_name(recipe.data.format) if recipe.data.format else None
    if chosen and not chosen.serves(plan.task.learns_from):
        can_be = ", ".join(formats.names(plan.task.learns_from))
        yield "data.format", f"{chosen.name} is not for {recipe.task}; that learns from {can_be}"


def _of_own_keys(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, why) of what does not go together among a method's own settings, or with the steps."""
    settings, num_steps = recipe.method.settings, recipe.train.max_steps
    faults = [(f"method.{fault.key}", fault.why) for fault in settings.faults()]
    yield from faults
    if num_steps and not faults and (why := settings.too_short(num_steps)):
        yield "train.max_steps", why


def _beside_the_task(recipe: Recipe, task: TaskSpec) -> Iterator[tuple[str, str]]:
    """(key, why) of what the recipe asks for and its task has no use for."""
    for name in recipe.objective.model_dump(exclude_none=True):
        if name not in keys_of(task.objective):
            having = [one.name for one in TASKS if name in keys_of(one.objective)]
            have = f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} it"
            yield f"objective.{name}", f"{task.name} has no such setting; {have}: leave it out"
    if recipe.data.packing and not task.packs:
        yield "data.packing", f"rows of {task.name} cannot be packed; leave it out"
    if recipe.data.learn != "all" and not task.chooses_replies:
        yield "data.learn", f"{task.name} learns from the last reply alone; leave it out"
    if recipe.train.loss != "chunked" and task.head != "lm":
        yield "train.loss", f"{task.name} takes no loss over the vocabulary; leave it out"
    if recipe.train.micro_batch < task.least_micro_batch:
        least = task.least_micro_batch
        why = f"{task.name} compares rows: write train.micro_batch = {least} or more"
        yield "train.micro_batch", why


def _of_schedule(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(key, why) of a schedule that has nothing to go by, or that another thing stands in for."""
    train, data = recipe.train, recipe.data
    schedule, optimizer = SCHEDULES[train.scheduler], OPTIMIZERS[train.optimizer]
    if schedule.needs_evaluation and not data.eval and data.split.split(":")[1] == "0":
        why = f"{schedule.name} follows the evaluations, and there are none; name data.eval"
        yield "train.scheduler", f"{why}, or give the second part of data.split a share"
    if optimizer.own_schedule and train.scheduler != CONSTANT.name:
        why = f"{optimizer.title} averages in place of a schedule"
        yield "train.scheduler", f'{why}: write train.scheduler = "{CONSTANT.name}"'
    if train.max_steps is not None and 1 <= train.max_steps <= train.warmup:
        why = f"the run ends after {train.max_steps} steps, before the warm-up does"
        yield "train.warmup", f"{why}: write train.warmup = 0.1, a share of them"


def _in_backward(recipe: Recipe, title: str) -> Iterator[tuple[str, str]]:
    """(key, why) of what cannot be asked of an optimizer that steps inside of backward."""
    train = recipe.train
    if train.accumulation > 1:
        why = f"{title} steps in each backward pass, so nothing can be added up"
        yield (
            "train.accumulation",
            f"{why}: write train.accumulation = 1 and raise train.micro_batch",
        )
    if train.precision == "fp16":
        why = f"{title} steps before a scaled loss could be looked at"
        yield "train.precision", f'{why}: write train.precision = "bf16" or "fp32"'
    if "max_grad_norm" in train.model_fields_set:
        yield "train.max_grad_norm", f"{title} keeps no gradients to clip: leave it out"


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
