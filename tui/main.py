"""The `advisor` command: errors told, exit codes kept."""

from __future__ import annotations

import os
import sys

from profiles.errors import ExitCode, UserError


def main() -> None:
    """Run a command and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    # processes started from here must not import from the user's working directory either
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        from tui.cli import cli  # noqa: PLC0415  # what fails in importing it is told below

        # not cli.main(), which answers for interrupts and closed pipes in its own way
        with cli.make_context("advisor", arguments) as context:
            return int(cli.invoke(context) or 0)
    except UserError as error:
        return _tell(error, as_json="--json" in arguments)
    except BrokenPipeError:  # the reader of our output has gone, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.FINISHED)
    except (KeyboardInterrupt, EOFError):
        return 130
    except Exception as error:  # noqa: BLE001  # what is not a usage error is raised again
        return _usage(error)


def _tell(error: UserError, *, as_json: bool) -> int:
    from tui import plain  # noqa: PLC0415

    if as_json:
        plain.show_json({"error": error.as_dict()})
    for line in plain.error_lines(error):
        plain.say(line)
    return int(error.code)


def _usage(error: Exception) -> int:
    """Usage errors show themselves; anything else is our mistake and keeps its traceback."""
    import click  # noqa: PLC0415

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if not isinstance(error, click.ClickException):
        raise error
    error.show()
    return int(ExitCode.USAGE)
