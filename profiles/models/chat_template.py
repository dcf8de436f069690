"""What the chat template of a model folder lacks for training, as far as its text shows it.

Looks for the template and for the mark that ends a reply. It is a look at the text: the template
is not run. Does not know which template a recipe chooses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from profiles.models.safe_config import MAX_JSON_BYTES, read_json

_END_MARKS: Final = (
    "eos_token", "<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end|>", "<|endoftext|>", "</s>",
    "<end_of_turn>", "<turn|>", "<|end_of_text|>", "<|return|>", "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip
_CHOOSE: Final = 'set data.chat_template to "chatml" or "plain" in the recipe'
_TAG = r"\{{%-?\s*{name}\s*-?%\}}"
_REPLY: Final = re.compile(
    _TAG.format(name="generation") + "(.*?)" + _TAG.format(name="endgeneration"), re.DOTALL
)


def warnings(folder: str | Path) -> list[str]:
    """Sentences for the user; none if chats can be written and their replies end."""
    config = _tokenizer_config(Path(folder))
    template = _template(Path(folder), config)
    if not template:
        return [f"the tokenizer has no chat template: {_CHOOSE}, or take the -Instruct model"]
    marks = (*_END_MARKS, _eos(config))
    replies = _REPLY.findall(template)
    if any(mark and mark in reply for reply in replies or [template] for mark in marks):
        return []
    where = "in the part of a reply that is learnt" if replies else "after a reply"
    lacks = f"the model's chat template has no end mark {where}"
    return [f"{lacks}: the model will not learn to stop; {_CHOOSE}"]


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    return read_json(file) if file.is_file() else {}


def _template(folder: Path, config: dict[str, Any]) -> str:
    """The default template: a file of its own goes before the key in tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.is_file() and file.stat().st_size <= MAX_JSON_BYTES:
        return file.read_text(encoding="utf-8", errors="replace")
    found = config.get("chat_template")
    if isinstance(found, list):
        named = [one for one in found if isinstance(one, dict)]
        named.sort(key=lambda one: one.get("name") != "default")
        found = named[0].get("template") if named else None
    return found if isinstance(found, str) else ""


def _eos(config: dict[str, Any]) -> str:
    found = config.get("eos_token")
    if isinstance(found, dict):
        found = found.get("content")
    return found if isinstance(found, str) else ""
