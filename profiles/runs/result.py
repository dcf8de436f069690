"""Whether a run made the model better, from its events. Pure: looks at no file.

Judged are the weights that were published, else those of the best evaluation so far: they are what
will be published, unless the recipe keeps the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from profiles.intervals import Difference
from profiles.run_facts import Change, Result, ScoreChange, Verdict
from profiles.runs.records import Record
from profiles.runs.records.evaluation import (
    BASE,
    BaseEvaluated,
    Evaluated,
    Published,
    Scored,
)

Evaluations = dict[int, Evaluated]
"""Of one set, by step; the base model's is step 0."""


def result_of(events: Iterable[Record]) -> Result:
    """What the evaluations of a run amount to; of a step evaluated twice, the later counts.

    `events`: of the worker, in order of time.
    """
    found: dict[str, Evaluations] = {}
    published = None
    bare: dict[str, float | None] = {}
    for event in events:
        if isinstance(event, BaseEvaluated):
            bare[event.data or ""] = event.loss
        elif isinstance(event, Evaluated):
            found.setdefault(event.data or "", {})[event.step] = event
        elif isinstance(event, Published):
            published = event.step
    name = next(iter(found), "")
    main = found.get(name, {})
    base_loss = main[0].loss if 0 in main else None
    steps = sorted(step for step in main if step > 0)
    if not steps:
        return Result(data=name, base_loss=base_loss, published_step=published)
    best = _best(main)
    judged = main[published if published in main else best or steps[-1]]
    change = change_of(main, judged)
    return Result(
        verdict=_verdict(change, judged.rows or 0),
        data=name,
        before=judged.before or f"the {BASE}",
        rows=judged.rows or 0,
        base_loss=base_loss,
        bare_loss=bare.get(name),
        step=judged.step,
        loss=judged.loss,
        gain=change.gain,
        scores=change.scores,
        classes=judged.classes,
        best_step=best,
        best_loss=main[best].loss if best else None,
        last_step=steps[-1],
        last_loss=main[steps[-1]].loss,
        curve=tuple((n, loss) for n in sorted(main) if (loss := main[n].loss) is not None),
        published_step=published,
        worse_on=tuple(_worse_on(found, name, judged.step)),
    )


def _best(main: Evaluations) -> int | None:
    """The step of the lowest loss, the first of several."""
    known = [(e.loss, step) for step, e in main.items() if step > 0 and e.loss is not None]
    return min(known)[1] if known else None


def change_of(evaluations: Evaluations, judged: Evaluated) -> Change:
    """From the base model to a step, on one set."""
    base = evaluations[0].loss if 0 in evaluations else None
    return Change(
        data=judged.data or "",
        base_loss=base,
        loss=judged.loss,
        gain=_difference(judged.gain),
        scores=tuple(_score_change(score) for score in judged.scores or ()),
    )


def _difference(told: tuple[float, ...] | None) -> Difference | None:
    return Difference(*told) if told and len(told) == len("low") else None


def _score_change(score: Scored) -> ScoreChange:
    return ScoreChange(
        name=score.name,
        before=score.before,
        value=score.value,
        against=score.against,
        gain=_difference(score.gain),
    )


def _verdict(change: Change, rows: int) -> Verdict:
    if change.loss is None:
        return Verdict.NOT_FINITE
    if change.scores:
        return _by_score(change.judged)
    if change.base_loss is None:
        return Verdict.NOT_COMPARED
    if change.gain is None and rows:  # too few rows, or not those of the base model
        return Verdict.NOT_COMPARED
    if change.gain is not None and not change.gain.is_clear:
        return Verdict.SAME
    return Verdict.BETTER if change.loss < change.base_loss else Verdict.WORSE


def _by_score(gain: Difference | None) -> Verdict:
    if gain is None:
        return Verdict.NOT_COMPARED
    if not gain.is_clear:
        return Verdict.SAME
    return Verdict.BETTER if gain.value > 0 else Verdict.WORSE


def _worse_on(found: dict[str, Evaluations], name: str, step: int) -> Iterator[Change]:
    """The other sets on which the step is clearly worse than the base model."""
    for other, evaluations in found.items():
        if other != name and step in evaluations:
            change = change_of(evaluations, evaluations[step])
            if change.judged is not None and change.judged.high < 0:
                yield change
