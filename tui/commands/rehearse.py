"""`advisor recommend --rehearse`: memory on the model's own code, in a process that loads torch."""

from __future__ import annotations

from advisor.choice.recommend import Recommendation
from profiles.errors import ExitCode
from profiles.facts import Machine, Model
from runner.rehearsal import client
from runner.rehearsal.results import Rehearsed
from tui import plain
from tui.commands.request import Request
from tui.pages import rehearsal as page
from tui.pages.recommendation import machine_text


def of(found: Recommendation) -> Rehearsed:
    """The recommended plan rehearsed, or the recipe's where that has no rehearsal."""
    plan = client.choose(found)
    _say(found.model, plan.method.title)
    return client.rehearse(found.model, plan, found.machine)


def unmodelled(base: Model, target: Machine, request: Request, *, aside: bool) -> int:
    """Rehearse what the runner has, where no formula holds; exit code 71 if nothing fits."""
    plans = client.least_plans(base, target, request.asked.answers())
    _say(base, "every method that may fit")
    tried = [client.attempt(base, plan, target) for plan in plans]
    if request.as_json:
        from tui.pages import recommendation_json  # noqa: PLC0415

        plain.show_json(recommendation_json.unmodelled(base, target, tried))
    else:
        lines = page.unmodelled(base, tried, machine_text(target), plain.page_width())
        plain.show(lines, aside=aside)
    if request.save is not None:
        plain.say("no recipe was written: a batch and a learning rate need the formula")
    return 0 if any(one.fits for one in tried) else int(ExitCode.DRIVER)


def _say(model: Model, what: str) -> None:
    plain.say(f"rehearsing {what} of {model.id}: seconds to minutes, ctrl-c gives up")
