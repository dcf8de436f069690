"""Tools that a model may call, and its calls of them, in the form that chat templates read.

Decides which ways to write them are understood. Both become OpenAI's: {"type": "function",
"function": {...}}, the arguments of a call as an object.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from profiles.data.formats.spec import RowError
from profiles.data.json_values import parse_cell
from profiles.data.words import printable, type_name

if TYPE_CHECKING:
    from profiles.data.formats.spec import Row

_ARGUMENTS: Final = ("arguments", "parameters", "args")
"""Names in use for what a tool is called with."""


def tools_of(row: Row) -> tuple[Row, ...]:
    """The functions in `tools`, a list or its JSON; none where it is missing, null or empty."""
    value = row.get("tools")
    if isinstance(value, str):
        value = parse_cell(value, "tools") if value.strip() else None
    if not value:
        return ()
    if not isinstance(value, list):
        raise RowError(f"have {type_name(type(value))} in `tools`, not a list")
    _check_characters(value, "tools")
    return tuple([_tool(one) for one in value])


def _tool(value: object) -> Row:
    function = _function(value)
    if function is None or not isinstance(value, dict):
        raise RowError("have an entry in `tools` that names no function")
    return value if value.get("function") else {"type": "function", "function": function}


def _function(value: object) -> Row | None:
    """What says which function is meant, wrapped as OpenAI does it or bare."""
    if not isinstance(value, dict):
        return None
    function = value.get("function") or value
    if not isinstance(function, dict):
        return None
    name = function.get("name")
    return function if isinstance(name, str) and name else None


def calls_of(turn: Row) -> tuple[Row, ...]:
    """The calls in `tool_calls` of a turn, or the one in `function_call`."""
    value = turn.get("tool_calls") or turn.get("function_call")
    return calls(value) if value else ()


def calls(value: Any) -> tuple[Row, ...]:
    """A call or a list of calls, each an object; or the JSON of it."""
    if isinstance(value, str):
        value = parse_cell(value, "function_call")
    found = value if isinstance(value, list) else [value]
    if not found:
        raise RowError("have an empty list of calls")
    return tuple([_call(one) for one in found])


def _call(value: object) -> Row:
    function = _function(value)
    if function is None or not isinstance(value, dict):
        raise RowError("have a call that names no function")
    name = function["name"]
    given: Any = next((function[key] for key in _ARGUMENTS if function.get(key) is not None), {})
    if isinstance(given, str):
        place = f"arguments` of a call of `{printable(name, 40)}"
        given = parse_cell(given, place) if given.strip() else {}
    if not isinstance(given, dict):
        what = type_name(type(given))
        raise RowError(f"call a tool with {what} as `arguments`, not an object")
    call: Row = {"type": "function", "function": {"name": name, "arguments": given}}
    if isinstance(value.get("id"), str):
        call["id"] = value["id"]
    _check_characters(call, "tool_calls")
    return call


def _check_characters(value: object, key: str) -> None:
    """RowError for what no template could write as text."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RowError(f"have half of a character (a lone \\ud8..) in `{key}`") from None
    except (TypeError, ValueError):  # types that Parquet knows and JSON does not
        raise RowError(f"have something in `{key}` that JSON cannot say") from None
