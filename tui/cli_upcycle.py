"""Arguments of `advisor upcycle`."""

from __future__ import annotations

from typing import Any

import click

from tui.cli_checks import FORCE, JSON


@click.command()
@click.argument("model")
@click.option("--out", required=True, type=click.Path(), help="The folder to make.")
@click.option(
    "--experts", type=click.IntRange(2, 1024), default=8, show_default=True, help="Of each layer."
)
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Experts that a token visits.",
)
@click.option(
    "--aux-loss",
    type=click.FloatRange(0, 100),
    default=0.1,
    show_default=True,
    help="Weight of the loss that balances the experts.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Of the router's weights.",
)
@FORCE
@JSON
def upcycle(model: str, out: str, force: bool, as_json: bool, **asked: Any) -> int:
    """Make a mixture of experts of a dense MODEL, that predicts the same and can be trained.

    Llama and Mistral become Mixtral, Qwen2 becomes Qwen2-MoE, Qwen3 becomes Qwen3-MoE.
    """
    from runner.upcycling.making import Asked
    from tui.commands import upcycle as command

    return command.upcycle(model, Asked(**asked), out, force=force, as_json=as_json)
