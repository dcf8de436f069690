"""What the user answers to what no probe can tell, and where each answer came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from profiles.facts import Origin

T = TypeVar("T")
Complexity = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A value and its origin."""

    value: T
    origin: Origin = Origin.DEFAULT

    @classmethod
    def of(cls, asked: T | None, default: T) -> Answer[T]:
        """The user's word if there is one, else the default."""
        return cls(default) if asked is None else cls(asked, Origin.USER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The answers that no probe can give. Defaults after the method documents §1."""

    task: Answer[str] = field(default_factory=lambda: Answer("sft"))
    """Its name; measured where the data proposed it."""
    complexity: Answer[Complexity] = field(default_factory=lambda: Answer("medium"))
    complexity_words: str = ""
    """The evidence for a complexity that the data proposed; empty for anybody's word."""
    critical: Answer[bool] = field(default_factory=lambda: Answer(False))
    """The task is critical and resources are no concern."""
    value: Answer[bool] = field(default_factory=lambda: Answer(True))
    """Best value for money is wanted."""
    quality: Answer[bool] = field(default_factory=lambda: Answer(True))
    """Quality near full fine-tuning is needed."""
    seq_len: Answer[int] | None = None
    effective_batch: Answer[int] | None = None
    domain: Answer[str] | None = None
    """What the model is for, if the documents' settings for that are asked for."""
