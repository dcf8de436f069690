"""Arguments of the commands that look and start nothing: data, model and recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def _encoding(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str | None:
    """As a recipe writes it."""
    if name is None:
        return None
    from profiles.data import charsets

    try:
        return charsets.python_name(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _steps(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    """As a recipe writes them."""
    from profiles.data import cleaning

    return dict.fromkeys(_names(text, cleaning.STEPS), True) if text else None


def _masks(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Any:
    """The same."""
    from profiles import personal

    if text == "all":
        return personal.USUAL
    return tuple(_names(text, personal.names())) if text else None


def _names(text: str, known: tuple[str, ...]) -> list[str]:
    """Names with commas between them."""
    from advisor.registry.lookup import nearest

    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no {name!r}; {nearest(name, known)}")
    return names


JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
FORMAT = click.option("--format", "data_format", help="Read the rows so: alpaca, messages, text...")
FORCE = click.option(
    "--force", is_flag=True, help="Replace a file that is there, by one of the same kind."
)
SET = click.option("--set", "changes", multiple=True, help="Change a key: train.epochs=1.")


def _columns(
    _context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> dict[str, str] | None:
    r"""As a recipe has them; a line break can be written as \n."""
    if not given:
        return None
    from profiles.data.columns import Columns

    pairs = [one.partition("=") for one in given]
    columns = {part.strip(): text.replace("\\n", "\n") for part, _, text in pairs}
    try:
        Columns.of(columns)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write PART=COLUMN or PART='{{A}} {{B}}'") from None
    return columns


COLUMNS = click.option(
    "--column",
    "columns",
    metavar="PART=COLUMN",
    multiple=True,
    callback=_columns,
    help="Make prompt, completion, text... of a column, or of several: prompt='{a}\\n{b}'.",
)
ENCODING = click.option(
    "--encoding", callback=_encoding, help="Of files that are not UTF-8: gb18030, cp1252..."
)
CLEAN = click.option(
    "--clean", callback=_steps, help="Of: html,whitespace,unicode,duplicates (data.clean)."
)
MASK = click.option(
    "--mask", callback=_masks, help="Personal data: all, or kinds like email,phone (data.mask)."
)

SPLIT_BY = click.option(
    "--split-by", help="A column; each of its values is divided 8:1:1 (data.split_by)."
)


def _tokens(
    context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """As a recipe has them; only a model has tokens."""
    from profiles.data import new_tokens

    if what := new_tokens.fault(given):
        raise click.BadParameter(what)
    if given and context.params.get("model") is None:
        raise click.BadParameter("tokens are a model's: name it with --model")
    return given


TOKENS = click.option(
    "--new-token",
    "tokens",
    metavar="TEXT",
    multiple=True,
    callback=_tokens,
    help="Read it as one token, which the model is to learn (model.new_tokens).",
)


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
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--eval", "held_out", metavar="FILE", help="Look for its rows in the others.")
@FORMAT
@click.option("--model", help="Count with this model's tokenizer.", is_eager=True)
@TOKENS
@click.option("--max-length", type=click.IntRange(min=1), help="Count rows that are longer.")
@click.option("--chat-template", help="Write chats so: a family like chatml, or a .jinja file.")
@click.option("--learn", type=click.Choice(["all", "last"]), default="all", show_default=True)
@click.option("--on-bad", type=click.Choice(["error", "skip"]), default="error", show_default=True)
@ENCODING
@COLUMNS
@CLEAN
@MASK
@SPLIT_BY
@JSON
def data_check(files: tuple[str, ...], held_out: str | None, as_json: bool, **options: Any) -> int:
    """Validate data sets: format, encoding, broken rows, token lengths, quality.

    Exit code 65 if a file cannot be trained on.
    """
    from tui.commands import data_check as command

    return command.check(files, held_out, command.Asked(**options), as_json=as_json)


@data.command("show")
@click.argument("file")
@click.option("--model", help="Show what this model reads.", is_eager=True)
@TOKENS
@click.option("-n", "num_rows", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("--at", "start", metavar="LINE|row:N", help="Begin at this line, or the Nth row.")
@click.option("--chat-template", help="Write chats so: a family like chatml, or a .jinja file.")
@click.option("--learn", type=click.Choice(["all", "last"]), default="all", show_default=True)
@FORMAT
@click.option("--max-length", type=click.IntRange(min=1), help="Show where rows are cut.")
@ENCODING
@COLUMNS
@CLEAN
@MASK
@JSON
def data_show(file: str, as_json: bool, **options: Any) -> int:
    """Show rows as the model reads them: what is learnt, what is cut, what is wrong."""
    from tui.commands import data_show as command

    return command.show(file, command.Asked(**options), as_json=as_json)


@click.command()
@click.argument("name", required=False)
@JSON
def methods(name: str | None, as_json: bool) -> int:
    """List methods, optimizers, strategies, tasks and formats; or show the method NAME in full."""
    from tui.commands import checks

    return checks.methods(name=name, as_json=as_json)


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


@recipe.command("list")
@JSON
def recipe_list(as_json: bool) -> int:
    """List the ready recipes, and when to take each."""
    from tui.commands import ready_recipes

    return ready_recipes.show(as_json=as_json)
