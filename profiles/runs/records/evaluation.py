"""Records of what a model can do: evaluations, what is concluded from them, answers to prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from profiles.class_facts import Classes
from profiles.quantities import duration_text
from profiles.runs.records.form import LEFT_OUT
from profiles.runs.records.metrics import loss_text
from profiles.runs.records.record import Record

BASE = "base model"
_SHOWN = 60
"""Characters of a prompt and of an answer in an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What tells better from worse beside the loss: the higher, the better; a mean over rows."""

    name: str
    value: float | None
    """None if it was not finite."""
    before: float | None = field(default=None, metadata=LEFT_OUT)
    """What it is compared with: the base model's, or chance."""
    against: str = f"the {BASE}"
    gain: tuple[float, ...] | None = field(default=None, metadata=LEFT_OUT)
    """How much higher it is: low, value and high of a 95 % interval over the rows."""

    @property
    def words(self) -> str:
        """Like "accuracy 0.5333"."""
        return f"{self.name} {score_text(self.value)}"


def score_text(value: float | None) -> str:
    """Four decimals, as of losses."""
    return "not finite" if value is None else f"{value:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Record):
    """An evaluation set went through the model; step 0 is the base model's."""

    kind: ClassVar[str] = "evaluated"

    step: int
    loss: float | None
    """Mean over all tokens that count, in nats, or over all rows, as the task has it; None if it
    was not finite."""
    seconds: float
    data: str | None = field(default=None, metadata=LEFT_OUT)
    """Name of the set; None where there is one without a name."""
    rows: int | None = field(default=None, metadata=LEFT_OUT)
    """Of the set; None in records from before they were counted."""
    gain: tuple[float, ...] | None = field(default=None, metadata=LEFT_OUT)
    """How much lower the loss is than the base model's on the same rows: low, value and high of a
    95 % interval; None for the base model, and where there is nothing to compare with."""
    scores: tuple[Scored, ...] | None = field(default=None, metadata=LEFT_OUT)
    """Of a task that has any; the first decides whether the model is better."""
    classes: Classes | None = field(default=None, metadata=LEFT_OUT)
    """Of a task that sorts rows into classes."""
    before: str | None = field(default=None, metadata=LEFT_OUT)
    """What is trained, and at step 0 evaluated, where that is not a base model."""

    @property
    def words(self) -> str:
        """The loss, the scores, and how rows were sorted."""
        when = f"step {self.step}" if self.step else self.before or BASE
        of = f" of {self.data}" if self.data else ""
        took = duration_text(self.seconds)
        scores = "".join(f", {score.words}" for score in self.scores or ())
        sorts = f"; {self.classes.words}" if self.classes else ""
        return f"{when}: evaluation loss{of} {loss_text(self.loss)}{scores}{sorts} ({took})"

    @property
    def warning(self) -> str:
        """That the model is clearly worse than before."""
        gain, what, against = self.gain, "", self.before or f"the {BASE}"
        if self.scores:
            first = self.scores[0]
            gain, what, against = first.gain, f"{first.name} ", first.against
        if gain is None or max(gain, default=0.0) >= 0:
            return ""
        return f"step {self.step} is worse than {against}, by {what}{-max(gain):.4f} at least"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseEvaluated(Record):
    """An evaluation set went through the base model, without the adapter that is trained on."""

    kind: ClassVar[str] = "base_evaluated"

    loss: float | None
    """As an evaluation's."""
    seconds: float
    data: str | None = field(default=None, metadata=LEFT_OUT)

    @property
    def words(self) -> str:
        """The loss."""
        of = f" of {self.data}" if self.data else ""
        took = duration_text(self.seconds)
        return f"{BASE} without the adapter: evaluation loss{of} {loss_text(self.loss)} ({took})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScores:
    """One score of some rows."""

    name: str
    values: tuple[float | None, ...]
    """None if it was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLosses(Record):
    """What an evaluation found for some rows of its set, in the set's order (evaluations.jsonl)."""

    kind: ClassVar[str] = "row_losses"

    step: int
    data: str | None
    """Name of the set, as in `Evaluated`."""
    first: int
    """Place of the first of these rows in the set."""
    losses: tuple[float | None, ...]
    """Mean over the row's tokens that count, in nats; None if it was not finite."""
    tokens: tuple[int, ...]
    """That count; 1 where the loss is one of whole rows."""
    scores: tuple[RowScores, ...] | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStop(Record):
    """The recipe's number of evaluations passed without a lower loss."""

    kind: ClassVar[str] = "early_stop"

    step: int
    best_step: int
    evaluations: int
    """Since the best one."""

    @property
    def words(self) -> str:
        """Where, and why there."""
        return (
            f"stopping early at step {self.step}: no lower evaluation loss in "
            f"{self.evaluations} evaluations since step {self.best_step}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(Record):
    """The weights of a step have the final name."""

    kind: ClassVar[str] = "published"

    step: int
    """Whose weights they are."""
    last_step: int
    """Where training ended."""
    what: str = ""
    """Why it is not the step that the recipe asks for; empty if it is."""

    @property
    def reached(self) -> int:
        """Where training ended."""
        return self.last_step

    @property
    def words(self) -> str:
        """Which step."""
        best = "" if self.step == self.last_step else f", the best; the last was {self.last_step}"
        return f"published: the weights of step {self.step}{best}"

    @property
    def warning(self) -> str:
        """That another step was asked for."""
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Record):
    """What the model answers to a held-out prompt."""

    kind: ClassVar[str] = "sample"

    moment: str
    """before, during, after."""
    step: int
    prompt: str
    wanted: str
    """What the data answers."""
    answer: str

    @property
    def words(self) -> str:
        """The ends of both."""
        prompt, answer = (" ".join(text.split()) for text in (self.prompt, self.answer))
        when = f"step {self.step}" if self.step else "the model before training"
        return f"{when} answers {prompt[-_SHOWN:]!r}: {answer[:_SHOWN]!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFailed(Record):
    """The held-out prompts could not be answered."""

    kind: ClassVar[str] = "sample_failed"

    moment: str
    error: str
