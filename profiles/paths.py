"""Which files a recipe may have read without a question: a recipe can come from a stranger.

A recipe trains on what it names, and what was trained can be shared, so one that names private
files could carry them out. Three kinds of places are told apart:

- its own folder, the folder one works in and tunedeck's home: nothing is asked;
- elsewhere, the scratch places of batch jobs among it: asked once for each file, and the answer is
  kept;
- places that hold no training data (the system's, hidden ones, the homes of keys), and files that
  are none by their names: refused, until `--allow-outside` says otherwise.

A link to a file of one's own, as caches of data sets are used, is called what the link is called.

What a person named to tunedeck with their own hands (`recommend --data`, `--set data.train=`)
counts as answered, so that nobody is asked about a recipe of their own. Models lie in shared
folders and caches, and a model must be a folder with a configuration and weights, so for them only
the system's places and the homes of keys are closed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from profiles.data import folders
from profiles.errors import ExitCode, UserError
from profiles.installation import home
from profiles.runs import durable
from profiles.runs.rundir import read_json

DATA_SUFFIXES: Final = frozenset(
    {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".jinja"}
)
"""Of data files, packed or not, and of the chat templates that they are written by. A .txt file is
data too, but elsewhere it may be any note: such a one is named by hand or with --allow-outside."""
SYSTEM_PLACES: Final = tuple(
    Path("/", *place.split())
    for place in ("etc", "proc", "sys", "dev", "boot", "var log", "var spool", "run secrets")
)
SCRATCH_PLACES: Final = (
    Path("/dev/shm"),  # noqa: S108  # nothing is written there; data may lie there
    *(Path("/var/spool", name) for name in ("slurm", "slurmd", "pbs", "torque")),
)
"""Lie in the system's places, and batch jobs copy their data there."""
SCRATCH_VARIABLES: Final = ("TMPDIR", "SLURM_TMPDIR", "PBS_JOBDIR")
HOMES_OF_KEYS: Final = frozenset(
    {".aws", ".azure", ".config", ".docker", ".gnupg", ".kube", ".password-store", ".ssh"}
)
_SCHEMA: Final = 1
_MOST_KNOWN: Final = 1000


def refuse_closed(data: Iterable[Path], model: Path, folder: Path) -> None:
    """UserError if a recipe in `folder` names data or a model in a place that holds none."""
    known, open_places = _known(), roots(folder)
    for path, is_data in [*((file, True) for file in data), (model, False)]:
        fault = "" if str(_real(path)) in known else _closed(path, open_places, is_data=is_data)
        if fault:
            does = "would train on" if is_data else "takes its model from"
            raise _refusal(f"the recipe {does} {path}", fault, path)


def unanswered(data: Iterable[Path], folder: Path) -> list[Path]:
    """The data files of a recipe in `folder` that a person must be asked about, resolved."""
    known, open_places = _known(), roots(folder)
    return [
        file
        for file in map(_real, data)
        if str(file) not in known and not any(file.is_relative_to(place) for place in open_places)
    ]


def refuse_unanswered(files: list[Path]) -> None:
    """UserError that names the first of the files, if there is one; nobody could be asked."""
    if files:
        raise _refusal(
            f"the recipe reads {files[0]}, which lies outside its own folder",
            "a recipe can come from a stranger, and what is trained may be shared",
            files[0],
        )


def remember(paths: Iterable[Path | str]) -> None:
    """Keep that a person named these or said yes to them; a full disk only costs a question."""
    kept = list(dict.fromkeys([*_known(), *(str(_real(Path(path))) for path in paths)]))
    with suppress(OSError):
        home().mkdir(mode=durable.PRIVATE_DIR, parents=True, exist_ok=True)
        durable.write_json(_record(), {"schema": _SCHEMA, "paths": kept[-_MOST_KNOWN:]})


def roots(folder: Path) -> list[Path]:
    """Places in which a recipe in `folder` may read; never the person's whole home by chance."""
    places = [_real(folder), _real(home())]
    with suppress(OSError):  # the folder one works in may be gone
        here = _real(Path.cwd())
        places += [] if _real(Path.home()).is_relative_to(here) else [here]
    return [place for place in places if place != place.parent]


def _closed(path: Path, open_places: list[Path], *, is_data: bool) -> str:
    """Why nothing there is for training, by where it lies or what it is called; else ""."""
    real, scratch = _real(path), _scratch_places()
    system = next((place for place in SYSTEM_PLACES if real.is_relative_to(place)), None)
    if system and not any(real.is_relative_to(place) for place in scratch):
        return f"{system} belongs to the system"
    keys = HOMES_OF_KEYS.intersection(_below(real, open_places))
    if keys:
        return f"{min(keys)} is a place for keys and settings"
    if not is_data:
        return ""
    called = _called(path, real, open_places)
    hidden = [part for part in _below(called, [*open_places, *scratch]) if part.startswith(".")]
    if hidden:
        return f"{hidden[0]} is hidden, and hidden places keep settings and keys"
    is_open = any(real.is_relative_to(place) for place in open_places)
    if not is_open and not _is_data_by_name(called):
        return "it lies outside the recipe's folder and is no data file by its name"
    return ""


def _is_data_by_name(file: Path) -> bool:
    """Also a folder whose rows lie in files: what of it is read is decided by its own list."""
    inner = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    return inner.suffix.lower() in DATA_SUFFIXES or folders.holds_rows(file)


def _called(path: Path, real: Path, open_places: list[Path]) -> Path:
    """The path by whose name a file is judged: that of a link in an open place, else its own.

    Only links to regular, not hidden files of one's own count: caches keep data sets in hidden
    folders under names without a suffix.
    """
    link = _real(path.parent) / path.name
    if not any(link.is_relative_to(place) for place in open_places) or real.name.startswith("."):
        return real
    try:
        found = real.stat()
    except (OSError, ValueError):
        return real
    return link if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() else real


def _below(path: Path, places: list[Path]) -> tuple[str, ...]:
    """The parts of the path below the innermost place that it lies in, else all of them."""
    inside = [path.relative_to(place).parts for place in places if path.is_relative_to(place)]
    return min(inside, key=len, default=path.parts)


def _scratch_places() -> list[Path]:
    """Where batch jobs keep data; a variable that names a whole place of the system is no such."""
    named = [_real(Path(os.environ[name])) for name in SCRATCH_VARIABLES if os.environ.get(name)]
    whole = [place for place in named if any(s.is_relative_to(place) for s in SYSTEM_PLACES)]
    return [*SCRATCH_PLACES, *(place for place in named if place not in whole)]


def _real(path: Path) -> Path:
    """Absolute, with every symbolic link followed; a loop of links ends where it began."""
    return Path(os.path.realpath(path))


def _record() -> Path:
    return home() / "inputs.json"


def _known() -> list[str]:
    """What persons answered, oldest first."""
    paths = (read_json(_record()) or {}).get("paths")
    return [name for name in paths if isinstance(name, str)] if isinstance(paths, list) else []


def _refusal(what: str, why: str, where: Path) -> UserError:
    return UserError(
        what,
        why=why,
        do="read the recipe; if this is what you want, add --allow-outside",
        where=str(where),
        code=ExitCode.REFUSED,
    )
