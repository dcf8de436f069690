"""`advisor methods`, `model show`, `recipe check`: look, start nothing."""

from __future__ import annotations

from pathlib import Path

from profiles.models import find_model
from profiles.runs import parents, reading
from tui import plain
from tui.pages import model as model_page


def model(text: str, *, as_json: bool) -> int:
    """Print a model's facts."""
    found = find_model.resolve(text)
    if as_json:
        plain.show_json(found)
    else:
        plain.show(model_page.lines(found, plain.page_width()))
    return 0


def methods(*, name: str | None, as_json: bool) -> int:
    """Print all that can be chosen by name, or one method in full; UserError if there is none."""
    from tui.pages import method  # noqa: PLC0415
    from tui.pages import methods as page  # noqa: PLC0415

    if name is not None:
        from advisor.registry.lookup import METHODS  # noqa: PLC0415

        spec = METHODS[name]
        if as_json:
            plain.show_json({"schema": page.SCHEMA, **page.one(spec)})
        else:
            plain.show(method.lines(spec, plain.page_width()))
    elif as_json:
        plain.show_json(page.document())
    else:
        plain.show(page.lines(plain.page_width()))
    return 0


def recipe(file: Path, changes: tuple[str, ...]) -> int:
    """Read a recipe; mistakes are raised, those with its model too if that is there."""
    from runner.checks import adapters, chat_templates, expert_adapters, pairing, replay  # noqa: PLC0415  # pydantic
    from tui.commands.run import load  # noqa: PLC0415

    found, _ = load(file, changes)
    base_dir = replay.base_dir_of(file)
    if reading.is_folder(parents.model_folder(found.model.id, base_dir)):
        base = find_model.named(found.model.id, base_dir)
        pairing.check_model(found, base)
        adapters.check(found, base, base_dir)
        expert_adapters.check(found, base, base_dir)
        encoder = chat_templates.encoder(base, tokens=found.model.new_tokens)
        for warning in encoder.added.warnings() if encoder and encoder.added else ():
            plain.say(warning)
    plain.say(f"{file}: sound; {found.method.name} of {found.model.id}")
    return 0
