"""What a recipe asks for that does not go together, beside what its plan says: each with its key.

Of a plan's own that is `plan_conflicts`, of a model `runner.checks`.
"""

from __future__ import annotations

from collections.abc import Iterator

from advisor.graph.attention import GROUPS
from advisor.recipe_data import DataSection
from advisor.recipe_sections import MethodSection, ModelSection, Section, TrainSection
from advisor.registry.lookup import OPTIMIZERS, SCHEDULES, TASKS
from advisor.registry.schedules import CONSTANT
from advisor.registry.spec import keys_of
from advisor.registry.task_spec import TaskSpec


def of_own_keys(method: MethodSection, train: TrainSection) -> Iterator[tuple[str, str]]:
    """(key, why) of what does not go together among a method's own settings, or with the steps."""
    settings, num_steps = method.settings, train.max_steps
    faults = [(f"method.{fault.key}", fault.why) for fault in settings.faults()]
    yield from faults
    if num_steps and not faults and (why := settings.too_short(num_steps)):
        yield "train.max_steps", why


def of_positions(asked: ModelSection) -> Iterator[tuple[str, str]]:
    """(key, why) of a scale without a kind, and of a kind without a scale."""
    if (asked.rope_type is None) != (asked.rope_factor is None):
        has, lacks = ("rope_type", "rope_factor = 4.0")
        if asked.rope_type is None:
            has, lacks = ("rope_factor", 'rope_type = "yarn"')
        yield f"model.{has}", f"it takes both: write model.{lacks} beside it, or leave it out"


def of_groups(train: TrainSection, data: DataSection) -> Iterator[tuple[str, str]]:
    """(key, why) of rows that cannot be divided into groups, and those into halves."""
    parts = 2 * GROUPS
    if train.shifted_attention and data.max_length % parts:
        why = f"{GROUPS} groups of rows, and halves of them, need a length that {parts} divides"
        instead = max(parts, data.max_length // parts * parts)
        yield "data.max_length", f"{why}: write data.max_length = {instead}"


def beside_the_task(
    task: TaskSpec, objective: Section, data: DataSection, train: TrainSection
) -> Iterator[tuple[str, str]]:
    """(key, why) of what the recipe asks for and its task has no use for."""
    for name in objective.model_dump(exclude_none=True):
        if name not in keys_of(task.objective):
            having = [one.name for one in TASKS if name in keys_of(one.objective)]
            have = f"{', '.join(having)} {'has' if len(having) == 1 else 'have'} it"
            yield f"objective.{name}", f"{task.name} has no such setting; {have}: leave it out"
    if data.packing and not task.packs:
        yield "data.packing", f"rows of {task.name} cannot be packed; leave it out"
    if data.learn != "all" and not task.chooses_replies:
        yield "data.learn", f"{task.name} learns from the last reply alone; leave it out"
    if train.loss != "chunked" and task.head != "lm":
        yield "train.loss", f"{task.name} takes no loss over the vocabulary; leave it out"
    if train.micro_batch < task.least_micro_batch:
        least = task.least_micro_batch
        why = f"{task.name} compares rows: write train.micro_batch = {least} or more"
        yield "train.micro_batch", why


def of_schedule(train: TrainSection, data: DataSection) -> Iterator[tuple[str, str]]:
    """(key, why) of a schedule that has nothing to go by, or that another thing stands in for."""
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


def in_backward(train: TrainSection, title: str) -> Iterator[tuple[str, str]]:
    """(key, why) of what cannot be asked of an optimizer that steps inside of backward."""
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
