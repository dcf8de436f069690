"""What a recipe reads, judged before it is opened: whether it may, and whether a person knows."""

from __future__ import annotations

from pathlib import Path

from advisor.recipe import Recipe
from profiles import paths, redact
from profiles.errors import ExitCode, UserError
from runner.checks import replay
from tui import plain
from tui.commands import asking
from tui.terminal import clean


def accept(
    recipe: Recipe, path: Path, base_dir: Path, set_keys: tuple[str, ...], *, allow_outside: bool
) -> None:
    """Ask about data outside the recipe's folder; UserError for what is refused.

    `set_keys` were set by hand on the command line, so the person knows of their values.
    """
    named = _inputs(recipe, base_dir)
    set_by_hand = tuple(f"{key}." for key in set_keys)
    paths.remember(path for key, path in named.items() if f"{key}.".startswith(set_by_hand))
    if allow_outside:
        return
    folder = path.resolve().parent
    data = [file for key, file in named.items() if not key.startswith("model.")]
    for key in (key for key in named if key.startswith("model.")):
        paths.refuse_closed(data, named[key], folder)
    unanswered = paths.unanswered(data, folder)
    if not (asking.can_ask() and all(map(_said_yes, unanswered))):
        paths.refuse_unanswered(unanswered)
    paths.remember(unanswered)


def remember(recipe: Recipe, base_dir: Path) -> None:
    """What a person has started is not asked about again, wherever its recipe is replayed from."""
    paths.remember(_inputs(recipe, base_dir).values())


def refuse_secrets(text: str, path: Path) -> None:
    """UserError for a recipe with a token in it: recipes are kept with the run, and shared."""
    if redact.holds_secret(text):
        raise UserError(
            "the recipe holds what looks like a token or a password",
            why="a recipe is copied into its run's directory, and shared",
            do="take it out, and make it invalid where it was issued; training needs none",
            where=str(path),
            code=ExitCode.REFUSED,
        )


def _inputs(recipe: Recipe, base_dir: Path) -> dict[str, Path]:
    """Key -> file or folder; UserError for a run that is none, or has no result."""
    data = {key: base_dir / file for key, file in recipe.data.files.items()}
    return data | replay.folders_of(recipe, base_dir)


def _said_yes(file: Path) -> bool:
    plain.say(f"the recipe reads {clean(str(file), 400)}, which lies outside its own folder")
    return asking.agrees("train on it?")
