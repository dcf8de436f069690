"""`advisor data check`, `model show`, `recipe check`: look, start nothing."""

from __future__ import annotations

from pathlib import Path

from profiles import dataset, find_model
from tui import plain
from tui.pages import data as data_page
from tui.pages import model as model_page


def data(file: str, model_text: str | None, max_length: int | None, *, as_json: bool) -> int:
    """Validate a data file and print what it holds."""
    base = find_model.resolve(model_text) if model_text is not None else None
    if base is not None and base.path is None:
        plain.say(f"{base.id} is not on this disk: its tokens are estimated from characters")
    tokenizer_path = base.path if base is not None else None
    found = dataset.check(file, tokenizer_path=tokenizer_path, max_length=max_length)
    if as_json:
        plain.show_json(found)
    else:
        plain.show(data_page.lines(found, plain.page_width()))
    return 0


def model(text: str, *, as_json: bool) -> int:
    """Print a model's facts."""
    found = find_model.resolve(text)
    if as_json:
        plain.show_json(found)
    else:
        plain.show(model_page.lines(found, plain.page_width()))
    return 0


def recipe(file: Path, changes: tuple[str, ...]) -> int:
    """Read a recipe; mistakes are raised."""
    from tui.commands.run import load  # noqa: PLC0415

    found, _ = load(file, changes)
    plain.say(f"{file}: sound; {found.method.name} of {found.model.id}")
    return 0
