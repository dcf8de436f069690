"""APOLLO, which is ours: a matrix goes along its gradient, as far as the projected states tell."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
from runner.optimizers import apollo  # noqa: E402

ASKED = SimpleNamespace(rate=0.1, betas=(0.9, 0.999), eps=0.0)
ROWS, COLUMNS, RANK = 4, 7, 3


def made(weight, **group):
    """The optimizer of one matrix."""
    settings = {"params": [weight], "rank": RANK, "weight_decay": 0.0} | group
    return apollo.Apollo([settings], ASKED)


def step(optimizer, weight, gradient):
    """What one step takes off the weight, in learning rates."""
    before = weight.detach().clone()
    weight.grad = gradient.clone()
    optimizer.step()
    return (before - weight.detach()) / ASKED.rate


@pytest.mark.parametrize("is_tall", [False, True])
@pytest.mark.parametrize(("tensorwise", "scale"), [(False, 1.0), (True, 128.0), (False, 4.0)])
def test_the_first_step_is_as_long_as_adamw_s_of_the_projection(is_tall, tensorwise, scale):
    """Whose entries are signs: sqrt(rank) long in a column, whichever side is the longer one."""
    torch.manual_seed(0)
    wide = torch.randn(ROWS, COLUMNS)
    gradient = wide.T if is_tall else wide
    weight = torch.nn.Parameter(torch.zeros_like(gradient))

    found = step(made(weight, tensorwise=tensorwise, scale=scale), weight, gradient)

    low = apollo._projection(wide, RANK, 1, 0) @ wide
    lengths = low.norm() if tensorwise else low.norm(dim=0)
    signs = math.sqrt(RANK * COLUMNS) if tensorwise else math.sqrt(RANK)
    expected = wide * signs / lengths * math.sqrt(scale)
    assert torch.allclose(found, expected.T if is_tall else expected, rtol=1e-4)


def test_an_update_grows_by_a_hundredth_at_most():
    """Gradients of another direction make AdamW's steps longer at once."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(ROWS, COLUMNS))
    optimizer = made(weight)
    lengths = [
        float(step(optimizer, weight, torch.randn(ROWS, COLUMNS) * 10**n).norm()) for n in range(4)
    ]

    assert all(late <= 1.0101 * early for early, late in pairwise(lengths))


def test_another_projection_is_drawn_after_so_many_steps_and_for_each_matrix():
    """And the same one in between."""
    wide = torch.zeros(ROWS, COLUMNS)
    first = apollo._projection(wide, RANK, 1, 0)

    assert torch.equal(first, apollo._projection(wide, RANK, 1, 0))
    assert not torch.equal(first, apollo._projection(wide, RANK, 1, 1))
    assert not torch.equal(first, apollo._projection(wide, RANK, 2, 0))


def test_a_weight_without_projection_is_adamw_s():
    """To the last but one digit, with its decay."""
    torch.manual_seed(0)
    start = torch.randn(5)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    adamw = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.3, eps=1e-30)
    optimizer = made(ours, rank=0, weight_decay=0.3)
    for _ in range(5):
        theirs.grad = torch.randn(5)
        step(optimizer, ours, theirs.grad)
        adamw.step()

    assert torch.allclose(ours, theirs, rtol=1e-5)
