"""Rate and decay of an optimizer as the recipe has them, over what a checkpoint brings back.

The states of an optimizer and of a schedule hold the learning rate and the weight decay that they
were saved with (`torch.optim.Optimizer.load_state_dict`, `LRScheduler.load_state_dict`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def of_the_recipe(optimizer: Any, scheduler: Any) -> Iterator[None]:
    """Inside, states are loaded; after it, rates and decays are those from before.

    For an optimizer with a `LambdaLR`, as every schedule of a recipe is one: the rate of a group is
    its initial one times the schedule's share of it at the step that was loaded.
    """
    schedule = getattr(scheduler, "scheduler", scheduler)  # Accelerate wraps it
    wanted = [(group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups]
    yield
    shares = [share(schedule.last_epoch) for share in schedule.lr_lambdas]
    for group, (rate, decay), share in zip(optimizer.param_groups, wanted, shares, strict=True):
        group["initial_lr"], group["weight_decay"], group["lr"] = rate, decay, rate * share
    schedule.base_lrs = [rate for rate, _ in wanted]
    schedule._last_lr = [group["lr"] for group in optimizer.param_groups]  # noqa: SLF001
