"""Mistakes in a recipe: what each is, on which line, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from advisor.registry.lookup import METHODS
from advisor.registry.spec import keys_of
from profiles.errors import ExitCode, UserError

_SHOWN_CHARS = 100


def refusal(problems: list[str], where: str, *, number: int = 0) -> UserError:
    """The mistakes of one recipe: all, or the first of this number."""
    number = max(number, len(problems))
    count = "1 mistake" if number == 1 else f"{number} mistakes"
    more = [f"and {number - len(problems)} more"] if number > len(problems) else []
    return UserError(
        f"the recipe has {count}",
        why="\n".join(problems + more),
        do="correct it; `advisor recipe check` reads it again without starting anything",
        where=where,
        code=ExitCode.BAD_RECIPE,
    )


def describe(error: dict[str, Any], text: str, schema: type[BaseModel]) -> str:
    """One mistake that pydantic found, in a line."""
    # A discriminated union puts the chosen member into the location: method.lora.rank
    parts = [str(p) for p in error["loc"]]
    if len(parts) > 1 and parts[0] == "method" and parts[1] in METHODS:
        del parts[1]
    place = _line_of(parts, text)
    name = ".".join(parts)
    if error["type"] == "extra_forbidden":
        return f"{place}unknown key `{name}`{_did_you_mean(parts, error, schema)}"
    if error["type"] == "missing":
        return f"{place}missing key `{name}`"
    if error["type"] == "union_tag_not_found":
        return f"{at('method.name', text)}missing; there are {', '.join(METHODS.ready)}"
    if error["type"] == "union_tag_invalid":
        given = str(error["ctx"]["tag"])
        return f"{at('method.name', text)}there is no method {given!r}; {METHODS.unknown(given)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    is_told = isinstance(error["input"], dict) or repr(error["input"]) in message
    shown = "" if is_told else f", found {_short(error['input'])}"
    return f"{place}`{name}`: {message[:1].lower()}{message[1:]}{shown}"


def at(key: str, text: str) -> str:
    """Like "line N: `train.epochs`: "."""
    return f"{_line_of(key.split('.'), text)}`{key}`: "


def _short(value: object) -> str:
    text = repr(value[:_SHOWN_CHARS] if isinstance(value, str) else value)
    return text if len(text) <= 2 * _SHOWN_CHARS else f"{text[: 2 * _SHOWN_CHARS]}..."


def _did_you_mean(parts: list[str], error: dict[str, Any], schema: type[BaseModel]) -> str:
    if len(parts) == 1:
        known = [f.alias or n for n, f in schema.model_fields.items()]
    elif parts[0] == "method":
        known = ["name", *keys_of(METHODS[str(error["loc"][1])].settings)]
    else:
        known = _keys_of(schema, parts[:-1])
    near = difflib.get_close_matches(parts[-1], known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; known keys: {', '.join(known)}"


def _keys_of(section: Any, tables: list[str]) -> list[str]:
    """The keys of a table that lies within others."""
    for name in tables:
        field = getattr(section, "model_fields", {}).get(name)
        section = field.annotation if field else None
    return list(getattr(section, "model_fields", ()))


def _line_of(parts: list[str], text: str) -> str:
    """Like "line N: " of the key, if the text says where it is."""
    for number, table, key in _keys(text):
        if [*table, key] == parts[: len(table) + 1]:
            return f"line {number}: "
    header = re.search(rf"^\[{re.escape('.'.join(parts[:-1]))}\]", text, re.MULTILINE)
    return f"line {text[: header.start()].count(chr(10)) + 1}: " if header and parts[:-1] else ""


@lru_cache(maxsize=1)
def _keys(text: str) -> tuple[tuple[int, list[str], str], ...]:
    """Line, table and key of each; found once for all mistakes of a text."""
    return tuple(_found_keys(text))


def _found_keys(text: str) -> Iterator[tuple[int, list[str], str]]:
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([\w.-]+)\]", line):
            table = header[1].split(".")
        elif key := re.match(r"\s*([\w-]+)\s*=", line):
            yield number, table, key[1]
