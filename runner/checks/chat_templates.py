"""Chat templates: the two of ours, and what the model's own must pass before it is used.

A template is a program in jinja that came with the model. Its sandbox keeps it from files and
objects but not from running for ever, so it is tried once in quarantine before anything starts.
Loads no torch.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from profiles.data.formats import by_name
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import model
from runner.checks import quarantine

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


def check_choice(choice: str, base: Model, data_format: str) -> None:
    """UserError if the model's own template is wanted for chats, and is missing or hostile."""
    if choice != CHOSEN_BY_MODEL or base.path is None:
        return
    if not by_name(data_format).is_chat:
        return
    if base.has_chat_template is False:
        raise missing(base.path)
    check(Path(base.path))


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
