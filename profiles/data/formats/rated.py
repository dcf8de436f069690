"""Rated replies: a row of another format, and in `label` whether its reply is a good one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from profiles.data.formats.alpaca import ALPACA
from profiles.data.formats.messages import MESSAGES
from profiles.data.formats.prompt_completion import PROMPT_COMPLETION
from profiles.data.formats.sharegpt import SHAREGPT
from profiles.data.formats.spec import Example, Field, Format, RowError
from profiles.data.formats.values import flag

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row

_REPLIES = (MESSAGES, SHAREGPT, PROMPT_COMPLETION, ALPACA)


def _read(row: Row) -> Example:
    is_good = flag(row, "label")
    for by_alias in (False, True):
        for one in _REPLIES:
            if one.fits(row, by_alias=by_alias):
                return replace(one.example(row), is_good=is_good)
    raise RowError("have a `label` but no reply that it rates")


RATED = Format(
    name="rated",
    required=(Field(name="label", aliases=("kto_tag",), holds="flag"),),
    beside=_REPLIES,
    read=_read,
    kind="rated",
    needs="training on good and bad replies (KTO)",
    instead='name the task: `--task kto`, in a recipe `task = "kto"`; or keep the good replies '
    "alone, without the label, as in "
    "jq -c 'select((.label // .kto_tag) | . == true or . == 1) | del(.label, .kto_tag)' "
    "FILE.jsonl > good.jsonl; or, where `label` says something else, set the format to that of the "
    'rest of the row, such as "messages" (--format messages)',
)
