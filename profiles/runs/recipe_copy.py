"""The recipe that a run was started with, as text: what it means is the advisor's to say."""

from __future__ import annotations

from profiles.errors import ExitCode, UserError
from profiles.runs import advice, reading
from profiles.runs.rundir import RunDir


def text_of(run: RunDir) -> str:
    """The run's own copy; UserError if it is missing or cannot be read."""
    try:
        return reading.text(run.recipe)
    except (OSError, ValueError) as error:
        is_missing = isinstance(error, FileNotFoundError)
        raise UserError(
            f"the run's recipe cannot be read: {reading.reason(error)}",
            why="a run keeps a copy of the recipe that it was started with; this one is "
            + ("gone" if is_missing else "damaged"),
            do=f"put the file back; {advice.command('watch', run)} tells what is recorded",
            where=str(run.recipe),
            code=ExitCode.NO_INPUT if is_missing else ExitCode.BAD_DATA,
        ) from error
