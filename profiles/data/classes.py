"""Whether the labels of rows are classes that a model can learn to tell apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from profiles.errors import ExitCode, UserError
from profiles.quantities import count_text, some_of

if TYPE_CHECKING:
    from profiles.facts import Dataset

NUM_LABELS: Final = 1000
"""So many are counted, and as many are too many."""
_FEWEST: Final = 2
_FEW_ROWS: Final = 5
_NUM_SHOWN: Final = 5


def fault(labels: Mapping[str, int]) -> str:
    """Why nothing can be learnt from rows with these labels; empty if something can.

    `labels`: rows of each, as far as they are counted.
    """
    if len(labels) < _FEWEST:
        return (
            f"all rows have one label, {some_of(list(labels), 1)}: there is nothing to tell apart"
        )
    if len(labels) >= NUM_LABELS:
        return f"the rows have {count_text(NUM_LABELS)} labels or more, too many to be classes"
    if 2 * len(labels) > sum(labels.values()):
        return (
            f"{count_text(sum(labels.values()))} rows have {count_text(len(labels))} labels: "
            "most stand at one row alone, so they are no classes"
        )
    return ""


def remarks(labels: Mapping[str, int]) -> list[str]:
    """What is wrong with the labels, or else worth a look."""
    if found := fault(labels):
        return [found]
    rare = [name for name, count in labels.items() if count < _FEW_ROWS]
    if not rare:
        return []
    what = "label stands" if len(rare) == 1 else "labels stand"
    few = f"{count_text(len(rare))} {what} at fewer than {_FEW_ROWS} rows"
    return [f"{few}, from which little is learnt: {some_of(rare, _NUM_SHOWN)}"]


def one_sided(labels: Mapping[str, int]) -> list[str]:
    """What is wrong with replies that are rated, if all are rated alike."""
    if len(labels) != 1:
        return []
    return [f"all replies are labelled {next(iter(labels))}, and good ones are learnt against bad"]


def check(trained: Sequence[Dataset], held_out: Sequence[Dataset]) -> None:
    """UserError if the classes of what is trained on cannot be learnt, or others are evaluated."""
    labels = Counter[str]()
    for one in trained:
        labels.update(dict(one.labels))
    refuse(labels, trained[0].path)
    for one in held_out:
        refuse_unknown(dict(one.labels), labels, one.path)


def refuse(labels: Mapping[str, int], where: str) -> None:
    """UserError if nothing can be learnt from these labels."""
    if why := fault(labels):
        raise UserError(
            "the labels cannot be learnt",
            why=why,
            do="give from 2 to 999 classes, with several rows each; numbers that are measured, "
            "such as prices, are no classes",
            where=where,
            code=ExitCode.BAD_DATA,
        )


def refuse_unknown(labels: Iterable[str], trained: Iterable[str], where: str) -> None:
    """UserError for rows to evaluate whose class is in no row that is trained on."""
    if unknown := sorted(set(labels).difference(trained)):
        raise UserError(
            "rows to evaluate have labels that no row to train on has",
            why=f"no such class can be found: {some_of(unknown, _NUM_SHOWN)}",
            do="write both files with the same labels, or leave these rows out",
            where=where,
            code=ExitCode.BAD_DATA,
        )
