"""What the curves of a run say of the model while it trains, for whoever shows it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from profiles.errors import UserError
from profiles.layer_facts import NO_LAYERS
from profiles.run_facts import Curves
from profiles.runs import recipe_copy

if TYPE_CHECKING:
    from advisor.rules.case import Finding
    from profiles.layer_facts import Layers
    from profiles.runs.rundir import RunDir
    from profiles.runs.state import Status
    from tui.store import Series


class Symptoms:
    """Of one run; the rules are asked again when there is more of evaluations or of layers."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._seen: object = None
        self._found: tuple[Finding, ...] = ()

    def look(
        self, loss: Series, now: Status | None, layers: Layers = NO_LAYERS
    ) -> tuple[Finding, ...]:
        """The worst first; `loss` is that of training."""
        if now is None or not (now.result.curve or layers != NO_LAYERS):
            return ()
        seen = now.result, now.state.is_over, layers
        if self._seen != seen:
            self._seen, self._found = seen, self._ask(loss, now, layers)
        return self._found

    def _ask(self, loss: Series, now: Status, layers: Layers) -> tuple[Finding, ...]:
        from advisor import recipe  # noqa: PLC0415  # 0.2 s that a run without evaluations can spare
        from advisor.rules import quality  # noqa: PLC0415
        from advisor.rules.quality.training import Training  # noqa: PLC0415

        with suppress(ValueError, UserError):  # without a recipe there are no remedies
            curves = Curves(
                training=tuple((round(x), y) for x, y in loss.means()),
                num_steps=now.num_steps,
                is_over=now.state.is_over,
            )
            asked = recipe.parse(recipe_copy.text_of(self._run), where=str(self._run.recipe))
            return quality.findings(
                Training(curves=curves, result=now.result, recipe=asked, layers=layers)
            )
        return ()
