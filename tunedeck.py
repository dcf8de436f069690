"""Start of the installed `advisor` command, under a name that no other file is likely to have.

Our packages have common names (`runner`, `profiles`...): a folder on PYTHONPATH comes before the
installed ones, and a stranger's `tui.py` in it would run in the command's place. This module asks
where each would come from before any is imported; so it knows the standard library alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_PACKAGES = ("profiles", "advisor", "runner", "tui")
_REFUSED = 77
"""`ExitCode.REFUSED`; it cannot be imported yet."""


def main() -> None:
    """Run a command and leave with its exit code."""
    ours = Path(__file__).resolve().parent
    for package in _PACKAGES:
        found = _file_of(package)
        if found != str(ours / package / "__init__.py"):
            sys.exit(_tell(package, found, ours))
    from tui.main import main as command  # noqa: PLC0415  # now it is known to be ours

    command()


def _file_of(package: str) -> str:
    """Which file an import would read, links followed; "" if there is none."""
    spec = importlib.util.find_spec(package)
    return os.path.realpath(spec.origin) if spec and spec.origin else ""


def _tell(package: str, found: str, ours: Path) -> int:
    sys.stderr.write(
        f"error: the package '{package}' that Python finds is not ours\n\n"
        f"why:   tunedeck is in {ours}, but other places are searched before it"
        f" (PYTHONPATH: {os.environ.get('PYTHONPATH', 'not set')})\n"
        "do:    start it without them, `env -u PYTHONPATH advisor ...`, or install tunedeck into"
        " an environment of its own (`uv tool install`, pipx)\n"
        f"where: {found or 'no such package at all'}\n"
    )
    return _REFUSED


if __name__ == "__main__":
    main()
