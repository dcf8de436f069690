"""Data files that a test writes, and what a user is told of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from profiles.data import dataset
from profiles.data.formats.spec import Example
from profiles.errors import UserError

Row = dict[str, Any]

GOOD: Row = {"prompt": "why?", "completion": "because"}
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder: Path, data: bytes | str, name: str = "train.jsonl") -> Path:
    """Write the text as UTF-8, or the bytes as they are."""
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def write_rows(folder: Path, rows: list[Row], name: str = "train.jsonl") -> Path:
    """Write JSON Lines."""
    return write(folder, "".join(json.dumps(row) + "\n" for row in rows), name)


def examples(path: Path, **options: Any) -> list[Example]:
    """What training would see."""
    return [row.example for row in dataset.read_examples(path, **options)]


def refused(path: Path, **options: Any) -> UserError:
    """The error of a file that cannot be trained on."""
    with pytest.raises(UserError) as caught:
        dataset.check(path, **options)
    return caught.value


def outcome(run: Callable[[], object]) -> UserError | None:
    """Catch the error that a user gets, if any; any other exception is a failure of the test."""
    try:
        run()
    except UserError as error:
        return error
    return None


def byte_tokenizer() -> Tokenizer:
    """One token a byte, marks of chats, and <s> before every text that is no chat."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    found.train_from_iterator([], trainer)
    before = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    found.post_processor = before
    return found


def word_tokenizer(
    folder: Path, *, truncated_to: int | None = None, ended_by: str | None = None
) -> Path:
    """Save a tokenizer with one token a word; returns its folder.

    `truncated_to`: the length of the truncation and padding that its file carries. `ended_by`: a
    token that it adds to what it reads.
    """
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "</s>": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if truncated_to:
        tokenizer.enable_truncation(truncated_to)
        tokenizer.enable_padding(length=truncated_to)
    if ended_by:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {ended_by}", special_tokens=[(ended_by, 2)]
        )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
