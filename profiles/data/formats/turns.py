"""The turns of a chat, in whatever way a row writes them.

Decides how roles and the keys of turns are named, and which replies are learnt. A turn is an object
with a role and a content; some files keep a question with its answer in one object.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from profiles.data.formats.calls import calls, calls_of, tools_of
from profiles.data.formats.spec import REASONING_KEYS, Example, Field, MediaError, Message, RowError
from profiles.data.formats.values import optional_text, text, type_error
from profiles.data.json_values import parse_cell
from profiles.data.words import printable, type_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from profiles.data.formats.spec import Role, Row

CHAT_FIELDS: Final = (
    Field(name="system", aliases=("system_prompt",)),
    Field(name="tools", aliases=("functions",), holds="either"),
)
"""Columns that belong to a chat in any format."""

_CALLERS: Final = frozenset(("function_call", "tool_call"))
"""Roles whose content is the JSON of a call."""
_ROLES: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "bard", "ai"), "assistant"),
    **dict.fromkeys(_CALLERS, "assistant"),
    **dict.fromkeys(("tool", "tool_response", "tool_result", "observation", "ipython"), "tool"),
    **dict.fromkeys(("function", "function_response"), "tool"),
}
_CONTENT_KEYS: Final = ("content", "value", "text")
_CALL_KEYS: Final = ("tool_calls", "function_call")
_WEIGHT_KEYS: Final = ("weight", "loss_weight", "train", "mask")
_DETAIL_KEYS: Final = ("train_detail", "training_detail")
_READ: Final = frozenset(("role", "from", *_CONTENT_KEYS, *REASONING_KEYS, *_WEIGHT_KEYS))
_READ_BY_ROLE: Final[Mapping[Role, frozenset[str]]] = {
    "system": _READ,
    "user": _READ,
    "assistant": _READ.union(_CALL_KEYS),
    "tool": _READ.union(("name", "tool_call_id")),
}
"""Keys of a turn that are read."""
_ASKED: Final = ("human", "user", "input", "question", "query", "prompt")
_ANSWERED: Final = ("assistant", "gpt", "bot", "output", "answer", "response")
"""Keys of a question and its answer in one object."""


def parsed(row: Row, list_key: str) -> Row:
    """The row, with the list under a key as one where it is written as JSON in a text."""
    found = row.get(list_key)
    return row | {list_key: parse_cell(found, list_key)} if isinstance(found, str) else row


def turns(row: Row, list_key: str) -> list[Message]:
    """The turns of a list; RowError for one that cannot be understood."""
    found = row.get(list_key)
    if not isinstance(found, list):
        raise type_error(found, list_key, list)
    if not found:
        raise RowError(f"have no turns in `{list_key}`")
    messages: list[Message] = []
    for one in found:
        new = turns_of(one, list_key)
        if new[0].calls and messages and (joined := _in_parallel(messages[-1], new[0], one)):
            messages[-1] = joined
        else:
            messages += new
    return messages


def turns_of(value: object, list_key: str) -> list[Message]:
    """One entry of the list under a key: a turn, or a question with its answer."""
    if not isinstance(value, dict):
        raise RowError(f"have a turn in `{list_key}` that is not an object")
    inside = f" of a turn in `{list_key}`"
    role_key = "role" if value.get("role") is not None else "from"
    if value.get(role_key) is None:
        return _pair(value, inside)
    name = text(value, role_key, inside)
    role = _ROLES.get(name) or _ROLES.get(name.strip().lower())
    if role is None:
        raise RowError(f"have the unknown role `{printable(name, 24)}` in `{list_key}`")
    key = _content_key(value)
    if len(value) == len((role_key, key)) and isinstance(value.get(key), str):
        if name in _CALLERS:
            return [Message(role=role, content="", calls=calls(value[key]))]
        return [Message(role=role, content=text(value, key, inside))]
    return [_rich_turn(value, role, name, key, inside)]


def _content_key(value: Row) -> str:
    for key in _CONTENT_KEYS:
        if value.get(key) is not None:
            return key
    return _CONTENT_KEYS[0]


def _rich_turn(value: Row, role: Role, name: str, key: str, inside: str) -> Message:
    """A turn with more than a role and a text."""
    if detail := next((key for key in _DETAIL_KEYS if value.get(key)), ""):
        raise RowError(f"learn parts of a turn (`{detail}`), which is not supported")
    called = calls(value[key]) if name in _CALLERS else calls_of(value)
    if called and role != "assistant":
        raise RowError(f"have a call of a tool in a turn of the role `{printable(name, 24)}`")
    content, thought = "", ""
    if name not in _CALLERS:
        content, thought = _content(value, key, inside, may_lack=bool(called))
    given = next((one for one in REASONING_KEYS if value.get(one)), "")
    is_tool = role == "tool"
    return Message(
        role=role,
        content=content,
        calls=called,
        reasoning=text(value, given, inside) if given else thought,
        name=optional_text(value, "name", inside) if is_tool else "",
        call_id=optional_text(value, "tool_call_id", inside) if is_tool else "",
        is_learnt=all(_weight(value, key) for key in _WEIGHT_KEYS),
    )


def _in_parallel(before: Message, new: Message, value: Row) -> Message | None:
    """Calls that follow each other, each in a turn of its own, as one turn; else None."""
    is_one = value.get("from", value.get("role")) in _CALLERS and before.calls
    if not is_one or before.content or before.is_learnt != new.is_learnt:
        return None
    return replace(before, calls=before.calls + new.calls)


def _pair(value: Row, inside: str) -> list[Message]:
    """A question and its answer, after a system text if there is one."""
    asked = next((key for key in _ASKED if key in value), "")
    answered = next((key for key in _ANSWERED if key in value), "")
    if not asked or not answered:
        raise RowError(f"lack `role`{inside}")
    system = optional_text(value, "system", inside)
    return [
        *([Message(role="system", content=system)] if system else []),
        Message(role="user", content=text(value, asked, inside)),
        Message(role="assistant", content=text(value, answered, inside)),
    ]


# --- What a turn says ---------------------------------------------------------------------------


def _content(value: Row, key: str, inside: str, *, may_lack: bool) -> tuple[str, str]:
    """The text of a turn, and what is thought in it where that is one of its parts."""
    given = value.get(key)
    if isinstance(given, list):
        return _parts(given, key, inside)
    if given is None and may_lack:
        return "", ""
    return text(value, key, inside), ""


def _parts(given: list[Any], key: str, inside: str) -> tuple[str, str]:
    """A content in parts, joined as they stand."""
    said, thought = [], []
    for part in given:
        if isinstance(part, str):
            said.append(part)
            continue
        if not isinstance(part, dict):
            raise RowError(f"have {type_name(type(part))} among the parts of `{key}`{inside}")
        kind = part.get("type") or "text"
        if kind == "thinking":
            thought.append(text(part, "thinking", f" of a part{inside}"))
        elif kind in ("text", "input_text", "output_text"):
            said.append(text(part, "text", f" of a part{inside}"))
        else:
            shown = printable(str(kind), 24)
            raise MediaError(
                f"have a part of the type `{shown}`{inside}: only texts are learnt here"
            )
    return "".join(said), "".join(thought)


def _weight(value: Row, key: str) -> bool:
    """Whether a turn is learnt by one of the keys that may say so."""
    given = value.get(key)
    if given is None:
        return True
    if not isinstance(given, int | float):
        raise type_error(given, key, int, " of a turn")
    if given not in (0, 1):
        raise RowError(f"weigh a turn {given:g} (`{key}`): a reply is learnt, 1, or not, 0")
    return bool(given) != (key == "mask")


# --- A chat -------------------------------------------------------------------------------------


def ending_with_a_reply(messages: list[Message]) -> list[Message]:
    """The same turns; RowError where nothing is learnt from the last one."""
    if messages[-1].role != "assistant":
        raise RowError("do not end with a reply of the assistant")
    return messages


def chat(row: Row, messages: list[Message], *list_keys: str, **more: Any) -> Example:
    """An example of these turns with the columns `system` and `tools`.

    A system turn inside the conversation wins over the column. `list_keys`: where the turns stand
    in the row, to tell what was taken from there and what was not.
    """
    remarks: dict[str, None] = {}
    system = optional_text(row, "system")
    if messages[0].role == "system":
        if system and system != messages[0].content:
            remarks["have another text in `system` than in the system turn, which is used"] = None
    elif system:
        messages = [Message(role="system", content=system), *messages]
    for key in list_keys:
        for one in row[key] if isinstance(row.get(key), list) else ():
            if len(one) != len(("role", "content")):
                remarks.update(dict.fromkeys(_told(one)))
    return Example(messages=tuple(messages), tools=tools_of(row), remarks=tuple(remarks), **more)


def plain(row: Row, **texts: str) -> Example:
    """An example without turns, in which the columns of chats have no place."""
    unused = [f"`{one.name}`" for one in CHAT_FIELDS if row.get(one.name)]
    told = f"have {' and '.join(unused)} beside plain texts, where it is not used"
    return Example(**texts, remarks=(told,) if unused else ())  # type: ignore[arg-type]


def _told(value: Row) -> list[str]:
    """What a turn with more than a role and a text was taken to mean."""
    name = value.get("role", value.get("from"))
    role = _ROLES.get(str(name).strip().lower())
    if role is None:  # a question with its answer
        return []
    found = []
    unread = [key for key, given in value.items() if key not in _READ_BY_ROLE[role] and given]
    if unread:
        names = ", ".join([f"`{printable(key, 40)}`" for key in unread[:4]])
        found.append(f"have turns with {names}, which is not used")
    for key in _WEIGHT_KEYS:
        if value.get(key) is None:
            continue
        is_learnt = _weight(value, key)
        if role == "assistant" and not is_learnt:
            says = "true" if key == "mask" else "0"
            found.append(f"have replies that are read but not learnt, for their `{key}` is {says}")
        if role != "assistant" and is_learnt and key != "mask":
            found.append(f"have `{key}` 1 in turns that are no replies, which are never learnt")
    return found
