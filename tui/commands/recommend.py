"""`advisor recommend`: facts in, the page or JSON out, the recipe saved if asked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advisor import recommend as advice
from advisor.recommend import Recommendation
from advisor.wishes import Complexity, Wish, Wishes
from profiles import installation, machine, model, rundir
from profiles.errors import ExitCode, UserError
from profiles.facts import Dataset, Machine, Origin
from tui import plain
from tui.pages import recommendation as page
from tui.terminal import look_at_terminal

if TYPE_CHECKING:
    from advisor.recipe import Recipe

JSON_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Answers given on the command line; None where none was given."""

    task: str = "sft"
    complexity: Complexity | None = None
    critical: bool | None = None
    value: bool | None = None
    quality: bool | None = None
    seq_len: int | None = None
    effective_batch: int | None = None

    def wishes(self) -> Wishes:
        """As the tree takes them, each with its origin."""
        return Wishes(
            task=Wish(self.task, Origin.DEFAULT if self.task == "sft" else Origin.USER),
            complexity=Wish.of(self.complexity, "medium"),
            critical=Wish.of(self.critical, False),
            value=Wish.of(self.value, True),
            quality=Wish.of(self.quality, True),
            seq_len=Wish(self.seq_len, Origin.USER) if self.seq_len else None,
            effective_batch=Wish(self.effective_batch, Origin.USER)
            if self.effective_batch
            else None,
        )


def recommend(
    model_dir: str,
    data_file: str | None,
    gpu: str | None,
    asked: Asked,
    *,
    save: Path | None,
    explain: bool,
    as_json: bool,
) -> int:
    """Print the recommendation; exit code 71 if nothing fits."""
    if save is not None and data_file is None:
        raise UserError(
            "a recipe needs data",
            why="--save writes a recipe that can be run",
            do="add --data FILE",
            where="--save",
            code=ExitCode.USAGE,
        )
    found = find(model_dir, data_file, target_machine(gpu), asked)
    if save is not None and found.rung is not None:
        write(found, save)  # before the page: its reader may leave early, as in `| head`
        plain.say(f"wrote {save}; start it with: advisor run {save}")
    if as_json:
        plain.show_json({"schema": JSON_SCHEMA, "recommendation": found})
    else:
        symbols = look_at_terminal().symbols
        plain.show(page.lines(found, plain.DEFAULT_WIDTH, symbols, explain=explain))
    return 0 if found.rung is not None else int(ExitCode.DRIVER)


def target_machine(gpu: str | None) -> Machine:
    """The planned machine, or the one we are on."""
    here = machine.probe(rundir.home())
    if gpu is None:
        return here
    from profiles import planned  # noqa: PLC0415  # reads the table only if it is asked for

    return planned.plan_machine(gpu, host=here)


def find(model_dir: str, data_file: str | None, target: Machine, asked: Asked) -> Recommendation:
    """Collect the facts and ask the advisor."""
    base = model.from_folder(model_dir)
    data: Dataset | None = None
    if data_file is not None:
        from profiles import dataset  # noqa: PLC0415  # the tokenizer library loads with it

        has_tokenizer = (Path(model_dir) / "tokenizer.json").is_file()
        data = dataset.check(
            data_file,
            tokenizer_path=model_dir if has_tokenizer else None,
            max_length=asked.seq_len,
            count_up_to_bytes=dataset.COUNTED_WHILE_WAITING_BYTES,
        )
    return advice.recommend(base, target, data, asked.wishes())


def draft(found: Recommendation, folder: Path) -> Recipe:
    """The recipe, with paths relative to where it will lie."""
    from advisor.draft import recipe_of  # noqa: PLC0415  # pydantic, only when a recipe is wanted

    assert found.dataset is not None
    return recipe_of(
        found,
        model=_relative(found.model.path or found.model.id, folder),
        data=_relative(found.dataset.path, folder),
        version=installation.version(),
    )


def write(found: Recommendation, path: Path) -> None:
    """Save the recommended recipe."""
    from tui import output  # noqa: PLC0415

    output.write(path, draft(found, path.resolve().parent).to_toml())


def _relative(target: str, folder: Path) -> str:
    """Relative where the recipe and its input can move together, else absolute."""
    path = Path(target).resolve()
    return os.path.relpath(path, folder) if path.is_relative_to(folder) else str(path)
