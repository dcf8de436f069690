"""The child that tries a chat template: compiles and renders it once, in the sandbox of training.

Run as `python -P -m runner.checks.template_trial CPU_SECONDS`, by `runner.checks.quarantine`.
Stdin: {"template": text}. Stdout: {"refused": why}, empty where nothing is wrong. A template that
only objects to this conversation, as those do that know no system turn, is not refused.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from profiles.models.chat_template import environment
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
    compiled = environment().from_string(template)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
