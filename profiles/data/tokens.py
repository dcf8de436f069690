"""Counts the tokens of examples: by the encoder of the model, or predicted from bytes.

Decides the prediction, and what max_length cuts off. Does not know where the examples come from.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from profiles.facts import Origin, TokenStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiles.data.encoding import Encoder
    from profiles.data.formats.spec import Example
    from profiles.data.rendering import Written

# ChatML, which most templates resemble: <|im_start|>, role, newline before the content, and
# <|im_end|>, newline after it.
MARK_TOKENS_BEFORE: Final = 3
MARK_TOKENS_AFTER: Final = 2

# Without a tokenizer: English and code run near 4 bytes a token in current vocabularies; other
# scripts take 2 to 4 bytes a character and about one token a character or two.
ASCII_BYTES_PER_TOKEN: Final = 4
OTHER_BYTES_PER_TOKEN: Final = 3

BATCH_CHARS = 1 << 18
ROW_CHARS: Final = 512
"""What a row in a batch takes besides its text."""
UNLIMITED: Final = 1 << 62
GIANT_BYTES: Final = 1_000_000
"""An example of this size is likelier a mistake than a document."""

_ASCII = bytes(range(128))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Longest:
    num_tokens: int = 0
    line: int = 0
    num_bytes: int = 0


class TokenMeter:
    """Token lengths of the examples, counted in batches."""

    def __init__(self, encoder: Encoder | None, max_length: int | None) -> None:
        """Without an encoder the tokens are predicted."""
        self.num_truncated = 0
        self.num_untrainable = 0
        self._encoder = encoder
        self._origin = Origin.MEASURED if encoder else Origin.PREDICTED
        self._max_length = max_length
        self._batch: list[tuple[Written, int]] = []
        self._batch_chars = 0
        self._lengths = Counter[int]()
        """How many examples have each length."""
        self._starts = Counter[int]()
        """How many examples have so many tokens before the first that is learnt."""
        self._trainable_total = 0
        self._longest = _Longest()

    def add(self, example: Example, written: Written | None, line: int) -> None:
        """Take one example, and its text where a model is known; it is counted with its batch."""
        if self._encoder is None or written is None:
            self._predict(example, written, line)
            return
        self._batch.append((written, line))
        self._batch_chars += ROW_CHARS + len(written.text)
        if self._batch_chars >= BATCH_CHARS:
            self.finish()

    def finish(self) -> None:
        """Count what is waiting."""
        if self._encoder is not None and self._batch:
            encoded = self._encoder.encode([written for written, _ in self._batch])
            for (written, line), one in zip(self._batch, encoded, strict=True):
                start = one.learnt[0][0] if one.learnt else one.num_tokens
                num_learnt = one.num_learnt_within(self._max_length)
                self._take(one.num_tokens, start, num_learnt, line, (written.text,))
        self._batch.clear()
        self._batch_chars = 0

    def _predict(self, example: Example, written: Written | None, line: int) -> None:
        if written is not None:
            segments, marks = written.segments, (0, 0)
        else:
            segments = example.segments
            marks = (MARK_TOKENS_BEFORE, MARK_TOKENS_AFTER) if example.messages else (0, 0)
        length, start, num_learnt = 0, -1, 0
        limit = UNLIMITED if self._max_length is None else self._max_length
        for text, is_learnt in segments:
            num_tokens = _predict_one(text)
            if is_learnt:
                start = length + marks[0] if start < 0 else start
                num_learnt += max(0, min(num_tokens, limit - length - marks[0]))
            length += marks[0] + num_tokens + marks[1]
        start = length if start < 0 else start
        self._take(length, start, num_learnt, line, [text for text, _ in segments])

    def _take(
        self, num_tokens: int, start: int, num_learnt: int, line: int, texts: Sequence[str]
    ) -> None:
        """Count an example; `num_learnt` within max_length."""
        self._lengths[num_tokens] += 1
        self._starts[start] += 1
        self._trainable_total += num_learnt
        if self._max_length is not None and num_tokens > self._max_length:
            self.num_truncated += 1
            self.num_untrainable += not num_learnt
        if num_tokens > self._longest.num_tokens:
            num_bytes = sum([len(text.encode()) for text in texts])
            self._longest = _Longest(num_tokens=num_tokens, line=line, num_bytes=num_bytes)

    def stats(self) -> TokenStats:
        """Statistics of the lengths; at least one example must have been counted."""
        lengths, counts = zip(*sorted(self._lengths.items()), strict=True)
        num_up_to = list(accumulate(counts))
        num_rows = num_up_to[-1]
        total = sum(length * count for length, count in self._lengths.items())
        return TokenStats(
            min=lengths[0],
            median=lengths[bisect_left(num_up_to, 0.5 * num_rows)],
            p95=lengths[bisect_left(num_up_to, 0.95 * num_rows)],
            max=lengths[-1],
            mean=total / num_rows,
            total=total,
            max_length=self._max_length,
            trainable_total=self._trainable_total,
            origin=self._origin,
            longest_line=self._longest.line,
            lengths=tuple(sorted(self._lengths.items())),
            starts=tuple(sorted(self._starts.items())),
        )

    def problem(self) -> str:
        """Why nothing can be learnt: max_length leaves most examples no token of the reply."""
        num_rows = self._lengths.total()
        if self.num_untrainable * 2 <= num_rows:
            return ""
        lost = f"{self.num_untrainable} of {num_rows} examples have no trainable token"
        return f"{lost} at max_length {self._max_length}; p95 length {self.stats().p95}"

    def warnings(self) -> list[str]:
        """Sentences for the user on what max_length cuts off."""
        found = self._giants()
        if self.num_truncated:
            num_rows, stats = self._lengths.total(), self.stats()
            cut = f"{self.num_truncated} of {num_rows} rows are longer than max_length"
            found.append(
                f"{cut} {self._max_length} and will be cut (p95 {stats.p95}, longest {stats.max} "
                f"tokens, line {stats.longest_line})"
            )
        if self.num_untrainable and not self.problem():
            lost = f"{self.num_untrainable} of them lose their whole reply"
            found.append(f"{lost}, so that nothing is learnt from them")
        return found

    def _giants(self) -> list[str]:
        """The longest example if it is larger than any context."""
        one = self._longest
        if one.num_bytes < GIANT_BYTES:
            return []
        size = f"line {one.line}: {one.num_bytes / 1e6:.0f} MB, ~{_short(one.num_tokens)} tokens"
        if self._max_length is None or self._max_length >= one.num_tokens:
            return [f"{size}: is a line break missing?"]
        lost = math.floor(1000 * (1 - self._max_length / one.num_tokens)) / 10
        return [f"{size}, will be truncated to {self._max_length} ({lost:.1f} % lost)"]


def _short(num_tokens: int) -> str:
    return f"{num_tokens / 1e6:.0f} M" if num_tokens >= 1e6 else f"{num_tokens / 1e3:.0f} k"


def _predict_one(text: str) -> int:
    if text.isascii():
        return -(-len(text) // ASCII_BYTES_PER_TOKEN)
    data = text.encode()
    num_other = len(data.translate(None, _ASCII))
    num_ascii = len(data) - num_other
    return round(0.5 + num_ascii / ASCII_BYTES_PER_TOKEN + num_other / OTHER_BYTES_PER_TOKEN)
