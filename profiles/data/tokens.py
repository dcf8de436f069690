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
    from collections.abc import Iterable, Sequence

    from profiles.data.encoding import Encoder
    from profiles.data.formats.spec import Example, Segments
    from profiles.data.rendering import Written
    from profiles.models.chat_template import Span
    from profiles.row_counts import RowCounts

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


if TYPE_CHECKING:
    Pairs = Iterable[tuple[int, int]]
    """A value, and how often it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Longest:
    num_tokens: int = 0
    line: int = 0
    num_bytes: int = 0


class TokenMeter:
    """Token lengths of the examples, counted in batches."""

    def __init__(self, encoder: Encoder | None, max_length: int | None) -> None:
        """Without an encoder the tokens are predicted."""
        self._encoder = encoder
        self._origin = Origin.MEASURED if encoder else Origin.PREDICTED
        self._max_length = max_length
        self._batch: list[tuple[Sequence[Written], int]] = []
        self._batch_chars = 0
        self._lengths = Counter[int]()
        """How many examples have each length; of a preference pair the longer text's."""
        self._beside = Counter[int]()
        """Lengths of the shorter texts of pairs."""
        self._starts = Counter[int]()
        """How many examples have so many tokens before the first that is learnt."""
        self._unlearnt = Counter[int]()
        """Lengths of examples of which nothing is learnt."""
        self._edges = Counter[int]()
        """How many learnt parts begin after so many tokens, less those that end there."""
        self._longest = _Longest()

    def add(
        self, example: Example, segments: Segments, written: Sequence[Written], line: int
    ) -> None:
        """Take one example, and its texts where a model is known; it is counted with its batch.

        `segments`: the example's. `written`: one text, or those of both replies of a pair.
        """
        if self._encoder is None or not written:
            self._predict(example, segments, written, line)
            return
        self._batch.append((written, line))
        self._batch_chars += sum([ROW_CHARS + len(one.text) for one in written])
        if self._batch_chars >= BATCH_CHARS:
            self.finish()

    def finish(self) -> None:
        """Count what is waiting."""
        if self._encoder is not None and self._batch:
            texts = [one for written, _ in self._batch for one in written]
            encoded = iter(self._encoder.encode(texts))
            for written, line in self._batch:
                found = [next(encoded) for _ in written]
                texts_of_row = [one.text for one in written]
                self._take([(one.num_tokens, one.learnt) for one in found], line, texts_of_row)
        self._batch.clear()
        self._batch_chars = 0

    def _predict(
        self, example: Example, segments: Segments, written: Sequence[Written], line: int
    ) -> None:
        if written:
            told, marks = [one.segments for one in written], (0, 0)
        else:
            worse = example.worse
            told = [segments, worse.segments] if worse else [segments]
            marks = (MARK_TOKENS_BEFORE, MARK_TOKENS_AFTER) if example.messages else (0, 0)
        texts = [text for segments in told for text, _ in segments]
        self._take([_predicted(segments, marks) for segments in told], line, texts)

    def _take(
        self, found: Sequence[tuple[int, Sequence[Span]]], line: int, texts: Sequence[str]
    ) -> None:
        """Count an example by the tokens of its texts, and what is learnt of each as in Encoded.

        Of a pair all is lost where one of its replies is.
        """
        num_tokens = max([length for length, _ in found])
        self._lengths[num_tokens] += 1
        if len(found) > 1:
            self._beside.update(sorted([length for length, _ in found])[:-1])
        starts = []
        for _, learnt in found:
            if learnt:
                starts.append(learnt[0][0])
            for begin, end in learnt:
                self._edges[begin] += 1
                self._edges[end] -= 1
        if len(starts) == len(found):
            self._starts[max(starts)] += 1
        else:
            self._unlearnt[num_tokens] += 1
        if num_tokens > self._longest.num_tokens:
            num_bytes = sum([len(text.encode()) for text in texts])
            self._longest = _Longest(num_tokens=num_tokens, line=line, num_bytes=num_bytes)

    @property
    def counts(self) -> RowCounts:
        """What is read and learnt of the examples at max_length."""
        return self.stats().at(self._max_length)

    def stats(self) -> TokenStats:
        """Statistics of the lengths; at least one example must have been counted."""
        return stats_of(
            self._lengths.items(),
            self._starts.items(),
            self._unlearnt.items(),
            self._edges.items(),
            beside=self._beside.items(),
            max_length=self._max_length,
            origin=self._origin,
            longest_line=self._longest.line,
        )

    def problem(self) -> str:
        """Why nothing can be learnt: most examples have no token to learn from at max_length."""
        counts = self.counts
        if counts.num_dropped * 2 <= counts.num_rows:
            return ""
        lost = f"{counts.num_dropped} of {counts.num_rows} examples have no trainable token"
        if self._max_length is None:
            return lost
        return f"{lost} at max_length {self._max_length}; p95 length {self.stats().p95}"

    def warnings(self) -> list[str]:
        """Sentences for the user on rows that are cut, or of which nothing is learnt."""
        limit = "" if self._max_length is None else f"max_length {self._max_length}"
        told, stats = self.counts.losses(limit), self.stats()
        spread = f" (p95 {stats.p95}, longest {stats.max} tokens, line {stats.longest_line})"
        return self._giants() + ([told + spread] if told else [])

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


def _predicted(segments: Segments, marks: tuple[int, int]) -> tuple[int, list[Span]]:
    """Tokens of a text, and those that are learnt; `marks`: before and after each part."""
    before, after = marks
    length, learnt = 0, []
    for text, is_learnt in segments:
        begin = length + before
        end = begin + _predict_one(text)
        if is_learnt and begin < end:
            learnt.append((begin, end))
        length = end + after
    return length, learnt


def stats_of(  # noqa: PLR0913  # one distribution is one argument
    lengths: Pairs,
    starts: Pairs,
    unlearnt: Pairs,
    edges: Pairs,
    *,
    beside: Pairs = (),
    max_length: int | None,
    origin: Origin,
    longest_line: int = 0,
) -> TokenStats:
    """Statistics of examples, from what TokenStats keeps of them; values may come twice."""
    of_length, of_beside = _sorted(lengths), _sorted(beside)
    values, counts = zip(*of_length, strict=True)
    num_up_to = list(accumulate(counts))
    num_rows = num_up_to[-1]
    total = sum(length * count for length, count in (*of_length, *of_beside))
    num_texts = num_rows + sum(count for _, count in of_beside)
    return TokenStats(
        min=values[0],
        median=values[bisect_left(num_up_to, 0.5 * num_rows)],
        p95=values[bisect_left(num_up_to, 0.95 * num_rows)],
        max=values[-1],
        mean=total / num_texts,
        total=total,
        max_length=max_length,
        origin=origin,
        longest_line=longest_line,
        lengths=of_length,
        beside=of_beside,
        starts=_sorted(starts),
        unlearnt=_sorted(unlearnt),
        edges=_sorted(edges),
    )


def _sorted(pairs: Pairs) -> tuple[tuple[int, int], ...]:
    """Each value with the sum of its counts; those that cancel each other are left out."""
    found = Counter[int]()
    for value, count in pairs:
        found[value] += count
    return tuple(sorted((value, count) for value, count in found.items() if count))


def _short(num_tokens: int) -> str:
    return f"{num_tokens / 1e6:.0f} M" if num_tokens >= 1e6 else f"{num_tokens / 1e3:.0f} k"


def _predict_one(text: str) -> int:
    if text.isascii():
        return -(-len(text) // ASCII_BYTES_PER_TOKEN)
    data = text.encode()
    num_other = len(data.translate(None, _ASCII))
    num_ascii = len(data) - num_other
    return round(0.5 + num_ascii / ASCII_BYTES_PER_TOKEN + num_other / OTHER_BYTES_PER_TOKEN)
