"""The command line: arguments only. What a command does is in `tui/commands/`, imported late."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from tui.cli_checks import Changes, Json, OptInt, OptText, data, model, recipe

app = typer.Typer(
    help="Fine-tune language models: what fits, a run that cannot be lost, where the time went.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=False,
)
app.add_typer(data, name="data")
app.add_typer(model, name="model")
app.add_typer(recipe, name="recipe")

Run = Annotated[Optional[str], typer.Argument(help="Run id or a part of it; default: the newest.")]  # noqa: UP045  # typer reads it
OptPath = Optional[Path]  # noqa: UP045


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    plain: Annotated[bool, typer.Option(help="Never draw a screen.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Without a command: the app."""
    from tui.commands import start as command

    if context.invoked_subcommand is None:
        raise typer.Exit(command.start(plain=plain, version=version))


@app.command()
def probe(as_json: Json = False) -> int:
    """Show this machine: GPUs, free memory and who holds it, CPU, RAM, disk."""
    from tui.commands import probe as command

    return command.probe(as_json=as_json)


@app.command()
def recommend(
    model: Annotated[str, typer.Option(help="Folder of the model.")],
    data: Annotated[OptText, typer.Option(help="Data file, JSON or JSONL.")] = None,
    gpu: Annotated[OptText, typer.Option(help='Plan for this instead: "4x RTX 4090".')] = None,
    task: Annotated[Literal["sft", "classify"], typer.Option()] = "sft",
    complexity: Annotated[Optional[Literal["low", "medium", "high"]], typer.Option()] = None,  # noqa: UP045
    critical: Annotated[Optional[bool], typer.Option(help="The task is critical, cost is none.")] = None,  # noqa: UP045
    value: Annotated[Optional[bool], typer.Option(help="Best value for money is wanted.")] = None,  # noqa: UP045
    quality: Annotated[Optional[bool], typer.Option(help="Nearly the quality of full.")] = None,  # noqa: UP045
    seq: Annotated[OptInt, typer.Option(help="Longest row in tokens.", min=8)] = None,
    batch: Annotated[OptInt, typer.Option(help="Rows per optimizer step.", min=1)] = None,
    save: Annotated[OptPath, typer.Option(help="Write the recipe here.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show every term.")] = False,
    as_json: Json = False,
) -> int:
    """Say which method fits, with which settings, and why."""
    from tui.commands import recommend as command

    asked = command.Asked(
        task=task, complexity=complexity, critical=critical, value=value, quality=quality,
        seq_len=seq, effective_batch=batch,
    )
    return command.recommend(model, data, gpu, asked, save=save, explain=explain, as_json=as_json)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="Recipe, TOML.")],
    changes: Changes = [],  # noqa: B006  # typer copies it
    follow: Annotated[bool, typer.Option("--follow", help="Show lines until it ends.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, start nothing.")] = False,
) -> int:
    """Start a run that needs this terminal no more; prints its id."""
    from tui.commands import run as command

    return command.run(recipe, changes, follow=follow, dry_run=dry_run)


@app.command()
def runs(as_json: Json = False) -> int:
    """List the runs on this box."""
    from tui.commands import runs as command

    return command.runs(as_json=as_json)


@app.command()
def watch(
    run: Run = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines, no screen.")] = False,
    as_json: Json = False,
) -> int:
    """Watch a run live; leaving does not stop it."""
    from tui.commands import runs as command

    return command.watch(run, plain=plain, as_json=as_json)


@app.command()
def stop(
    run: Run = None,
    now: Annotated[bool, typer.Option("--now", help="Do not save first.")] = False,
) -> int:
    """Ask a run to save and stop at the next step."""
    from tui.commands import runs as command

    return command.ask(run, "stop_now" if now else "stop")


@app.command()
def pause(run: Run = None) -> int:
    """Ask a run to wait at the next step; `advisor resume` lets it go on."""
    from tui.commands import runs as command

    return command.ask(run, "pause")


@app.command()
def checkpoint(run: Run = None) -> int:
    """Ask a run for a checkpoint at the next step."""
    from tui.commands import runs as command

    return command.ask(run, "checkpoint")


@app.command()
def resume(
    run: Run = None,
    follow: Annotated[bool, typer.Option("--follow", help="Show lines until it ends.")] = False,
) -> int:
    """Go on with a paused, stopped, killed or lost run from its newest sound checkpoint."""
    from tui.commands import runs as command

    return command.resume(run, follow=follow)


@app.command()
def logs(
    run: Run = None, lines: Annotated[int, typer.Option("-n", help="Last lines.", min=1)] = 40
) -> int:
    """Print the console log of a run."""
    from tui.commands import runs as command

    return command.logs(run, lines)


@app.command()
def profile(
    run: Run = None,
    as_json: Json = False,
    md: Annotated[OptPath, typer.Option(help="Write Markdown here.")] = None,
    apply: Annotated[list[str], typer.Option(help="Finding to apply: B02.")] = [],  # noqa: B006
    out: Annotated[OptPath, typer.Option(help="Recipe with the findings applied.")] = None,
) -> int:
    """Report where memory and time went and which change would gain how much."""
    from tui.commands import profile as command

    return command.profile(run, as_json=as_json, markdown=md, apply=apply, out=out)


@app.command()
def demo() -> int:
    """Do everything once with a tiny model, in about two minutes on a CPU."""
    from tui.commands import demo as command

    return command.demo()


@app.command()
def doctor() -> int:
    """Check the installation."""
    from tui.commands import doctor as command

    return command.doctor()


cli = typer.main.get_command(app)
