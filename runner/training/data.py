"""Validated rows to the trainer's data sets: chat columns, splits, template.

The rows come from the same reader that validates them (`profiles.data.dataset`). Tokenising,
masking and packing are TRL's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from advisor.recipe import Recipe
from advisor.registry.lookup import kinds_of_rows
from profiles.data.dataset import read_examples
from profiles.data.formats.spec import Example
from profiles.data.parts import parts_of
from runner.checks import chat_templates
from runner.checks.chat_templates import CHOSEN_BY_MODEL, TEMPLATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Rows as TRL takes them; `test` is touched by no training."""

    train: Dataset
    eval: dict[str, Dataset]
    """The evaluation sets by name, which is empty for one without; none if nothing is held out."""
    test: Dataset | None
    assistant_only: bool
    """The template marks the replies, so every reply of a conversation is learnt."""

    @property
    def held_out(self) -> Dataset | None:
        """Rows whose prompts are answered: those that decide nothing, if there are any."""
        return self.test if self.test is not None else next(iter(self.eval.values()), None)

    @property
    def num_rows(self) -> int:
        """To train on and to evaluate with."""
        return len(self.train) + sum(map(len, self.eval.values()))


def set_template(tokenizer: PreTrainedTokenizerBase, choice: str, where: str) -> None:
    """Give the tokenizer the chat template of the recipe; its own must exist to be chosen."""
    if choice != CHOSEN_BY_MODEL:
        tokenizer.chat_template = TEMPLATES[choice]
    elif not tokenizer.chat_template:
        raise chat_templates.missing(where)


def load(
    recipe: Recipe,
    base_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    columns: Callable[..., dict[str, Any]],
) -> Splits:
    """Read, check and split the data of a recipe.

    `columns`: the task's, (example, assistant_only=) -> a row as its trainer takes it.
    """
    data = recipe.data
    examples = _read(recipe, base_dir / data.train)
    if any(e.messages for e in examples):
        if data.chat_template == CHOSEN_BY_MODEL:
            chat_templates.check(base_dir / recipe.model.id)
        set_template(tokenizer, data.chat_template, recipe.model.id)
    held_out = {name: _read(recipe, base_dir / file) for name, file in data.eval_files.items()}
    train, part, test = split(examples, data.shares, recipe.train.seed)
    held_out = held_out or ({"": part} if part else {})
    assistant_only = _marks_replies(tokenizer) and any(_num_replies(e) > 1 for e in examples)

    def rows(part: Sequence[Example]) -> Dataset:
        return Dataset.from_list([columns(e, assistant_only=assistant_only) for e in part])

    return Splits(
        train=rows(train),
        eval={name: rows(part) for name, part in held_out.items()},
        test=rows(test) if test else None,
        assistant_only=assistant_only,
    )


def _read(recipe: Recipe, path: Path) -> list[Example]:
    data, kinds = recipe.data, kinds_of_rows(recipe.task)
    rows = read_examples(path, format=data.format, on_bad=data.on_bad, kinds=kinds)
    return [example for _, example in rows]


def split(
    examples: Sequence[Example], shares: Sequence[int], seed: int
) -> tuple[list[Example], list[Example], list[Example]]:
    """Draw train, eval and test; exact duplicates go to one side, so nothing leaks."""
    groups: dict[bytes, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(_digest(example), []).append(index)
    keys = list(groups)
    random.Random(seed).shuffle(keys)  # noqa: S311  # a split, no secret
    first, evaluated, _ = parts_of(len(keys), shares)
    second = first + evaluated
    parts = keys[:first], keys[first:second], keys[second:]
    picked = [[examples[i] for i in sorted(j for k in part for j in groups[k])] for part in parts]
    return picked[0], picked[1], picked[2]


def _digest(example: Example) -> bytes:
    text = "\0".join(part for part, _ in example.segments)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def _num_replies(example: Example) -> int:
    return sum(m.role == "assistant" for m in example.messages)


def _marks_replies(tokenizer: PreTrainedTokenizerBase) -> bool:
    return "{% generation %}" in str(tokenizer.chat_template or "")
