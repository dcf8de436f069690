"""Files that a command writes where the user asks: whole or not at all, with a clear error."""

from __future__ import annotations

import os
from pathlib import Path

from profiles.errors import ExitCode, UserError
from profiles.runs import durable


def write(path: Path, text: str) -> None:
    """Replace `path` by `text`; prints nothing, for the app uses it too."""
    mask = os.umask(0)
    os.umask(mask)
    try:
        durable.write_atomic(path, text.encode())
        path.chmod(0o666 & ~mask)  # the user's own file, to share; runs stay private
    except OSError as error:
        raise UserError(
            f"cannot write {path.name}: {error.strerror}",
            why="nothing was saved",
            do="name a place that can be written",
            where=str(path),
            code=ExitCode.CANNOT_CREATE,
        ) from error
