"""What a description of a task consists of: what is learnt from which rows, how it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from advisor.registry.spec import Named

Head = Literal["lm", "score"]


class Score(NamedTuple):
    """What tells better from worse beside the loss: a number of each row, the higher the better.

    Of a set it is the mean over its rows.
    """

    name: str
    doc: str
    chance: float | None = None
    """What a model that knows nothing has, where the base model has no value of its own: the
    trained model is compared with this instead. None: with the base model, row by row."""
    than: str = ""
    """What else it is compared with, row by row, in words; the rows have a value by this name."""

    @property
    def against(self) -> str:
        """What it is compared with, in words."""
        return self.than or ("the base model" if self.chance is None else "chance")


@dataclass(frozen=True, slots=True)
class Objective:
    """What a task is set to: the base of each frozen dataclass, and of a task without settings.

    The fields are the keys of a recipe's `[objective]`.
    """


NO_OBJECTIVE: Final = Objective()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TaskSpec(Named):
    """What is learnt from which rows."""

    name: str
    title: str
    builder: str = ""
    """Module of `runner.tasks`; empty: not yet."""
    needs: tuple[str, ...] = ()
    """Packages beside those that every training needs."""
    objective: type[Objective] = Objective

    # Which rows
    learns_from: tuple[str, ...] = ("replies", "text")
    """Kinds of rows, as data formats name theirs."""
    proposed_by: tuple[str, ...] = ()
    """Kinds of rows for which it is taken where no task is named."""
    chooses_replies: bool = True
    """Which replies of a chat are learnt is a question (`data.learn`)."""
    packs: bool = True
    """Several rows may be put into one."""
    joins: bool = False
    """Texts are joined, an end between them, and cut into rows of the full length."""
    least_micro_batch: int = 1

    # What it costs
    sequences_per_row: int = 1
    """That go forward and backward: two for a preference pair."""
    extra_forwards: int = 0
    """Sequences of a row that go forward alone: those that the reference is asked of, say."""
    reference: bool = False
    """The model as it was before training is asked too. Where it trains itself, a frozen copy is
    kept; where it is frozen, it is what is left without the part that is added."""
    head: Head = "lm"
    """A token's probability, or a few numbers for a whole row from a head that is trained too."""

    # How it goes
    scores: tuple[Score, ...] = ()
    """The first decides whether the model got better; without any the loss does."""
    rate_factor: float = 1.0
    """Of a method's learning rate, where the task wants smaller steps."""
    drops_out: bool = True
    """Dropout is recommended where rows are few; it disturbs the comparison with a reference."""

    def rate(self, rate: float) -> float:
        """A method's learning rate as this task wants it."""
        return float(f"{rate * self.rate_factor:.3g}")

    def __post_init__(self) -> None:
        assert set(self.proposed_by) <= set(self.learns_from), self.name
