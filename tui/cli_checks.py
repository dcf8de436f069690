"""Arguments of the commands that look and start nothing: data, model and recipe."""

from __future__ import annotations

from pathlib import Path

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
SET = click.option("--set", "changes", multiple=True, help="Change a key: train.epochs=1.")


@click.group()
def data() -> None:
    """Look at data sets."""


@click.group()
def model() -> None:
    """Look at models."""


@click.group()
def recipe() -> None:
    """Look at recipes."""


@data.command("check")
@click.argument("file")
@click.option("--model", help="Count with this model's tokenizer.")
@click.option("--max-length", type=click.IntRange(min=1), help="Count rows that are longer.")
@JSON
def data_check(file: str, model: str | None, max_length: int | None, as_json: bool) -> int:
    """Validate a data set: format, encoding, broken rows, token lengths."""
    from tui.commands import checks

    return checks.data(file, model, max_length, as_json=as_json)


@model.command("show")
@click.argument("model")
@JSON
def model_show(model: str, as_json: bool) -> int:
    """Show what a model is: a folder, a name of the catalog, or an id on the hub."""
    from tui.commands import checks

    return checks.model(model, as_json=as_json)


@recipe.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@SET
def recipe_check(file: Path, changes: tuple[str, ...]) -> int:
    """Read a recipe and say all that is wrong with it; starts nothing."""
    from tui.commands import checks

    return checks.recipe(file, changes)
