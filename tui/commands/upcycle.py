"""`advisor upcycle`: a dense model made into a mixture of experts that predicts the same."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.models import catalog
from profiles.models.model import CONFIG_NAME, from_folder
from profiles.quantities import bytes_text
from profiles.runs import parents
from tui import output_folder, plain
from tui.commands import save
from tui.output import cannot
from tui.pages.model import size

if TYPE_CHECKING:
    from profiles.facts import Model
    from runner.upcycling.making import Asked, Upcycling

SCHEMA = 1
KIND = "mixture"


def upcycle(base: str, asked: Asked, out: str, *, force: bool, as_json: bool) -> int:
    """Make the mixture; UserError if the model, the place or the disk does not allow it."""
    from runner.upcycling import making  # noqa: PLC0415

    def is_one(folder: Path) -> bool:
        return making.made_of(folder) is not None

    place = output_folder.target(out, KIND, is_one=is_one, force=force)
    found = making.prepare(_folder_of(base), asked)
    making.check_room(found, place.path.parent)
    told = _progress if sys.stderr.isatty() else _silent
    try:
        making.make(found, place.path, replaces=place.replaces, told=told)
    except OSError as error:
        raise cannot(place.path, error, why="nothing was left there") from error
    made = from_folder(place.path)
    if as_json:
        plain.show_json({"schema": SCHEMA, **found.mark, "model": made})
    else:
        plain.show(_lines(found, made, place, plain.page_width()))
    return 0


def _folder_of(text: str) -> Path:
    """Where the weights are; UserError with the way to fetch them where they are not here."""
    if parents.names_run(text):
        return parents.model_folder(text, Path())
    folder = Path(text).expanduser()
    known = None if (folder / CONFIG_NAME).exists() else catalog.find(text)
    if known is not None:
        save.download_first(known, Path())
    return folder


def _progress(done: int, whole: int) -> None:
    end = "\n" if done == whole else ""
    sys.stderr.write(f"\r{bytes_text(done)} of {bytes_text(whole)} written {end}")
    sys.stderr.flush()


def _silent(_done: int, _whole: int) -> None:
    """Nobody looks."""


def _lines(found: Upcycling, made: Model, place: output_folder.Folder, width: int) -> list[str]:
    """What there is now, what it is like, and what to do with it."""
    experts = made.experts
    assert experts is not None
    quoted = shlex.quote(str(place.path))
    same = (
        f"It predicts what {found.mark['base']} predicts, whichever experts are chosen: all "
        f"{experts.num_experts} of a layer are copies of its MLP, and the weights of the "
        f"{experts.top_k} that a token visits sum to 1. The router's are new: drawn with seed "
        f"{found.mark['seed']}, normal around 0 with deviation {found.mark['router_std']:g}. "
        "Training makes the experts differ."
    )
    said = [f"{place.wrote}: {made.architecture}, {size(made)}", same]
    if experts.top_k == 1:
        said.append(
            "With one expert a token its weight is 1 whatever the router says: only the "
            "load-balancing loss teaches the router, and the loss of the task does not."
        )
    lines = [line for text in said for line in (*plain.wrap(text, width), "")]
    return [
        *lines,
        "what to train on it, and how:",
        f"  advisor recommend --model {quoted} --data FILE",
    ]
