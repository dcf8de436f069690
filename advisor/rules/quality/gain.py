"""Q01: the model is worse than before training, or not better."""

from __future__ import annotations

from dataclasses import asdict

from advisor.rules.case import Finding
from advisor.rules.quality.training import Training
from profiles.run_facts import Result, Verdict


def check(training: Training) -> Finding | None:
    """Fires on a clear loss, and on no clear gain."""
    result = training.result
    if result.verdict is Verdict.WORSE:
        return Finding(
            id="Q01",
            title=f"worse than {result.before}",
            severity="critical",
            confidence="exact",
            sentence=f"{_what(result)}: "
            "a learning rate that is too high, or data unlike what is evaluated",
            evidence=_evidence(training),
            change=training.lower_rate,
            side_effects="training takes smaller steps",
        )
    if result.verdict is not Verdict.SAME or not training.curves.is_over:
        return None
    return Finding(
        id="Q01",
        title=f"no gain over {result.before}",
        severity="warning",
        confidence="exact",
        sentence=f"on {result.rows} held-out rows the model is not clearly better than before: "
        "look at the data and its format, try another method, or continue pre-training first",
        evidence=_evidence(training),
    )


def _what(result: Result) -> str:
    """What got worse, from where to where."""
    if result.scores:
        first = result.scores[0]
        return f"{first.name} fell from {first.before:.3f} to {first.value:.3f}"
    return f"the evaluation loss rose from {result.base_loss:.4f} to {result.loss:.4f}"


def _evidence(training: Training) -> dict[str, float]:
    result = training.result
    judged = result.scores[0].gain if result.scores else result.gain
    gain = asdict(judged) if judged else {}
    losses = {"base_loss": result.base_loss, "loss": result.loss}
    return {**{name: value for name, value in losses.items() if value is not None}, **gain}
