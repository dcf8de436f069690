"""Chat templates: which one a model folder brings, and how turns become text by one.

A template is a program in jinja. The environment is transformers' (its sandbox, loop controls and
the `{% generation %}` mark around replies that are learnt), without loading transformers. Whoever
renders has had the template tried in quarantine before: a sandbox does not keep it from running for
ever. Does not know tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from profiles.models.safe_config import MAX_JSON_BYTES, read_json

if TYPE_CHECKING:
    from jinja2 import Environment, Template

Turn = dict[str, Any]
Span = tuple[int, int]
"""First character and the one after the last."""

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Noncharacters of Unicode, which no text may hold: around what a template marks as learnt."""
_OF_DICTS: Final = frozenset(dir(dict))
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class TemplateError(Exception):
    """A template does not write these turns; the text says why, in its own words."""


@dataclass(slots=True)
class ChatTemplate:
    """A template with the special tokens that it may write."""

    source: str
    special: Mapping[str, str] = field(default_factory=dict)
    """Like {"bos_token": "<s>"}."""
    name: str = ""
    """Of the family or the file that was chosen; empty for the model's own."""
    _texts_as_arguments: bool = False
    """It puts the arguments of a call together as text, so it must get JSON."""

    def render(
        self, turns: Sequence[Turn], tools: Sequence[Any] = (), *, asks: bool = False
    ) -> tuple[str, tuple[Span, ...]]:
        """The text, and what the template marks as learnt; TemplateError if it cannot.

        `asks`: with the beginning of the reply that is asked for.
        """
        written = self._written(turns, tools, asks=asks)
        if _OPEN not in written:
            return written, ()
        return _without_marks(written)

    def _written(self, turns: Sequence[Turn], tools: Sequence[Any], *, asks: bool) -> str:
        calls = any("tool_calls" in turn for turn in turns)
        for as_text in (self._texts_as_arguments, True) if calls else (False,):
            try:
                text: str = _compiled(self.source).render(
                    messages=_with_text_arguments(turns) if as_text else turns,
                    tools=list(tools) or None,
                    documents=None,
                    add_generation_prompt=asks,
                    **self.special,
                )
            except TypeError as error:
                if as_text or not calls:
                    raise TemplateError(_reason(error)) from error
            except Exception as error:  # a template may fail in any way that a program can
                raise TemplateError(_reason(error)) from error
            else:
                self._texts_as_arguments = as_text
                return text
        raise AssertionError


def _reason(error: Exception) -> str:
    """What the template says, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said[:200]


def _with_text_arguments(turns: Sequence[Turn]) -> list[Turn]:
    return [
        turn | {"tool_calls": [_with_text(call) for call in turn["tool_calls"]]}
        if "tool_calls" in turn
        else turn
        for turn in turns
    ]


def _with_text(call: Turn) -> Turn:
    function = call.get("function")
    if not isinstance(function, dict) or isinstance(function.get("arguments"), str):
        return call
    arguments = json.dumps(function.get("arguments"), ensure_ascii=False)
    return call | {"function": function | {"arguments": arguments}}


def _without_marks(written: str) -> tuple[str, tuple[Span, ...]]:
    """The text without the signs around what is learnt, and where that stands in it."""
    parts: list[str] = []
    spans: list[Span] = []
    length, begun = 0, -1
    for num_opened, opened in enumerate(written.split(_OPEN)):
        if num_opened and begun < 0:
            begun = length
        for num_closed, part in enumerate(opened.split(_CLOSE)):
            if num_closed:
                if length > begun >= 0:
                    spans.append((begun, length))
                begun = -1
            parts.append(part)
            length += len(part)
    return "".join(parts), tuple(spans)


@cache
def _compiled(source: str) -> Template:
    try:
        made = environment().from_string(source)
    except Exception as error:  # jinja's own syntax errors, and whatever its parser trips over
        raise TemplateError(f"it is no template: {_reason(error)}") from error
    made.globals = dict(made.globals)  # for each chat they are copied, from a chain of maps slowly
    return made


@cache
def environment() -> Environment:
    """As transformers makes it (utils/chat_template_utils.py), but that replies are marked."""
    import jinja2.ext  # noqa: PLC0415  # 40 ms that most commands can spare
    from jinja2 import nodes  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012  # jinja's own name and type

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            around = [nodes.Output([nodes.TemplateData(sign)]) for sign in (_OPEN, _CLOSE)]
            return nodes.Scope([around[0], *body, around[1]], lineno=line)

    class Names(jinja2.utils.Namespace):
        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"{name!r} may not be set")
            super().__setitem__(name, value)

    class Turns(ImmutableSandboxedEnvironment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            # What a turn says by a name, as jinja finds it once no attribute has been found
            if type(obj) is dict and attribute not in _OF_DICTS:
                if attribute in obj:
                    return obj[attribute]
                return self.undefined(obj=obj, name=attribute)
            return super().getattr(obj, attribute)

    made = Turns(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raiser(jinja2.TemplateError)
    made.globals["strftime_now"] = _strftime_now
    made.globals["namespace"] = Names
    return made


_moment: list[datetime] = []
"""What templates take for now, where it is not the present."""


def set_now(unix_seconds: float) -> None:
    """Have templates that write the date write that of this moment, in local time, from here on.

    So a run that goes on another day reads the rows that it began with.
    """
    _moment[:] = [datetime.fromtimestamp(unix_seconds)]  # noqa: DTZ006  # as transformers: local


def _strftime_now(form: str) -> str:
    """As transformers has it, whose `%f` is the microseconds."""
    now = _moment[0] if _moment else datetime.now()  # noqa: DTZ005  # as transformers: local
    return now.strftime(form)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options))


def _raiser(kind: type[Exception]) -> Callable[[str], None]:
    def raise_exception(message: str) -> None:
        raise kind(message)

    return raise_exception


# --- What a model folder brings ---------------------------------------------------------------


def source_of(folder: Path, *, with_tools: bool = False) -> str:
    """The folder's template, a file of its own before the key; "" without one.

    A tokenizer may bring one by name for rows with tools.
    """
    file = folder / "chat_template.jinja"
    if file.is_file() and file.stat().st_size <= MAX_JSON_BYTES:
        return file.read_text(encoding="utf-8", errors="replace")
    found = tokenizer_config(folder).get("chat_template")
    if isinstance(found, list):
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        wanted = ("tool_use", "default") if with_tools else ("default",)
        found = next((named[name] for name in wanted if name in named), None)
    return found if isinstance(found, str) else ""


def special_tokens(folder: Path) -> dict[str, str]:
    """The tokens that the tokenizer's configuration names, as templates call them."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        file = folder / name
        config = read_json(file) if file.is_file() else {}
        for key in _SPECIAL:
            value = config.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[key] = value
    return found


def tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; empty without one."""
    file = folder / "tokenizer_config.json"
    return read_json(file) if file.is_file() else {}
