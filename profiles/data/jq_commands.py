"""Commands of jq that a user is shown, written for the file that they are about."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from profiles.data.datafile import Container

if TYPE_CHECKING:
    from profiles.data.datafile import DataFile

FILE: Final = "FILE.jsonl"
"""In a command, the file with one object a line; what is not JSON must be written so first."""
_JQ: Final = "jq -c '"


def for_file(text: str, file: DataFile) -> str:
    """A text whose commands read `FILE.jsonl`, with those that do the same to this file."""
    name = shlex.quote(file.path)
    if file.container is Container.LINES and not file.is_packed:
        return text.replace(FILE, name)
    if file.container not in (Container.LINES, Container.LIST):
        return text
    steps = [f"gunzip -c {name}"] if file.is_packed else []
    if file.container is Container.LIST:
        steps.append("jq -c '.[]'" if steps else f"jq -c '.[]' {name}")
    return text.replace(_JQ, f"{' | '.join(steps)} | {_JQ}").replace(f" {FILE}", "")
