"""`advisor demo`: the whole way with a tiny model, through the same code as any run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from advisor import recipe as recipes
from profiles import installation
from profiles.errors import ExitCode, UserError
from profiles.machines import machine
from profiles.models import model as models
from profiles.quantities import duration_text
from profiles.runs import durable
from runner.checks import preflight
from runner.demo_text import instruction_rows
from runner.supervision import launch, worker_command
from tui import plain, report
from tui.commands import profile
from tui.commands import recommend as advice
from tui.commands.request import Asked
from tui.follow import follow
from tui.pages import machine as machine_page
from tui.pages import recommendation as advice_page
from tui.terminal import look_at_terminal

_NUM_ROWS = 1200
_SEED = 1


def demo() -> int:
    """Probe, make a base model, recommend, train, report; returns the run's exit code."""
    started = time.monotonic()
    width, symbols = plain.page_width(), look_at_terminal().symbols
    folder = installation.home() / "demo"
    folder.mkdir(mode=durable.PRIVATE_DIR, parents=True, exist_ok=True)

    _say(1, "the machine")
    plain.show(machine_page.lines(machine.probe(folder), width))

    _say(2, "a tiny base model that has never seen a record, and orders to learn from")
    base = _base_model(folder)
    data = folder / "orders.json"
    rows = json.dumps(instruction_rows(_NUM_ROWS, _SEED), indent=1)
    durable.write_atomic(data, rows.encode())

    _say(3, "what the advisor recommends")
    model = models.from_folder(base)
    found = advice.find(model, str(data), machine.probe(folder), Asked())
    plain.show([advice_page.headline(found), *advice_page.path(found, width)])

    _say(4, "the training, in a process of its own")
    text = (installation.recipes_dir() / "demo.toml").read_bytes()
    recipe_path = folder / "demo.toml"
    durable.write_atomic(recipe_path, text)
    recipe = recipes.parse(text.decode(), where=str(recipe_path))
    ready = preflight.check(recipe, folder)
    run = launch.start(
        text,
        name=recipe.name,
        base_dir=folder,
        **ready.for_launch,
        tell=plain.starting,
    )
    plain.show([f"run {run.id}"])
    code = follow(run)
    if code != ExitCode.FINISHED:
        return code

    _say(5, "where memory and time went, and what the model learnt")
    plain.show(report.lines(profile.load(run), width, symbols))
    plain.say(f"\nthe demo took {duration_text(time.monotonic() - started)}")
    plain.say(f"replay it:   advisor run {recipe_path}")
    plain.say("your own:    advisor recommend --model FOLDER --data FILE --save R.toml")
    return code


def _say(number: int, title: str) -> None:
    plain.show(["", f"== {number}/5  {title}"])
    sys.stdout.flush()


def _base_model(folder: Path) -> Path:
    """Made once for each version of tunedeck, complete or not at all."""
    base, mark = folder / "base", folder / "base.version"
    version = installation.version()
    if base.is_dir() and mark.is_file() and mark.read_text() == version:
        plain.show(["made by an earlier demo"])
        return base
    staging = folder / f"{durable.STAGING_PREFIX}base"
    for old in (base, staging):
        shutil.rmtree(old, ignore_errors=True)
    done = subprocess.run(  # noqa: S603  # argv list of our own, no shell
        [sys.executable, "-P", "-m", "runner.demo_base", str(staging)],
        env=worker_command.worker_environment(os.environ),
        check=False,
    )
    if done.returncode != 0:
        raise UserError(
            "the base model could not be made",
            why="its process ended with an error, shown above",
            do="`advisor doctor` says which packages are missing",
            where=str(staging),
            code=ExitCode.INTERNAL,
        )
    durable.publish_dir(staging, base)
    durable.write_atomic(mark, version.encode())
    return base
