"""Whatever is put together in a recipe can be trained, or is refused with a way out that works."""

from __future__ import annotations

import combinations
import pytest
from known import model

from advisor.cost import memory
from advisor.framework import OURS
from advisor.registry.lookup import unfit

SOME = 37
"""Of so many combinations `make test` takes one; `make long` takes all."""
MODELS = (model("qwen2.5-0.5b"), model("olmoe-1b-7b"), model("gpt2"))
ENCODER = model("gpt2", model_type="bert", is_encoder=True)
ALL = combinations.drawn()
PARTS = [ALL[n::SOME] for n in range(SOME)]


def check(some):
    """Each of them runs, or its ways out lead to one that does; which can then be weighed."""
    for chosen in some:
        plan = combinations.led_to(combinations.recipe_of(chosen)).to_plan(OURS)
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
