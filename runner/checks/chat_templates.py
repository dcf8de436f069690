"""Chat templates: the two of ours, and what the model's own must pass before it is used.

A template is a program in jinja that came with the model. Its sandbox keeps it from files and
objects but not from running for ever, so it is tried once in quarantine before anything starts.
Loads no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from profiles.data import encoding
from profiles.data.encoding import Encoder
from profiles.data.rendering import Learn
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import chat_template, model
from profiles.models.chat_template import ChatTemplate
from runner.checks import quarantine, vocabulary

CHOSEN_BY_MODEL = "model"
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>"
        "{{ eos_token }}{% endgeneration %}\n"
        "{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "plain": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}### Answer:\n"
        "{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}\n\n"
        "{% else %}### {{ m['role']|capitalize }}:\n{{ m['content'] }}\n\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}### Answer:\n{% endif %}"
    ),
}


def missing(where: str) -> UserError:
    """The error for a chat without a template; it names the choices."""
    return UserError(
        "the tokenizer has no chat template",
        why="it belongs to a base model; a chat needs marks for who speaks",
        do='set data.chat_template to "chatml" or "plain", or take the -Instruct model',
        where=where,
        code=ExitCode.BAD_RECIPE,
    )


def encoder(base: Model, choice: str | None = None, learn: Learn = "all") -> Encoder | None:
    """What a model reads of an example; None without its tokenizer on this disk.

    `choice` as a recipe has it; None is what a recommendation takes. UserError for tokens that the
    model has no embedding for, and for a hostile template, when the first chat is to be written.
    """
    if base.path is None or not (Path(base.path) / "tokenizer.json").is_file():
        return None
    folder = Path(base.path)
    name = choice or (CHOSEN_BY_MODEL if base.has_chat_template else "plain")
    choose = chooser(folder, name, chat_template.special_tokens(folder))
    found = encoding.of_folder(folder, choose=choose, learn=learn)
    vocabulary.check(base, found.tokenizer)
    return found


def chooser(
    folder: Path, choice: str, special: Mapping[str, str]
) -> Callable[[bool], ChatTemplate]:
    """The template for chats without tools or with them, tried before it is first used.

    `choice` as a recipe has it. UserError for a hostile template, or where there is none.
    """

    @cache
    def tried() -> None:
        check(folder)

    def choose(with_tools: bool) -> ChatTemplate:
        source = TEMPLATES.get(choice, "")
        if choice == CHOSEN_BY_MODEL:
            tried()
            source = chat_template.source_of(folder, with_tools=with_tools)
            if not source:
                raise missing(str(folder))
        return ChatTemplate(source, special)

    return choose


def check(folder: Path) -> None:
    """Try every template of a model folder in quarantine; UserError for one that is hostile."""
    if importlib.util.find_spec("jinja2") is None:
        return  # nothing can render it then
    for template in model.chat_templates(folder):
        answer = quarantine.ask("runner.checks.template_trial", {"template": template})
        refused = answer.fault if answer.content is None else str(answer.content.get("refused"))
        if refused:
            raise UserError(
                "the chat template of this model is refused",
                why=refused,
                do='set data.chat_template to "chatml" or "plain", or take another model',
                where=str(folder),
                code=ExitCode.REFUSED,
            )
