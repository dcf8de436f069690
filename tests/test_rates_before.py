"""What is told before a run of learning rates that it would never have, or that are another's."""

from __future__ import annotations

import pytest

from advisor import recipe as recipes
from runner.checks import rates

RECIPE = """schema = 1
name = "a"
[model]
id = "m"
[data]
train = "d.jsonl"
[method]
name = "full"
[train]
micro_batch = 2
accumulation = 5
"""


def told(lines, num_rows=200):
    """Of a run with ten rows a step."""
    return rates.warnings(recipes.parse(RECIPE + lines, where="r"), num_rows)


@pytest.mark.parametrize(
    ("lines", "steps"),
    [("warmup = 20", 20), ("warmup = 50\nepochs = 2.0", 40), ("warmup = 21", 20)],
)
def test_a_warm_up_that_outlasts_the_run_is_told(lines, steps):
    """With the steps that there are; both are counted, and none is refused."""
    (words,) = told(lines)

    assert f"the run makes {steps}" in words
    assert "never gets to 1e-05" in words


@pytest.mark.parametrize("lines", ["warmup = 19", "warmup = 0.9", "warmup = 30\nepochs = 2.0"])
def test_a_warm_up_that_ends_in_time_is_not_told(lines):
    """Nor a share."""
    assert told(lines) == []


def test_the_rate_of_another_optimizer_is_told():
    """SGD's is a hundred times AdamW's, Lion's a fifth; what is near is a choice."""
    (words,) = told('optimizer = "sgd"\nlearning_rate = 1e-5')
    assert "far from where SGD with momentum starts, 0.001" in words
    assert told('optimizer = "lion"\nlearning_rate = 1e-5')
    assert told('optimizer = "lion"\nlearning_rate = 4e-6') == []
    assert told('optimizer = "sgd"') == []
    assert told("learning_rate = 1e-3") == []  # AdamW's own range is the method's matter


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [("adamw", 1e-5), ("lion", 2e-6), ("sgd", 1e-3), ("galore", 4e-5), ("apollo", 1e-5)],
)
def test_each_optimizer_starts_at_a_rate_of_its_own(optimizer, rate):
    """Of full fine-tuning; changed with the optimizer, and left as it is where it was chosen."""
    parsed = recipes.parse(RECIPE + f'optimizer = "{optimizer}"', where="r")
    given = {"train.optimizer": f'"{optimizer}"'}
    written = recipes.with_changes(RECIPE + "learning_rate = 1e-5", given, where="r")
    chosen = recipes.with_changes(RECIPE + "learning_rate = 7e-5", given, where="r")

    assert parsed.learning_rate == pytest.approx(rate)
    assert written.learning_rate == pytest.approx(rate)
    assert chosen.learning_rate == 7e-5
