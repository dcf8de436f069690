"""The rows of a recipe as its trainer takes them: read, divided, written for the model, in tokens.

Rows come from the reader that checks them (`profiles.data.dataset`), text and tokens from where
checks and previews have theirs (`profiles.data.rendering`, `encoding`), so what was told before the
start is what is trained. The first process writes the tokens to the run's disk, and all map them.
Packing is TRL's business.
"""

from __future__ import annotations

import contextlib
import random
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from advisor.recipe import Recipe
from advisor.registry.lookup import TASKS, kinds_of_rows
from profiles.data import mixture, new_tokens
from profiles.data.dataset import UsableRow, read_examples
from profiles.data.encoding import Encoded, Encoder
from profiles.data.formats.spec import Example
from profiles.data.parts import held_out
from profiles.data.rendering import Renderer
from profiles.data.tokens import UNLIMITED
from profiles.row_counts import RowCounts
from profiles.runs import durable
from profiles.runs.rundir import read_json
from runner import checkpoints
from runner.checks import chat_templates
from runner.training import arrow_rows
from runner.training.arrow_rows import Joined, RowWriter
from runner.training.attempt import Progress
from runner.training.batches import IGNORED_LABEL

ROWS_PREFIX = "rows-"
"""Of the folders that hold the rows of an attempt."""
EVALUATE, KEEP, LEAVE_OUT = -1, -2, 0
"""Uses of a row; any other number is how often it is trained on in an epoch."""
_POLL_SECONDS = 0.1

Render = Callable[[Example], Encoded]
Columns = Callable[[Example, Render, int], dict[str, Any] | None]
"""A task's: an example as its trainer takes it, cut to a length; None if nothing is learnt."""


class Labelled(NamedTuple):
    """A text in tokens, cut to a length."""

    ids: list[int]
    labels: list[int]
    """The ids that are learnt, the others ignored."""


def labelled(encoded: Encoded, max_length: int) -> Labelled | None:
    """What a model reads and learns of a text; None if nothing is learnt within this length."""
    if not encoded.num_learnt_within(max_length):
        return None
    ids = encoded.ids
    labels = [IGNORED_LABEL] * len(ids)
    for first, last in encoded.learnt:
        labels[first:last] = ids[first:last]
    return Labelled(ids[:max_length], labels[:max_length])


@dataclass(slots=True)
class Part:
    """Rows for one use, in tokens."""

    rows: Dataset | None = None
    """None if there is none."""
    asked: list[Example] = field(default_factory=list)
    """The first of them, whose prompts may be answered."""
    num_dropped: int = 0
    """Rows of which nothing is learnt, left out."""
    num_cut: int = 0
    """Rows among the others that are longer than may be."""
    num_tokens: int = 0
    num_learnt: int = 0
    """Tokens that the loss is taken on."""
    num_used: int = 0
    """Rows that are not left out, as the files have them."""
    writer: RowWriter | None = None

    @property
    def counts(self) -> RowCounts:
        """The same numbers as a check gives."""
        return RowCounts(
            num_rows=self.num_used + self.num_dropped,
            num_dropped=self.num_dropped,
            num_cut=self.num_cut,
            num_tokens=self.num_tokens,
            num_learnt=self.num_learnt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The rows of a run; `test` is touched by no training."""

    train: Part
    eval: dict[str, Part]
    """The evaluation sets by name, which is empty for one without; none if nothing is held out."""
    test: Part
    has_eval_files: bool = False
    """The rows of `eval` come from files of their own."""
    told: list[str] = field(default_factory=list)
    """What the chat template writes otherwise than the file that is trained on says."""

    @property
    def of_train_file(self) -> RowCounts:
        """All rows of the file that is trained on, those that were drawn from it included."""
        drawn = () if self.has_eval_files else self.eval.values()
        return sum((part.counts for part in (*drawn, self.test)), self.train.counts)

    @property
    def eval_rows(self) -> dict[str, Dataset]:
        """Of each evaluation set that has any."""
        return {name: part.rows for name, part in self.eval.items() if part.rows is not None}

    @property
    def asked(self) -> list[Example]:
        """Rows whose prompts are answered: of those that decide nothing, if there are any."""
        held_out = [part.asked for part in (self.test, *self.eval.values()) if part.asked]
        return held_out[0] if held_out else []


def encoder_of(
    recipe: Recipe,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    base_dir: Path | None = None,
) -> Encoder:
    """What the model of this folder reads of an example, after a recipe in `base_dir`.

    The recipe's new tokens are added to the tokenizer.
    """
    texts = recipe.model.new_tokens
    backend, known = tokenizer.backend_tokenizer, tokenizer.get_vocab()
    add = tokenizer.add_tokens
    added = new_tokens.add(backend, texts, add_tokens=add, known=known) if texts else None
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    choice = recipe.data.chat_template
    choose = chat_templates.chooser(folder, choice, special, base_dir=base_dir)
    renderer = Renderer(
        choose,
        learn=recipe.data.learn,
        eos=tokenizer.eos_token or "",
        asks_by_template=chat_templates.asks(folder, choice),
    )
    found = Encoder.of(tokenizer.backend_tokenizer, renderer)
    found.added = added
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The data of a recipe, and how they are read."""

    recipe: Recipe
    base_dir: Path
    encoder: Encoder
    columns: Columns

    @property
    def joins(self) -> bool:
        """Rows are made of texts, however long each is."""
        return TASKS[self.recipe.task].joins

    def load(self, folder: Path, uses: Sequence[int] | None, progress: Progress) -> Splits:
        """The rows, in a folder of this attempt's own, which the first process writes.

        `uses`: as drawn, by the first process, which takes the folders of earlier attempts away;
        the others, with None, wait for it, and if it fails they are ended with it.
        """
        done, splits = folder / "done.json", self._splits()
        if uses is not None:
            for old in folder.parent.glob(f"{ROWS_PREFIX}*"):
                checkpoints.discard(old)
            folder.mkdir(parents=True)
            self._write(splits, uses, folder, progress)
            durable.write_json(done, {})
        while read_json(done) is None:
            time.sleep(_POLL_SECONDS)
        for name, part in _files(splits).items():
            part.rows = arrow_rows.read(folder / name) if (folder / name).stat().st_size else None
        return splits

    def _splits(self) -> Splits:
        data = self.recipe.data
        names = data.eval_files or ({"": ""} if data.shares[1] else {})
        return Splits(
            train=Part(),
            eval={name: Part() for name in names},
            test=Part(),
            has_eval_files=bool(data.eval_files),
        )

    def _write(self, splits: Splits, uses: Sequence[int], folder: Path, progress: Progress) -> None:
        data = self.recipe.data
        with contextlib.ExitStack() as files:
            for name, part in _files(splits).items():
                path = folder / name
                writer = Joined(path, data.max_length) if self.joins else RowWriter(path)
                part.writer = files.enter_context(writer)
            held_out = {EVALUATE: splits.eval.get("", splits.test), KEEP: splits.test}
            for row, use in zip(self._rows_to_train(splits.told), uses, strict=True):
                if use != LEAVE_OUT:
                    self._add(held_out.get(use, splits.train), row.example, max(1, use))
                progress.tick()
            for name, file in data.eval_files.items():
                for row in self._rows_of(file):
                    self._add(splits.eval[name], row.example)

    def draw(self) -> array[int]:
        """The use of each row of the files to train on: EVALUATE, KEEP, or so often in an epoch."""
        digests, value_of_row, counts = array("Q"), array("Q"), []
        values: dict[str, int] = {}
        data = self.recipe.data
        for one in data.train_files:
            before = len(digests)
            for row in self._rows_of(one.file, split_by=data.split_by):
                digests.append(_digest(row.example))
                value_of_row.append(values.setdefault(row.value, len(values)))
            counts.append(len(digests) - before)
        group_of_row, first_rows = _numbered(np.frombuffer(digests, np.uint64))
        value_of_group, _ = _numbered(np.frombuffer(value_of_row, np.uint64)[first_rows])
        seed = self.recipe.train.seed
        times = mixture.times(counts, [one.weight for one in data.train_files], seed)
        return drawn(group_of_row.data, value_of_group.data, times, data.shares, seed)

    def _rows_to_train(self, told: list[str]) -> Iterator[UsableRow]:
        for one in self.recipe.data.train_files:
            yield from self._rows_of(one.file, told=told)

    def _rows_of(
        self, file: str, *, split_by: str | None = None, told: list[str] | None = None
    ) -> Iterator[UsableRow]:
        return read_examples(
            self.base_dir / file,
            **self.recipe.data.reading,
            split_by=split_by,
            kinds=kinds_of_rows(self.recipe.task),
            renderer=self.encoder.renderer,
            told=told,
        )

    def _add(self, part: Part, example: Example, times: int = 1) -> None:
        max_length = self.recipe.data.max_length
        encoded: list[Encoded] = []

        def render(one: Example) -> Encoded:
            encoded.append(self.encoder.encode_one(one))
            return encoded[-1]

        row = self.columns(example, render, max_length)
        if row is None:
            part.num_dropped += times
            return
        assert part.writer is not None
        if isinstance(part.writer, Joined):
            part.writer.add_texts(row["input_ids"], times)
            max_length = UNLIMITED
        else:
            for _ in range(times):
                part.writer.add(row)
        part.num_used += times
        part.num_cut += times * any(one.num_tokens > max_length for one in encoded)
        part.num_tokens += times * sum([min(one.num_tokens, max_length) for one in encoded])
        part.num_learnt += times * sum([one.num_learnt_within(max_length) for one in encoded])
        if len(part.asked) < self.recipe.train.samples:
            part.asked.append(example)


def _files(splits: Splits) -> dict[str, Part]:
    """The parts by the names of their files."""
    held_out = {f"eval-{i}.arrow": part for i, part in enumerate(splits.eval.values())}
    return {"train.arrow": splits.train, **held_out, "test.arrow": splits.test}


def drawn(
    group_of_row: Sequence[int],
    value_of_group: Sequence[int],
    times: Sequence[int],
    shares: Sequence[int],
    seed: int,
) -> array[int]:
    """Draw the use of each row; equal rows go to one side.

    `group_of_row`: rows that are equal have the same number, in order of their appearance.
    `value_of_group`: the groups of each value are divided for themselves. `times`: how often each
    row is in an epoch if it is trained on, LEAVE_OUT for those of no use.
    """
    keys: Sequence[int] = range(len(value_of_group))
    if not all(times):
        keys = sorted({group for group, n in zip(group_of_row, times, strict=True) if n})
    keys = list(keys)
    random.Random(seed).shuffle(keys)  # noqa: S311  # a split, no secret
    evaluated, kept = held_out(keys, value_of_group, shares)
    use_of = dict.fromkeys(evaluated, EVALUATE) | dict.fromkeys(kept, KEEP)
    uses = (n and use_of.get(group, n) for group, n in zip(group_of_row, times, strict=True))
    return array("i", uses)


Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]


def _numbered(found: np.ndarray[Any, np.dtype[np.uint64]]) -> tuple[Numbers, Numbers]:
    """Equal ones with one number, in order of appearance; and where each number appears first."""
    _, first, of_sorted = np.unique(found, return_index=True, return_inverse=True)
    order = np.argsort(first)
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(order))
    return numbers[of_sorted], first[order]


def _digest(example: Example) -> int:
    """64 bits: where two rows share them by chance, both go to one side, which harms nothing."""
    text = "\0".join([part for part, _ in example.segments])
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
