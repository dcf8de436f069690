"""Keeps the traceback of a screen that broke, and says what it means for the run: nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
import traceback

from profiles import installation, redact
from profiles.errors import ExitCode, UserError
from profiles.runs import durable
from tui.terminal import clean


def told(error: BaseException) -> UserError:
    """Save the traceback in the home; the words for the person, which never fail."""
    name = f"ui-crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    path = installation.home() / name
    try:
        path.parent.mkdir(mode=durable.PRIVATE_DIR, parents=True, exist_ok=True)
        durable.write_atomic(path, _text(error).encode("utf-8", errors="replace"))
        where = str(path)
    except OSError as fault:
        where = (
            f"{installation.home()} (the traceback could not be saved: {fault.strerror or fault})"
        )
    return UserError(
        clean(redact.redact(f"the screen broke: {type(error).__name__}: {error}", os.environ)),
        why="it is our mistake; your run is unaffected, it needs no screen",
        do="open it again with `advisor`; please report the file below",
        where=where,
        code=ExitCode.INTERNAL,
    )


def _text(error: BaseException) -> str:
    """Versions and the traceback; never the values of variables, which may be secrets."""
    lines = [
        f"tunedeck {installation.version()}, python {platform.python_version()}",
        f"textual {importlib.metadata.version('textual')}, TERM={os.environ.get('TERM', '')}",
        "",
        "".join(traceback.format_exception(error)),
    ]
    return redact.redact("\n".join(lines), os.environ)
