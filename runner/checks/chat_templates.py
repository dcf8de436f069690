"""Chat templates as a recipe chooses them: the model's own, one of a family, or a file.

A template is a program in jinja, and the model's own or a file may come from a stranger. Its
sandbox keeps it from files and objects but not from running for ever, so such a one is tried once
in quarantine before anything starts. Loads no torch.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from advisor.recipe import Recipe
from advisor.registry.lookup import nearest
from profiles import chat_families
from profiles.chat_families import SUFFIX, TEMPLATES
from profiles.data import encoding, new_tokens
from profiles.data.encoding import Encoder
from profiles.data.rendering import Learn, Renderer
from profiles.errors import ExitCode, UserError
from profiles.facts import Model
from profiles.models import chat_template, model
from profiles.models.chat_template import ChatTemplate
from profiles.models.safe_config import MAX_JSON_BYTES
from profiles.runs import parents
from runner.checks import quarantine, vocabulary

CHOSEN_BY_MODEL: Final = "model"
_OTHER: Final = (
    'set data.chat_template to a family, such as "chatml" or "plain" (`advisor methods` lists them)'
)

NONE_OF_ITS_OWN: Final = (
    "the model has no chat template: counted as `plain` writes chats; set data.chat_template "
    "in the recipe, or take the -Instruct model"
)


def missing(where: str) -> UserError:
    """The error for a chat without a template; it names the choices."""
    return UserError(
        "the tokenizer has no chat template",
        why="it belongs to a base model; a chat needs marks for who speaks",
        do=f"{_OTHER}, or take the -Instruct model",
        where=where,
        code=ExitCode.BAD_RECIPE,
    )


def known(choice: str) -> str:
    """The name of a template, or a file of one; UserError for a name that is not known."""
    names = (CHOSEN_BY_MODEL, *chat_families.names())
    if choice in names or choice.endswith(SUFFIX):
        return choice
    raise UserError(
        f"there is no chat template {choice[:80]!r}",
        why="a name says how chats are written",
        do=f"{nearest(choice, names)} (a file of one's own ends in {SUFFIX})",
        where="--chat-template",
        code=ExitCode.USAGE,
    )


def renderer(choice: str, learn: Learn = "all") -> Renderer:
    """What writes chats where no model is known; UserError for the template of a model."""
    if choice == CHOSEN_BY_MODEL:
        raise UserError(
            "whose chat template is not known",
            why=f"{CHOSEN_BY_MODEL!r} is the template of a model, and none is named",
            do="give the folder of a model with --model, or name a family such as chatml",
            where="--chat-template",
            code=ExitCode.USAGE,
        )
    return Renderer(_chosen(choice, {}, Path()), learn=learn)


def encoder(
    base: Model,
    choice: str | None = None,
    learn: Learn = "all",
    *,
    base_dir: Path | None = None,
    tokens: Sequence[str] = (),
) -> Encoder | None:
    """What a model reads of an example; None without its tokenizer on this disk.

    `choice` as a recipe in `base_dir` has it; None is what a recommendation takes. `tokens`: what
    it is to learn as new tokens. UserError for tokens that the model has no embedding for and for a
    file that cannot be read, and for a hostile template when the first chat is to be written.
    """
    if base.path is None or not (Path(base.path) / "tokenizer.json").is_file():
        if tokens:
            raise _no_tokenizer(base)
        return None
    folder = Path(base.path)
    name = choice or (CHOSEN_BY_MODEL if base.has_chat_template else "plain")
    choose = chooser(folder, name, chat_template.special_tokens(folder), base_dir=base_dir)
    found = encoding.of_folder(folder, choose=choose, learn=learn)
    found.renderer.asks_by_template = asks(folder, name)
    known = vocabulary.check(base, found.tokenizer)
    if tokens:
        found.added = new_tokens.add(found.tokenizer, tokens, known=known)
    return found


def _no_tokenizer(base: Model) -> UserError:
    return UserError(
        f"{base.id} has no tokenizer to add tokens to",
        why="its folder has no tokenizer.json" if base.path else "it is not on this disk",
        do="give the folder of the model with its tokenizer.json, or leave the new tokens out",
        where=base.path or base.id,
        code=ExitCode.NO_INPUT,
    )


def other_than_adapters(recipe: Recipe, base_dir: Path, encoder: Encoder | None) -> list[str]:
    """What to mind if chats are written by another template than the recipe's adapter has learnt.

    Known once rows were read, and where the adapter was saved with its tokenizer.
    """
    chats = encoder.renderer.chats if encoder else None
    if recipe.model.adapter is None or chats is None:
        return []
    folder = parents.adapter_folder(recipe.model.adapter, base_dir)
    theirs = {chat_template.source_of(folder, with_tools=tools) for tools in (False, True)} - {""}
    if not theirs or chats.source in theirs:
        return []
    told = "the adapter was trained with another chat template than these rows are written by"
    return [f"{told}: set data.chat_template as the recipe of its run has it"]


def chooser(
    folder: Path, choice: str, special: Mapping[str, str], *, base_dir: Path | None = None
) -> Callable[[bool], ChatTemplate]:
    """The template for chats without tools or with them, tried before it is first used.

    `choice` as a recipe in `base_dir` has it. UserError for a file that cannot be read, and later
    for a hostile template, or where there is none.
    """
    if choice != CHOSEN_BY_MODEL:
        return _chosen(choice, special, base_dir or Path())

    @cache
    def tried() -> None:
        check(folder)

    def choose(with_tools: bool) -> ChatTemplate:
        tried()
        source = chat_template.source_of(folder, with_tools=with_tools)
        if not source:
            raise missing(str(folder))
        return ChatTemplate(source, special)

    return choose


def asks(folder: Path, choice: str) -> bool:
    """Whether the model is asked by a chat template: its own, or a chosen one with marks."""
    if choice == CHOSEN_BY_MODEL:
        return bool(chat_template.source_of(folder))
    return choice != "plain"


def _chosen(
    choice: str, special: Mapping[str, str], base_dir: Path
) -> Callable[[bool], ChatTemplate]:
    """One of a family, or a file; the same for chats with tools and without."""
    is_file = choice.endswith(SUFFIX)
    file = base_dir / choice
    template = ChatTemplate(_read(file) if is_file else TEMPLATES[choice], special, name=choice)

    @cache
    def choose(_: bool) -> ChatTemplate:
        if is_file:
            _try(template.source, "this chat template is refused", str(file))
        return template

    return choose


def _read(file: Path) -> str:
    """The text of a template; UserError if there is none to be read."""
    try:
        if not file.is_file():
            why = "it is no regular file" if os.path.lexists(file) else "there is no such file"
        elif file.stat().st_size > MAX_JSON_BYTES:
            why = f"it is over {MAX_JSON_BYTES} bytes"
        else:
            return file.read_text(encoding="utf-8")
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        why = "it is not UTF-8"
    raise UserError(
        "the chat template cannot be read",
        why=why,
        do="correct the path, which begins at the recipe's folder, or set data.chat_template to a "
        "family that `advisor methods` lists",
        where=str(file),
        code=ExitCode.NO_INPUT,
    )


def check(folder: Path) -> None:
    """Try every template of a model folder in quarantine; UserError for one that is hostile."""
    for template in model.chat_templates(folder):
        _try(template, "the chat template of this model is refused", str(folder))


def _try(template: str, what: str, where: str) -> None:
    if importlib.util.find_spec("jinja2") is None:
        return  # nothing can render it then
    answer = quarantine.ask("runner.checks.template_trial", {"template": template})
    refused = answer.fault if answer.content is None else str(answer.content.get("refused"))
    if refused:
        raise UserError(
            what,
            why=refused,
            do=f"{_OTHER}, or take another model",
            where=where,
            code=ExitCode.REFUSED,
        )
