"""TOML from anywhere: what would only serve to fill the memory is refused before it is parsed."""

from __future__ import annotations

import re
import tomllib
from typing import Any

_MOST_PARTS = 20
"""Of a dotted key. tomllib keeps each beginning of one: a megabyte of dots would take terabytes."""
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_LONG_KEY = re.compile(
    rf"(?:^|[{{,\[])[ \t]*+{_PART}(?:\.[ \t]*+{_PART}){{{_MOST_PARTS}}}", re.MULTILINE
)


def parse(text: str) -> dict[str, Any]:
    """The tables; ValueError for what is no TOML, or nested deeper than any file of ours."""
    if found := _LONG_KEY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"a key of over {_MOST_PARTS} parts (at line {line})")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
