"""`advisor` alone: the app, or one line on why there is no screen."""

from __future__ import annotations

import sys

from profiles import installation
from profiles.errors import ExitCode, UserError
from tui import plain
from tui.terminal import look_at_terminal, prepare_environment, write_ascii


def start(*, version: bool) -> int:
    """Print the version, or open the app."""
    if version:
        plain.show([f"tunedeck {installation.version()}"])
        return 0
    return open_app(None)


def open_app(run_id: str | None) -> int:
    """The app on its first screen, or on a run: its id or its path."""
    terminal = look_at_terminal()
    if not terminal.interactive:
        raise UserError(
            "the app needs a terminal",
            why="input or output is a pipe or a file, or TERM is dumb",
            do="use the commands: `advisor watch --json` or `--plain`, `runs`, `probe`, `run`",
            where="advisor",
            code=ExitCode.USAGE,
        )
    prepare_environment(terminal)
    if not terminal.unicode:
        write_ascii(sys.__stderr__)  # where Textual draws: names are data, and may be in any script
    from tui.app import TunedeckApp  # noqa: PLC0415  # Textual reads its settings when imported

    app = TunedeckApp(terminal, run_id=run_id)
    left_with = app.run()
    return left_with if left_with is not None else app.return_code or 0
