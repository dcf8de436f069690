"""Rated replies: a row of another format, and in `label` whether its reply is a good one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from profiles.data.formats.alpaca import ALPACA
from profiles.data.formats.messages import MESSAGES
from profiles.data.formats.prompt_completion import PROMPT_COMPLETION
from profiles.data.formats.sharegpt import SHAREGPT
from profiles.data.formats.spec import FLAGS, Example, Field, Format, RowError
from profiles.data.formats.values import flag
from profiles.data.words import printable

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row

_GOOD = "|".join([word for word, is_good in FLAGS.items() if is_good])
_REPLIES = (MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA)


def _read(row: Row) -> Example:
    is_good = flag(row, "label")
    for by_alias in (False, True):
        for one in _REPLIES:
            if one.fits(row, by_alias=by_alias):
                found = one.example(row)
                return replace(found, is_good=is_good, remarks=(*_taken(row), *found.remarks))
    raise RowError("have a `label` but no reply that it rates")


def _taken(row: Row) -> tuple[str, ...]:
    """What a label that is no truth was taken to mean; a file may mean a class by it."""
    given = row["label"]
    if isinstance(given, bool) or str(given).lower() in ("true", "false"):
        return ()
    is_good = "good" if flag(row, "label") else "bad"
    return (f"have `label` {printable(str(given), 20)}, which is read as a {is_good} reply",)


RATED = Format(
    name="rated",
    required=(Field(name="label", aliases=("kto_tag",), holds="flag"),),
    beside=_REPLIES,
    read=_read,
    kind="rated",
    needs="training on good and bad replies (KTO)",
    instead='name the task: `--task kto`, in a recipe `task = "kto"`; or keep the good replies '
    "alone, without the label, as in "
    "jq -c 'select(.label // .kto_tag | . == 1 or (tostring | ascii_downcase | "
    f'test("^({_GOOD})$"))) | del(.label, .kto_tag)\' '
    "FILE.jsonl > good.jsonl; or, where `label` says something else, set the format to that of the "
    'rest of the row, such as "messages" (--format messages)',
)
