"""The child that tries a chat template: compiles and renders it once, in transformers' sandbox.

Run as `python -P -m runner.checks.template_trial CPU_SECONDS`, by `runner.checks.quarantine`.
Stdin: {"template": text}. Stdout: {"refused": why}, empty where nothing is wrong. The environment
is built as transformers builds it (`utils/chat_template_utils.py`), without loading transformers. A
template that only objects to this conversation, as those do that know no system turn, is not
refused.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from runner.checks import quarantine

MAX_RENDERED_CHARS: Final = 1_000_000
_CHATS: Final = (
    [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
    [{"role": "user", "content": "Hello"}],
)


def main(argv: list[str]) -> int:
    """Answer one request; returns the exit code."""
    quarantine.confine(int(argv[1]))
    template = str(json.load(sys.stdin)["template"])
    print(json.dumps({"refused": trial(template)}))  # noqa: T201  # the answer
    return 0


def trial(template: str) -> str:
    """Why the template must not be used; "" if nothing is wrong with it."""
    from jinja2.exceptions import SecurityError, TemplateError  # noqa: PLC0415  # train extra

    try:
        rendered = [_render(template, chat) for chat in _CHATS]
    except SecurityError as error:
        return f"it reaches for what it must not touch: {error}"
    except (OverflowError, MemoryError, RecursionError) as error:
        return f"it computes without end: {type(error).__name__}"
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError):
        return ""  # a mistake, not an attack; training tells it with the row that it fails on
    longest = max(map(len, rendered))
    return f"it makes {longest} characters of two words" if longest > MAX_RENDERED_CHARS else ""


def _render(template: str, chat: list[dict[str, str]]) -> str:
    compiled = _environment().from_string(template)
    text: str = compiled.render(
        messages=chat,
        tools=None,
        documents=None,
        add_generation_prompt=len(chat) == 1,
        bos_token="<s>",  # noqa: S106  # a special token is no password
        eos_token="</s>",  # noqa: S106  # a special token is no password
        pad_token="<pad>",  # noqa: S106  # a special token is no password
        unk_token="<unk>",  # noqa: S106  # a special token is no password
    )
    return text


def _environment() -> Any:
    """As transformers makes it: immutable sandbox, loop controls, the mark for learnt replies."""
    import jinja2.ext  # noqa: PLC0415  # train extra
    from jinja2 import nodes  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012  # jinja's own name and type

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raiser(jinja2.TemplateError)
    environment.globals["strftime_now"] = time.strftime
    return environment


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, **({"ensure_ascii": False} | options))


def _raiser(kind: type[Exception]) -> Callable[[str], None]:
    def raise_exception(message: str) -> None:
        raise kind(message)

    return raise_exception


if __name__ == "__main__":
    sys.exit(main(sys.argv))
