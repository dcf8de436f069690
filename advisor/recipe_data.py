"""[data] of a recipe: which files, how their rows are read, and what is learnt of them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from advisor.path_syntax import InputPath, sound_path
from advisor.recipe_sections import SHOWN_CHARS, Section, known
from advisor.registry.lookup import nearest
from profiles import chat_families, personal
from profiles.data import charsets, formats
from profiles.data.columns import Columns

OWN_TEMPLATE = "model"


def _chat_template(choice: str) -> str:
    """The model's own, a family's, or a file; ValueError with the nearest name for another."""
    if choice.endswith(chat_families.SUFFIX):
        return sound_path(choice)
    there_are = (OWN_TEMPLATE, *chat_families.names())
    if choice not in there_are:
        raise ValueError(
            f"there is no chat template {choice[:SHOWN_CHARS]!r}; {nearest(choice, there_are)}"
            f" (a file of one's own ends in {chat_families.SUFFIX})"
        )
    return choice


EvalSets = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], InputPath],
    Field(min_length=1, max_length=8),
]
"""Evaluation files by names of one's own: `[data.eval] domain = "...", general = "..."`."""


def _columns(columns: dict[str, str]) -> dict[str, str]:
    Columns.of(columns)
    return columns


Encoding = Annotated[
    str,
    AfterValidator(charsets.python_name),
    WithJsonSchema({"type": "string", "enum": [charsets.UTF8, *charsets.ENCODINGS]}),
]
"""Python's name of one that is read, by any name that it has."""


def _masks(value: Any) -> Any:
    """True, false, or a list of kinds; ValueError with the nearest name for another."""
    if isinstance(value, bool):
        return value
    kinds, there_are = value, personal.names()
    if not (isinstance(kinds, list | tuple) and all(isinstance(kind, str) for kind in kinds)):
        raise ValueError(f"must be true, false or a list of {', '.join(there_are)}")
    for kind in kinds:
        if kind not in there_are:
            near = nearest(kind, there_are)
            raise ValueError(f"there is no kind of personal data {kind[:SHOWN_CHARS]!r}; {near}")
    return tuple(dict.fromkeys(kinds))


_SHARES = r"^[1-9]\d{0,3}:\d{1,4}:\d{1,4}$"


def _shares(split: Any) -> Any:
    """Three numbers; ValueError with an example for another text."""
    if isinstance(split, str) and not re.match(_SHARES, split):
        raise ValueError(
            "must be three whole numbers: what is trained on, evaluated with and kept from both, "
            f'such as "8:1:1" or "90:10:0"; found {split[:SHOWN_CHARS]!r}'
        )
    return split


class CleanSection(Section):
    """[data.clean]: what is taken out of every row; each is counted and told."""

    html: bool = False
    """Tags, comments and entities of HTML become text; code between backquotes is left."""
    unicode: bool = False
    """Characters are composed (NFC)."""
    whitespace: bool = False
    """One space, one kind of line end, at most one empty line; code keeps its own."""
    duplicates: bool = False
    """Rows that the model reads exactly as an earlier one are left out."""


class MixedFile(Section):
    """One file of a mix."""

    file: InputPath
    """Relative to the recipe."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How often each row is in an epoch: of 0.05 a twentieth of the rows is drawn, none twice; of
    2.5 every row is there twice, and half of them a third time."""


def _several(files: list[MixedFile]) -> list[MixedFile]:
    names = [one.file for one in files]
    if len(set(names)) < len(names):
        raise ValueError("a file stands twice in the mix; give it one weight")
    return files


Mix = Annotated[list[MixedFile], Field(max_length=64, min_length=1), AfterValidator(_several)]


class DataSection(Section):
    """[data]: what it learns from."""

    train: InputPath | Mix
    """File or folder, relative to the recipe; or a mix of several, each with its weight:
    [{file = "a.jsonl", weight = 0.5}, {file = "b.jsonl"}]."""
    eval: InputPath | EvalSets | None = None
    """File for evaluation, or several with a name each, of which the first decides what is best;
    without it a part of `train` is split off."""
    format: Annotated[str, *known(formats.names, "data format")] | None = None
    """Found out from the rows if not given."""
    encoding: Encoding | None = None
    """What files that are not UTF-8 are in, such as "gb18030"; UTF-8 files are read as such."""
    columns: Annotated[dict[str, str], AfterValidator(_columns), Field(min_length=1)] | None = None
    """Parts of a row, such as `prompt`: a column's name, or a template of columns in braces like
    "{topic}\\n{instruction}"; only parts that are named are read then."""
    max_length: int = Field(default=1024, ge=8, le=1 << 20)
    """Tokens; longer rows are cut."""
    packing: bool = False
    """Fill every row up to max_length with several examples."""
    split: Annotated[str, Field(pattern=_SHARES), BeforeValidator(_shares)] = "8:1:1"
    """Train : eval : test, drawn with `train.seed`; exact duplicates stay on one side."""
    split_by: str | None = Field(default=None, min_length=1, max_length=200)
    """A column of `train`, such as its label or source: each of its values is divided so."""
    on_bad: Literal["error", "skip"] = "error"
    chat_template: Annotated[str, AfterValidator(_chat_template)] = OWN_TEMPLATE
    """`model`: the tokenizer's own; else a family, for base models that have none, or a file of
    one's own that ends in .jinja, relative to the recipe."""
    learn: Literal["all", "last"] = "all"
    """Replies of a chat that the loss is taken on: every one, or the last of each row."""
    clean: CleanSection = CleanSection()
    mask: Annotated[bool | tuple[str, ...], BeforeValidator(_masks)] = False
    """Personal data and keys become marks such as <EMAIL>: the usual kinds, or those named."""

    @property
    def train_files(self) -> tuple[MixedFile, ...]:
        """The files that are trained on, with their weights."""
        if isinstance(self.train, str):
            return (MixedFile(file=self.train),)
        return tuple(self.train)

    @property
    def eval_files(self) -> dict[str, str]:
        """The evaluation files by the names of their sets; the empty name for one without."""
        if self.eval is None:
            return {}
        return {"": self.eval} if isinstance(self.eval, str) else dict(self.eval)

    @property
    def shares(self) -> tuple[int, int, int]:
        """Of `train`: for training, for evaluation where no file is given for it, for neither."""
        train, evaluation, test = (int(share) for share in self.split.split(":"))
        return train, 0 if self.eval_files else evaluation, test

    @property
    def reading(self) -> dict[str, Any]:
        """How rows are read, as `profiles.data.dataset` takes it."""
        keys = ("format", "on_bad", "encoding", "columns")
        masks = self.mask if isinstance(self.mask, tuple) else personal.USUAL if self.mask else ()
        return {
            **{key: getattr(self, key) for key in keys},
            "clean": tuple(name for name, is_wanted in self.clean if is_wanted),
            "mask": masks,
        }

    @property
    def files(self) -> dict[str, str]:
        """All files of the table by key, such as "data.train.0.file", "data.eval.general"."""
        keys = {name: f"data.eval.{name}" if name else "data.eval" for name in self.eval_files}
        held_out = {keys[name]: file for name, file in self.eval_files.items()}
        is_file = self.chat_template.endswith(chat_families.SUFFIX)
        template = {"data.chat_template": self.chat_template} if is_file else {}
        trained = {f"data.train.{n}.file": one.file for n, one in enumerate(self.train_files)}
        if isinstance(self.train, str):
            trained = {"data.train": self.train}
        return {**trained, **held_out, **template}
