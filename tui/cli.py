"""The command line: arguments only. What a command does is in `tui/commands/`, imported late.

click rather than typer: typer loads pydantic on every call, a third of the time that a
recommendation may take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tui.cli_checks import FORCE, JSON, SET, data, methods, model, recipe
from tui.cli_recommend import recommend
from tui.cli_upcycle import upcycle

RUN = click.argument("run", required=False)
STEPS = click.IntRange(min=1, max=10**9)
FOLLOW = click.option("--follow", is_flag=True, help="Show lines until it ends.")
SHARE = click.option(
    "--share", is_flag=True, help="Start even if others hold memory that it may need."
)


@click.group(invoke_without_command=True, context_settings={"max_content_width": 100})
@click.option("--version", is_flag=True, help="Print the version.")
@click.pass_context
def cli(context: click.Context, version: bool) -> int | None:
    """Fine-tune language models: what fits, a run that cannot be lost, where the time went.

    Without a command the app opens. RUN is a run's id or a unique part of it; left out, the newest.
    """
    from tui.commands import start

    if context.invoked_subcommand is None:
        return start.start(version=version)
    return None


@cli.command()
@JSON
def probe(as_json: bool) -> int:
    """Show this machine: GPUs, free memory and who holds it, CPU, RAM, disk."""
    from tui.commands import probe as command

    return command.probe(as_json=as_json)


@cli.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@SET
@FOLLOW
@click.option("--dry-run", is_flag=True, help="Check everything, start nothing.")
@SHARE
@click.option(
    "--allow-changed",
    is_flag=True,
    help="Replay though data or model changed, or the lock is damaged.",
)
@click.option("--allow-outside", is_flag=True, help="Read data wherever the recipe says.")
def run(recipe: Path, changes: tuple[str, ...], **options: Any) -> int:
    """Start a run that needs this terminal no more; prints its id."""
    from tui.commands import run as command

    return command.run(recipe, changes, **options)


@cli.command()
@JSON
def runs(as_json: bool) -> int:
    """List the runs on this box."""
    from tui.commands import runs as command

    return command.runs(as_json=as_json)


@cli.command()
@RUN
@click.option("--plain", is_flag=True, help="Lines, no screen.")
@JSON
def watch(run: str | None, plain: bool, as_json: bool) -> int:
    """Watch a run live; leaving does not stop it."""
    from tui.commands import runs as command

    return command.watch(run, plain=plain, as_json=as_json)


@cli.command()
@RUN
@click.option("--now", is_flag=True, help="Do not save first; names what it ends, and asks.")
@click.option("--yes", is_flag=True, help="With --now: do not ask.")
def stop(run: str | None, now: bool, yes: bool) -> int:
    """Ask a run to save and stop at the next step."""
    from tui.commands import runs as command

    return command.stop_now(run, sure=yes) if now else command.ask(run, "stop")


@cli.command()
@RUN
def pause(run: str | None) -> int:
    """Ask a run to wait at the next step; `advisor resume` lets it go on."""
    from tui.commands import runs as command

    return command.ask(run, "pause")


@cli.command()
@RUN
def checkpoint(run: str | None) -> int:
    """Ask a run for a checkpoint at the next step."""
    from tui.commands import runs as command

    return command.ask(run, "checkpoint")


@cli.command()
@RUN
@click.option("--log-every", type=STEPS, help="Log the loss every so many steps.")
@click.option("--eval-every", type=STEPS, help="Evaluate every so many steps.")
def change(run: str | None, **changes: int | None) -> int:
    """Ask a run to log or evaluate at another interval from the next step on."""
    from tui.commands import runs as command

    return command.change(run, changes)


@cli.command()
@RUN
@FOLLOW
@SHARE
@click.option("--allow-changed", is_flag=True, help="Go on though data, model or recipe changed.")
def resume(run: str | None, **options: Any) -> int:
    """Go on with a paused, stopped, killed or lost run from its newest sound checkpoint."""
    from tui.commands import runs as command

    return command.resume(run, **options)


@cli.command()
@RUN
@click.option("-n", "num_lines", type=click.IntRange(min=1), default=40, show_default=True)
def logs(run: str | None, num_lines: int) -> int:
    """Print the last lines of a run's console log."""
    from tui.commands import runs as command

    return command.logs(run, num_lines)


@cli.command()
@RUN
@JSON
@click.option("--md", "markdown", type=click.Path(), help="Write Markdown here; - is stdout.")
@click.option("--apply", multiple=True, help="Finding whose change to apply: B02.")
@click.option("--out", type=click.Path(), help="Where the changed recipe goes; - is stdout.")
@FORCE
def profile(run: str | None, **options: Any) -> int:
    """Report where memory and time went and which change would gain how much."""
    from tui.commands import profile as command

    return command.profile(run, **options)


@cli.command()
def demo() -> int:
    """Do everything once with a tiny model, in about two minutes on a CPU."""
    from tui.commands import demo as command

    return command.demo()


@cli.command()
def doctor() -> int:
    """Check the installation."""
    from tui.commands import doctor as command

    return command.doctor()


cli.add_command(recommend)
cli.add_command(upcycle)
cli.add_command(methods)
cli.add_command(data)
cli.add_command(model)
cli.add_command(recipe)
