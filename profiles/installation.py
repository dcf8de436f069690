"""Whether our four packages are ours, and where the ready recipes lie.

The import packages have common names (`runner`, `profiles`...), so another distribution can shadow
one of them. Every process checks this before it does anything.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from profiles.errors import ExitCode, UserError

PACKAGES = ("tui", "runner", "advisor", "profiles")


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


def _owner(package: str) -> str:
    from importlib import metadata  # noqa: PLC0415  # only where something is wrong

    owners = [o for o in metadata.packages_distributions().get(package, []) if o != "tunedeck"]
    return f"it belongs to {', '.join(owners)}" if owners else "no distribution claims it"


def recipes_dir() -> Path:
    """The ready recipes: beside the packages in a checkout, inside `advisor` in a wheel."""
    base = Path(__file__).resolve().parent.parent
    packaged = base / "advisor" / "recipes"
    return packaged if packaged.is_dir() else base / "recipes"
