"""Arguments of `advisor recommend`."""

from __future__ import annotations

import shlex
from typing import Any

import click

from profiles.data.words import printable
from profiles.errors import ExitCode, UserError
from tui.cli_checks import CLEAN, COLUMNS, ENCODING, FORCE, FORMAT, JSON, MASK, SPLIT_BY

_LEVELS = click.Choice(["low", "medium", "high"])


def _show_keys(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from tui import plain
        from tui.pages import json_keys

        plain.show(json_keys.lines(plain.page_width()))
        context.exit(0)


@click.command()
@click.option("--model", required=True, help="Folder, or name on the hub: org/name.")
@click.option("--data", help="Data file: .json, .jsonl, .csv, .tsv, .txt, .parquet; or .gz.")
@click.option("--on-bad", type=click.Choice(["error", "skip"]), help="What faulty rows are.")
@FORMAT
@ENCODING
@COLUMNS
@CLEAN
@MASK
@SPLIT_BY
@click.option("--chat-template", help="Write chats so: a family like chatml, or a .jinja file.")
@click.option("--learn", type=click.Choice(["all", "last"]), help="Which replies of a chat.")
@click.option("--gpu", help='Plan for this machine instead: "4x RTX 4090", "p4d".')
@click.option("--ram", metavar="SIZE", help="RAM of the machine of --gpu, like 480G.")
@click.option("--disk", metavar="SIZE", help="Free disk of the machine of --gpu, like 2T.")
@click.option("--compare", is_flag=True, help='Compare MACHINEs: --compare "RTX 4090" "8x H100".')
@click.option("--price", "prices", type=float, multiple=True, help="Of each machine, per hour.")
@click.option("--task", help="As `advisor methods` lists them; without it the data say it.")
@click.option(
    "--for",
    "domain",
    metavar="USE",
    help="Start from the documents' settings for finance, medical, law, education, research, "
    "enterprise, personal, prototype or production; then fit them to the machine.",
)
@click.option("--complexity", type=_LEVELS, help="Of the task.")
@click.option(
    "--critical/--not-critical", default=None, help="Only the best will do, cost is none."
)
@click.option("--value/--no-value", default=None, help="Best value for money is wanted.")
@click.option(
    "--quality/--no-quality", default=None, help="Nearly the quality of full fine-tuning."
)
@click.option("--seq", "--seq-len", "seq_len", type=int, help="Longest row in tokens.")
@click.option("--batch", "effective_batch", type=int, help="Rows a step.")
@click.option("--save", type=click.Path(), help="Write the recipe here; - is stdout.")
@FORCE
@click.option("--explain", is_flag=True, help="Show every term of the estimate.")
@click.option("--rehearse", is_flag=True, help="Check memory on the model's own code, without GPU.")
@JSON
@click.option(
    "--json-keys",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_keys,
    help="Tell what the keys of --json mean.",
)
@click.argument("machines", nargs=-1, metavar="[MACHINE]...")
def recommend(
    machines: tuple[str, ...],
    model: str,
    data: str | None,
    gpu: str | None,
    *,
    ram: str | None,
    disk: str | None,
    compare: bool,
    prices: tuple[float, ...],
    save: str | None,
    force: bool,
    explain: bool,
    rehearse: bool,
    as_json: bool,
    **answers: Any,
) -> int:
    """Say which method fits, with which settings, and why.

    MACHINEs are for --compare, written as for --gpu: "4x RTX 4090", "8x H100:nvlink".
    """
    from tui.commands import recommend as command
    from tui.commands.request import Asked, Request

    request = Request(
        model=model,
        data=data,
        gpu=gpu,
        ram=ram,
        disk=disk,
        asked=Asked(**answers),
        prices=prices,
        save=save,
        force=force,
        explain=explain,
        rehearse=rehearse,
        as_json=as_json,
    )
    if compare or machines:
        from tui.commands import comparison

        return comparison.compare(request, machines, compare=compare)
    return command.recommend(request)


_READING = (
    "on_bad",
    "data_format",
    "encoding",
    "columns",
    "clean",
    "mask",
    "split_by",
    "chat_template",
    "learn",
    "task",
)
"""Options that say how data is read and what for."""


def reading_of(text: str) -> dict[str, Any]:
    """Those options, typed as on a command line; UserError for anything else."""
    options = click.Command(
        "options",
        params=[one for one in recommend.params if one.name in _READING],
        add_help_option=False,
    )
    try:
        return options.make_context("options", shlex.split(text)).params
    except (click.UsageError, ValueError) as error:
        raise UserError(
            f"options that are not understood: {printable(text, 80)}",
            why=error.format_message() if isinstance(error, click.UsageError) else str(error),
            do="write them as for `advisor recommend`: --on-bad skip --chat-template chatml "
            "--learn last --encoding gb18030 --column prompt=question --task kto",
            where="options",
            code=ExitCode.USAGE,
        ) from None
