"""`advisor data check`, `model show`, `recipe check`: look, start nothing."""

from __future__ import annotations

from pathlib import Path

from profiles import dataset
from profiles import model as models
from tui import plain
from tui.pages import data as data_page
from tui.pages import model as model_page


def data(file: str, model_dir: str | None, max_length: int | None, *, as_json: bool) -> int:
    """Validate a data file and print what it holds."""
    found = dataset.check(file, tokenizer_path=model_dir, max_length=max_length)
    if as_json:
        plain.show_json(found)
    else:
        plain.show(data_page.lines(found, plain.DEFAULT_WIDTH))
    return 0


def model(folder: str, *, as_json: bool) -> int:
    """Print a model's facts."""
    found = models.from_folder(folder)
    if as_json:
        plain.show_json(found)
    else:
        plain.show(model_page.lines(found, plain.DEFAULT_WIDTH))
    return 0


def recipe(file: Path, changes: tuple[str, ...]) -> int:
    """Read a recipe; mistakes are raised."""
    from tui.commands.run import load  # noqa: PLC0415

    found, _ = load(file, changes)
    plain.say(f"{file}: sound; {found.method.name} of {found.model.id}")
    return 0
