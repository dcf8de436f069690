"""`advisor` alone: the app, or one line on why there is no screen."""

from __future__ import annotations

from profiles import installation
from profiles.errors import ExitCode, UserError
from tui import plain
from tui.terminal import look_at_terminal, prepare_environment


def start(*, version: bool) -> int:
    """Print the version, or open the app."""
    if version:
        plain.show([f"tunedeck {installation.version()}"])
        return 0
    return open_app(None)


def open_app(run_id: str | None) -> int:
    """The app on its first screen, or on a run."""
    terminal = look_at_terminal()
    if not terminal.interactive:
        raise UserError(
            "the app needs a terminal",
            why="input or output is a pipe or a file, or TERM is dumb",
            do="use the commands: `advisor probe`, `recommend`, `run`, `watch --plain`, `profile`",
            where="advisor",
            code=ExitCode.USAGE,
        )
    prepare_environment(terminal)
    from tui.app import TunedeckApp  # noqa: PLC0415  # Textual reads its settings when imported

    return TunedeckApp(terminal, run_id=run_id).run() or 0
