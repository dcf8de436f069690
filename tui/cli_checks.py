"""Arguments of the commands that look and start nothing: data, model and recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Changes = Annotated[list[str], typer.Option("--set", help="Change a key: train.epochs=1.")]
OptText = Optional[str]  # noqa: UP045  # typer reads it
OptInt = Optional[int]  # noqa: UP045

data = typer.Typer(help="Look at data sets.", rich_markup_mode=None, no_args_is_help=True)
model = typer.Typer(help="Look at models.", rich_markup_mode=None, no_args_is_help=True)
recipe = typer.Typer(help="Look at recipes.", rich_markup_mode=None, no_args_is_help=True)


@data.command("check")
def data_check(
    file: Annotated[str, typer.Argument(help="JSON or JSONL.")],
    model: Annotated[OptText, typer.Option(help="Count with this model's tokenizer.")] = None,
    max_length: Annotated[OptInt, typer.Option(help="Count rows that are longer.", min=1)] = None,
    as_json: Json = False,
) -> int:
    """Validate a data set: format, encoding, broken rows, token lengths."""
    from tui.commands import checks as command

    return command.data(file, model, max_length, as_json=as_json)


@model.command("show")
def model_show(folder: str, as_json: Json = False) -> int:
    """Show what a model is, from its config and weight headers."""
    from tui.commands import checks as command

    return command.model(folder, as_json=as_json)


@recipe.command("check")
def recipe_check(file: Path, changes: Changes = []) -> int:  # noqa: B006
    """Read a recipe and say all that is wrong with it; starts nothing."""
    from tui.commands import checks as command

    return command.recipe(file, changes)
