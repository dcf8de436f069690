"""Whether our four packages are ours, where our files live, and where the ready recipes lie.

The import packages have common names (`runner`, `profiles`...), so another distribution can shadow
one of them. Every process checks this before it does anything.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from profiles.errors import ExitCode, UserError

PACKAGES = ("tui", "runner", "advisor", "profiles")
FLOORS: Final[Mapping[str, str]] = {
    "torch": "2.10",  # CVE-2025-32434, CVE-2026-24747: weights_only=True ran code
    "transformers": "5.3",  # CVE-2026-4372, CVE-2026-5241: a config.json ran code
    "datasets": "5.2",  # CVE-2026-57845: the pandas builder read pickles
    "safetensors": "0.8",  # files are written aside and renamed
}
"""Versions below which opening somebody else's model or data could run code or lose a file."""
_VERSION: Final = re.compile(r"v?(\d+(?:\.\d+)*)(\.?(?:a|b|rc|dev)\d*)?", re.IGNORECASE)


def home() -> Path:
    """Where everything of ours lives: $TUNEDECK_HOME, else ~/.local/share/tunedeck."""
    configured = os.environ.get("TUNEDECK_HOME")
    if configured:
        # A supervisor works in its run directory: there a relative path would be another place
        return Path(configured).expanduser().absolute()
    return Path.home() / ".local/share/tunedeck"


def version() -> str:
    """Version of the installed distribution, or "unknown" in a bare checkout."""
    from importlib import metadata  # noqa: PLC0415  # 20 ms that most commands can spare

    try:
        return metadata.version("tunedeck")
    except metadata.PackageNotFoundError:
        return "unknown"


def home_of(package: str) -> Path | None:
    """Directory that holds `package`, without importing it."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).resolve().parent.parent if spec and spec.origin else None


def check() -> None:
    """Raise UserError unless the four packages come from one installation."""
    ours = home_of("profiles")
    for package in PACKAGES:
        found = home_of(package)
        if found != ours:
            raise UserError(
                f"the package {package!r} that Python finds is not ours",
                why=f"it comes from {found}, tunedeck from {ours}; {_owner(package)}",
                do="install tunedeck into an environment of its own (`uv tool install`, pipx)",
                where=str(found),
                code=ExitCode.REFUSED,
            )


def check_floors() -> None:
    """Raise UserError if an installed package is older than what is safe to train with."""
    old = {name: found for name in FLOORS if is_older(found := _installed(name), FLOORS[name])}
    if old:
        wanted = " ".join(f"'{name}>={FLOORS[name]}'" for name in old)
        raise UserError(
            f"too old to be safe: {', '.join(f'{name} {found}' for name, found in old.items())}",
            why="these versions are known to run code from models or data, or to lose files",
            do=f"pip install --upgrade {wanted}",
            where="this Python environment",
            code=ExitCode.REFUSED,
        )


def is_older(version: str, floor: str) -> bool:
    """Whether a version comes before a floor; its own pre-releases do. An unknown one does not."""
    found = _VERSION.match(version)
    if found is None:
        return False
    numbers, least = ([int(n) for n in v.split(".")] for v in (found[1], floor))
    length = max(len(numbers), len(least))
    padded = [part + [0] * (length - len(part)) for part in (numbers, least)]
    return padded[0] < padded[1] or (padded[0] == padded[1] and found[2] is not None)


def _installed(package: str) -> str:
    from importlib import metadata  # noqa: PLC0415  # 20 ms that most commands can spare

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""  # what is missing is told by whoever needs it


def _owner(package: str) -> str:
    from importlib import metadata  # noqa: PLC0415  # only where something is wrong

    owners = [o for o in metadata.packages_distributions().get(package, []) if o != "tunedeck"]
    return f"it belongs to {', '.join(owners)}" if owners else "no distribution claims it"


def recipes_dir() -> Path:
    """The ready recipes: beside the packages in a checkout, inside `advisor` in a wheel."""
    base = Path(__file__).resolve().parent.parent
    packaged = base / "advisor" / "recipes"
    return packaged if packaged.is_dir() else base / "recipes"
