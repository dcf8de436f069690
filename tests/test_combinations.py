"""Whatever is put together in a recipe can be trained, or is refused with a way out that works."""

from __future__ import annotations

import re

import combinations
import pytest
from known import model

from advisor import recipe as recipes
from advisor.cost import memory
from advisor.framework import OURS
from advisor.registry.lookup import unfit
from profiles.errors import ExitCode, UserError

TOLD = re.compile(r"(?:line \d+: )?`([\w.]+)`: (.*)")
WAY_OUT = re.compile(
    r'(?:take|write) ([a-z_.]+) = ("\w+"|[\w.]+)(?: and ([a-z_.]+) = ("\w+"|[\w.]+))?'
)
MOST_REFUSALS = 8
SOME = 37
"""Of so many combinations `make test` takes one; `make long` takes all."""
MODELS = (model("qwen2.5-0.5b"), model("olmoe-1b-7b"), model("gpt2"))
ENCODER = model("gpt2", model_type="bert", is_encoder=True)
ALL = combinations.drawn()
PARTS = [ALL[n::SOME] for n in range(SOME)]


def mistakes_of(text, changes):
    """[(key, why)] of a recipe; none if it is sound."""
    try:
        recipes.with_changes(text, changes, where="r")
    except UserError as error:
        told = error
    else:
        return []
    assert told.code == ExitCode.BAD_RECIPE
    return [TOLD.fullmatch(line).groups() for line in told.why.splitlines()]


def following(text, changes, key, why):
    """The recipe as the way out has it, with `--set` or with a line taken out."""
    if "leave it out" in why:
        return combinations.without(text, key), {k: v for k, v in changes.items() if k != key}
    way = WAY_OUT.search(why)
    assert way, f"`{key}`: {why}"
    first, value, second, other = way.groups()
    assert first.split(".")[0] == key.split(".")[0], f"told at `{key}`: {why}"
    return text, changes | {first: value} | ({second: other} if second else {})


def led_to(text):
    """The sound recipe that the ways out lead to."""
    changes, seen = {}, []
    while mistakes := mistakes_of(text, changes):
        for key, why in mistakes:
            assert key in changes or combinations.has(text, key), f"no `{key}` is there: {why}"
            following(text, changes, key, why)
        assert mistakes[0] not in seen, seen
        seen.append(mistakes[0])
        assert len(seen) <= MOST_REFUSALS, seen
        text, changes = following(text, changes, *mistakes[0])
    return recipes.with_changes(text, changes, where="r")


def check(some):
    """Each of them runs, or its ways out lead to one that does; which can then be weighed."""
    for chosen in some:
        plan = led_to(combinations.recipe_of(chosen)).to_plan(OURS)
        for known in (*MODELS, ENCODER):
            if not unfit(plan.task, known) and not plan.method.unsupported(known, plan.settings):
                assert memory.estimate(known, plan).expected_bytes > 0, chosen


def test_every_pair_of_choices_is_tried():
    """Of methods with their settings, optimizers, tasks, strategies and the rest."""
    assert len(ALL) >= 3000
    assert not combinations.missing_pairs(ALL)


@pytest.mark.parametrize(
    "part", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, SOME))]
)
def test_it_runs_or_the_way_out_that_is_told_does(part):
    """The key that is named stands in the recipe; nothing is told twice."""
    check(PARTS[part])
