"""Why faulty rows refuse a file, and what can be done with it, from what a pass counted."""

from __future__ import annotations

from typing import Any, Final, Protocol

from profiles.data import jq_commands
from profiles.data.datafile import Container, DataFile

MAX_BAD_SHARE: Final = 0.10
"""Of the rows, up to which faulty ones may be left out."""
OTHER_TEMPLATE: Final = (
    'take another template, such as data.chat_template = "chatml" (--chat-template chatml)'
)
_MERGE: Final = (
    'jq -c \'if .messages[0].role == "system" then .messages = [.messages[1] + {content: '
    '(.messages[0].content + "\\n\\n" + .messages[1].content)}] + .messages[2:] else . end\' '
    f"{jq_commands.FILE} > merged.jsonl"
)


class Counted(Protocol):
    """What is asked of a tally of rows."""

    num_bad: int
    num_refused_by_template: int
    num_with_media: int
    takes_merged: bool
    format: Any
    detected: Any
    file: DataFile | None
    types: dict[str, dict[type, list[int]]]
    mapping: Any


def why(tally: Counted) -> str:
    """What a row must be."""
    if tally.num_refused_by_template == tally.num_bad:
        return "a model reads a row as its chat template writes it"
    if tally.num_with_media == tally.num_bad:
        return "texts alone are learnt here, and one about a picture or a sound is none of them"
    if tally.format is None:
        return "each data row needs usable keys"
    keys = ", ".join(f"`{key}`" for key in tally.format.keys)
    needs = f"each {tally.format.name} row needs usable {keys}"
    if other := _other_format(tally):
        needs += f"; the keys of the first rows look like {other}"
    return needs


def do(tally: Counted, *, too_many: bool) -> str:
    """Ways out, the likeliest first; `too_many`: more rows than may be left out are faulty."""
    ways = []
    if tally.num_refused_by_template:
        ways.append(OTHER_TEMPLATE)
    if tally.takes_merged:
        ways.append(_merging(tally))
    if other := _other_format(tally):
        ways.append(f'leave data.format (--format) out, or set it to "{other}"')
    has_media = tally.num_with_media == tally.num_bad
    mend = "take these rows out of the file" if has_media else "repair these rows"
    if too_many:
        ways.append(f"{mend}; more than {MAX_BAD_SHARE:.0%} are faulty, too many to skip")
    else:
        ways.append(f'{mend}, or leave them out: on_bad = "skip" (--on-bad skip)')
    return "; or ".join(ways)


def _other_format(tally: Counted) -> str:
    """What the rows look like, where they were to be read otherwise."""
    if tally.format is None or tally.detected in (None, tally.format):
        return ""
    return str(tally.detected.name)


def _merging(tally: Counted) -> str:
    """How a system text gets into the first question."""
    way = "put the system text at the beginning of the first question"
    file = tally.file
    is_json = file is not None and file.container in (Container.LINES, Container.LIST)
    if file is None or not is_json or "messages" not in tally.types or tally.mapping:
        return way
    return f"{way}: {jq_commands.for_file(_MERGE, file)}"
