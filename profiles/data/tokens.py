"""Counts the tokens of examples: by the tokenizer of the model, or predicted from bytes.

Decides the prediction, what the marks of a chat template cost, and what max_length cuts off. The
chat template itself is not known here: its marks are a constant. Does not know where the
examples come from.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiles.data.words import printable
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin, TokenStats

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from profiles.data.formats.spec import Segments

# ChatML, which most templates resemble: <|im_start|>, role, newline before the content, and
# <|im_end|>, newline after it.
MARK_TOKENS_BEFORE: Final = 3
MARK_TOKENS_AFTER: Final = 2

# Without a tokenizer: English and code run near 4 bytes a token in current vocabularies; other
# scripts take 2 to 4 bytes a character and about one token a character or two.
ASCII_BYTES_PER_TOKEN: Final = 4
OTHER_BYTES_PER_TOKEN: Final = 3

BATCH_CHARS = 1 << 20
ROW_CHARS: Final = 512
"""What a row in a batch takes besides its texts."""
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

    def __init__(
        self, tokenizer_path: str | os.PathLike[str] | None, max_length: int | None
    ) -> None:
        self.num_truncated = 0
        self.num_untrainable = 0
        self._count = _tokenizer_count(tokenizer_path) if tokenizer_path else _predict
        self._origin = Origin.MEASURED if tokenizer_path else Origin.PREDICTED
        self._max_length = max_length
        self._batch: list[tuple[Segments, bool, int]] = []
        self._batch_chars = 0
        self._lengths = Counter[int]()
        """How many examples have each length."""
        self._trainable_total = 0
        self._longest = _Longest()

    def add(self, segments: Segments, *, is_chat: bool, line: int) -> None:
        """Take one example; it is counted with its batch."""
        self._batch.append((segments, is_chat, line))
        self._batch_chars += ROW_CHARS + sum([len(text) for text, _ in segments])
        if self._batch_chars >= BATCH_CHARS:
            self.finish()

    def finish(self) -> None:
        """Count what is waiting."""
        counts = iter(self._count([text for one, _, _ in self._batch for text, _ in one]))
        for segments, is_chat, line in self._batch:
            length = self._measure(segments, counts, is_chat=is_chat)
            if length > self._longest.num_tokens:
                num_bytes = sum([len(text.encode()) for text, _ in segments])
                self._longest = _Longest(num_tokens=length, line=line, num_bytes=num_bytes)
        self._batch.clear()
        self._batch_chars = 0

    def _measure(self, segments: Segments, counts: Iterator[int], *, is_chat: bool) -> int:
        """Count one example; returns its length."""
        before, after = (MARK_TOKENS_BEFORE, MARK_TOKENS_AFTER) if is_chat else (0, 0)
        length = 0
        first_trained: int | None = None
        for (_, is_trained), num_tokens in zip(segments, counts, strict=False):
            if is_trained:
                self._trainable_total += num_tokens
                first_trained = length + before if first_trained is None else first_trained
            length += before + num_tokens + after
        self._lengths[length] += 1
        if self._max_length is not None and length > self._max_length:
            self.num_truncated += 1
            self.num_untrainable += first_trained is None or first_trained >= self._max_length
        return length

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
            trainable_total=self._trainable_total,
            origin=self._origin,
            longest_line=self._longest.line,
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


def _predict(texts: list[str]) -> list[int]:
    return [_predict_one(text) for text in texts]


def _predict_one(text: str) -> int:
    if text.isascii():
        return -(-len(text) // ASCII_BYTES_PER_TOKEN)
    data = text.encode()
    num_other = len(data.translate(None, _ASCII))
    num_ascii = len(data) - num_other
    return round(0.5 + num_ascii / ASCII_BYTES_PER_TOKEN + num_other / OTHER_BYTES_PER_TOKEN)


def _tokenizer_count(folder: str | os.PathLike[str]) -> Callable[[list[str]], list[int]]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - costs 50 ms and is not always needed

    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"no tokenizer.json in {folder}",
            why="token counts need the tokenizer of the model",
            do="give the folder of the model, or leave it out for a prediction from bytes",
            where=str(file),
            code=ExitCode.NO_INPUT,
        )
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise UserError(
            "the tokenizer cannot be read",
            why=printable(str(error), 200),
            do="copy or download tokenizer.json again",
            where=str(file),
            code=ExitCode.BAD_DATA,
        ) from error
    # Files saved during a training carry its truncation and padding, which would cap the counts.
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: list[str]) -> list[int]:
        if max(map(len, texts), default=0) > BATCH_CHARS:
            return [sum(count([piece])[0] for piece in _pieces(text)) for text in texts]
        return [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]

    return count


def _pieces(text: str) -> list[str]:
    """Cut a giant text at spaces: an encoding takes 100 bytes a token, so not all at once."""
    pieces = []
    start = 0
    while len(text) - start > BATCH_CHARS:
        end = text.rfind(" ", start + 1, start + BATCH_CHARS)
        end = start + BATCH_CHARS if end < 0 else end
        pieces.append(text[start:end])
        start = end
    pieces.append(text[start:])
    return pieces
