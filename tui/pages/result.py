"""Whether a run made the model better, in words: a sentence, and a few words for a list."""

from __future__ import annotations

from profiles.intervals import Difference
from profiles.quantities import count_text
from profiles.run_facts import Change, Result, ScoreChange, Verdict
from profiles.runs.records.evaluation import score_text

_WORDS = {
    Verdict.BETTER: "better than {}",
    Verdict.WORSE: "WORSE than {}",
    Verdict.SAME: "no clear difference to {}",
    Verdict.NOT_COMPARED: "not compared with {} on the same rows",
    Verdict.NOT_FINITE: "the evaluation loss is not finite",
}
_SHORT = {
    Verdict.SAME: "same",
    Verdict.NOT_COMPARED: "-",
    Verdict.WORSE: "WORSE",
}


def sentence(found: Result) -> str:
    """What the evaluations say, on which rows, and whose weights it is about."""
    if found.verdict is Verdict.NOT_EVALUATED:
        return "not evaluated after training: whether the model got better is not known"
    against = found.scores[0].against if found.scores else found.before
    words = _WORDS[found.verdict].format(against)
    parts = [f"{words}: {'; '.join([*map(score, found.scores), _losses(found)])}{_rows(found)}"]
    parts += [_which(found)] if _which(found) else []
    if found.bare_loss is not None:
        parts.append(
            f"the base model without the adapter that was trained on: {found.bare_loss:.4f}"
        )
    parts += [f"WORSE on {_on(one)}" for one in found.worse_on]
    return "; ".join(parts)


def short(found: Result) -> str:
    """Like "better 3.47 -> 3.37", "WORSE 3.47 -> 8.52", "not evaluated"."""
    if found.verdict in (Verdict.NOT_EVALUATED, Verdict.NOT_FINITE):
        return found.verdict
    word = _SHORT.get(found.verdict, found.verdict)
    if found.scores:
        told = f"{word} {_short_score(found.scores[0])}"
        return told + (" forgot" if found.worse_on else "")
    losses = f"{found.loss:.2f}"
    if found.base_loss is not None:
        losses = f"{found.base_loss:.2f} -> {losses}"
    return f"{word} {losses}" + (" forgot" if found.worse_on else "")


def score(one: ScoreChange) -> str:
    """Like "accuracy 0.4667 -> 0.7000 (higher by 0.2333, 95 %: 0.0820 to 0.3840)"."""
    if one.gain is None:
        return f"{one.name} {score_text(one.value)}"
    gain, word = one.gain, "higher" if one.gain.value >= 0 else "lower"
    low, high = (gain.low, gain.high) if gain.value >= 0 else (-gain.high, -gain.low)
    interval = f"{word} by {abs(gain.value):.4f}, 95 %: {low:.4f} to {high:.4f}"
    return f"{one.name} {score_text(one.before)} -> {score_text(one.value)} ({interval})"


def _short_score(one: ScoreChange) -> str:
    before = "" if one.before is None else f"{one.before:.2f} -> "
    value = "not finite" if one.value is None else f"{one.value:.2f}"
    return f"{one.name} {before}{value}"


def _losses(found: Result) -> str:
    of = f" of {found.data}" if found.data else ""
    if found.loss is None:
        return f"step {found.step}{of}"
    before = "" if found.base_loss is None else f"{found.base_loss:.4f} -> "
    return f"evaluation loss{of} {before}{found.loss:.4f} at step {count_text(found.step)}"


def _rows(found: Result) -> str:
    rows = f"{count_text(found.rows)} row{'s' * (found.rows != 1)}" if found.rows else ""
    told = ", ".join(filter(None, [_interval(found.gain), rows and f"on {rows}"]))
    return f" ({told})" if told else ""


def _interval(gain: Difference | None) -> str:
    """Like "lower by 0.097, 95 %: 0.081 to 0.113"."""
    if gain is None:
        return ""
    low, high = (gain.low, gain.high) if gain.value >= 0 else (-gain.high, -gain.low)
    word = "lower" if gain.value >= 0 else "higher"
    return f"{word} by {abs(gain.value):.4f}, 95 %: {low:.4f} to {high:.4f}"


def _which(found: Result) -> str:
    """Whose weights were published, and what the others had."""
    best, last, published = found.best_step, found.last_step, found.published_step
    if published is None:
        last_loss = "not finite" if found.last_loss is None else f"{found.last_loss:.4f}"
        return f"the best so far; step {last}: {last_loss}" if best not in (None, last) else ""
    if published not in (best, last):
        return f"published: step {published}"
    if best == last:
        return f"published: step {published}, the best and the last"
    if published == best:
        had = "was not finite" if found.last_loss is None else f"had {found.last_loss:.4f}"
        return f"published: step {published}, the best; the last, {last}, {had}"
    return f"published: step {published}, the last; the best, {best}, had {found.best_loss:.4f}"


def _on(one: Change) -> str:
    if one.scores:
        return f"{one.data}: {score(one.scores[0])}"
    assert one.gain is not None
    return f"{one.data}: {one.base_loss:.4f} -> {one.loss:.4f} ({_interval(one.gain)})"
