"""`advisor recommend --rehearse`: memory on the model's own code, in a process that loads torch."""

from __future__ import annotations

from dataclasses import replace

from advisor.choice import checks, wants, words
from advisor.choice.recommend import Recommendation
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine, Model
from tui import plain, rehearsal
from tui.commands.request import Request
from tui.pages import rehearsal as page
from tui.pages.recommendation import machine_text
from tui.rehearsal import Rehearsed


def of(found: Recommendation) -> Rehearsed:
    """The recommended plan rehearsed, or the recipe's where that has no rehearsal."""
    picks = [found.fit, *([found.runnable.fit] if found.runnable else [])]
    plans = [fit.plan for fit in picks if rehearsal.can_rehearse(fit.plan)]
    if not plans:
        raise UserError(
            f"{found.fit.plan.method} cannot be rehearsed",
            why="it keeps something in RAM, or no library builds it on one device",
            do="leave --rehearse out: the formula knows it",
            where="--rehearse",
            code=ExitCode.USAGE,
        )
    _say(found.model, words.RUNGS.get(plans[0].method, plans[0].method))
    return rehearsal.rehearse(found.model, plans[0], found.machine)


def unmodelled(base: Model, target: Machine, request: Request) -> int:
    """Rehearse what the runner has, where no formula holds; exit code 71 if nothing fits."""
    wishes = request.asked.wishes()
    checks.check(replace(base, unmodelled=""), target, None, wishes)
    _say(base, "every method that may fit")
    tried = list(rehearsal.try_all(base, target, wants.seq_len(base, None, wishes)))
    if request.as_json:
        from tui.pages import recommendation_json  # noqa: PLC0415

        plain.show_json(recommendation_json.unmodelled(base, target, tried))
    else:
        plain.show(page.unmodelled(base, tried, machine_text(target), plain.page_width()))
    if request.save is not None:
        plain.say("no recipe was written: a batch and a learning rate need the formula")
    return 0 if any(one.fits for one in tried) else int(ExitCode.DRIVER)


def _say(model: Model, what: str) -> None:
    plain.say(f"rehearsing {what} of {model.id}: seconds to minutes, ctrl-c gives up")
