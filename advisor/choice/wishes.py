"""What the user wants, each wish with where it came from: asked for, or our default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from profiles.facts import Origin

T = TypeVar("T")
Complexity = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Wish(Generic[T]):
    """A value and its origin."""

    value: T
    origin: Origin = Origin.DEFAULT

    @classmethod
    def of(cls, asked: T | None, default: T) -> Wish[T]:
        """The user's word if there is one, else the default."""
        return cls(default) if asked is None else cls(asked, Origin.USER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The answers that no probe can give. Defaults after the method documents §1."""

    task: Wish[str] = field(default_factory=lambda: Wish("sft"))
    """"sft" or "classify"."""
    complexity: Wish[Complexity] = field(default_factory=lambda: Wish("medium"))
    complexity_words: str = ""
    """The evidence for a complexity that the data proposed; empty for anybody's word."""
    critical: Wish[bool] = field(default_factory=lambda: Wish(False))
    """The task is critical and resources are no concern."""
    value: Wish[bool] = field(default_factory=lambda: Wish(True))
    """Best value for money is wanted."""
    quality: Wish[bool] = field(default_factory=lambda: Wish(True))
    """Quality near full fine-tuning is needed."""
    seq_len: Wish[int] | None = None
    effective_batch: Wish[int] | None = None
