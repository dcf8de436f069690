"""Every method as a row beside the chosen one: what it costs, why not, what would unlock it."""

from __future__ import annotations

from dataclasses import dataclass

from advisor.choice import defaults, words
from advisor.choice.duration import usual
from advisor.choice.fallback import obstructed_above
from advisor.choice.fit import Fit
from advisor.choice.options import Options
from advisor.choice.tree import Leaf
from advisor.choice.unlock import Unlock
from advisor.plan import Plan
from advisor.registry.lookup import preset_of
from profiles.facts import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One rung on this machine."""

    rung: str
    fit: Fit
    least: Fit
    """With the fewest rows at a time and activations recomputed, over the same devices."""
    hours: float | None
    why_not: str
    """Why it was not chosen; empty for the chosen one."""
    unlocks: tuple[Unlock, ...]
    """What would make it possible, each tried on the estimate; none if it fits."""
    possible: bool
    """It can be had: its high estimate fits, and so do RAM and disk."""
    runs: bool
    """Our runner can run this fit today."""
    is_above: bool
    """The rung of which `Recommendation.above` tells why it was not taken."""

    @property
    def fits(self) -> bool:
        """Its high estimate fits."""
        return self.fit.fits


def alternatives(
    options: Options, chosen: str | None, leaf: Leaf, like: Plan, dataset: Dataset | None
) -> tuple[Alternative, ...]:
    """A row for each rung that makes sense; small methods are judged with the batch of `like`."""
    rows, epochs, above = [], defaults.epochs(dataset), obstructed_above(chosen, options)
    for rung in options.rungs:
        preset = preset_of(rung)
        found = options.fit_like(rung, like) if preset.like_chosen else options.fit(rung)
        ways = options.unlocks(rung, on_more=preset.place != "beside")
        obstacle = options.obstacle(rung)
        took = usual(found, options.model_of(rung), options.machine, dataset, epochs)
        reason = obstacle or words.why_not(
            rung, chosen, leaf, full_fits=not options.obstacle("full")
        )
        rows.append(
            Alternative(
                rung=rung,
                fit=found,
                least=options.least(rung),
                hours=took.hours if took else None,
                why_not="" if rung == chosen else reason,
                unlocks=ways,
                possible=not obstacle,
                runs=found.runs,
                is_above=rung == above,
            )
        )
    return tuple(rows)
