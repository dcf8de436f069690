"""JSON files of a model folder, and the refusal of a config.json that could run foreign code.

Decides what is safe to look at: files of bounded size that hold an object, and a configuration
without any key by which a library could be made to fetch or load code. It knows nothing of models.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_JSON_BYTES: Final = 64_000_000
MODEL_TYPE: Final = re.compile(r"[a-z0-9_\-]{1,64}")
FORBIDDEN_KEYS: Final = frozenset({"auto_map", "trust_remote_code", "kernel_config"})
IMPLEMENTATION_KEYS: Final = frozenset(
    {"attn_implementation", "_attn_implementation", "experts_implementation"}
)


def read_config(path: Path) -> dict[str, Any]:
    """The config.json at `path`; raises UserError where it is missing, torn or unsafe."""
    if not path.exists():
        raise UserError(
            f"no config.json in {path.parent}",
            why="a model folder needs it: the dimensions stand there",
            do="give the folder into which the model was downloaded or saved",
            where=str(path),
            code=ExitCode.NO_INPUT,
        )
    config = read_json(path)
    refuse_code(config, path)
    return config


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises UserError for anything else."""
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_JSON_BYTES else None
        value = json.loads(text) if text is not None else None
    except json.JSONDecodeError as error:
        raise bad_file(
            f"{path.name} is not valid JSON",
            f"{path}:{error.lineno}:{error.colno}",
            why=error.msg,
            do="fetch the file again; it may have been cut off while copying",
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else "it is not UTF-8"
        raise bad_file(
            f"{path.name} cannot be read as JSON", path, why=why, do="fetch the file again"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot read {path.name}",
            why=error.strerror or str(error),
            do="check the file and its permissions",
            where=str(path),
            code=ExitCode.NO_INPUT if isinstance(error, FileNotFoundError) else ExitCode.IO_ERROR,
        ) from error
    if not isinstance(value, dict):
        why = f"it is over {MAX_JSON_BYTES} bytes" if text is None else "it is not a JSON object"
        raise bad_file(f"{path.name} is not usable", path, why=why, do="fetch the file again")
    return value


def bad_file(what: str, where: Path | str, *, why: str, do: str) -> UserError:
    """The error for a file of a model folder that holds what it must not."""
    return UserError(what, why=why, do=do, where=str(where), code=ExitCode.BAD_DATA)


def refuse_code(config: dict[str, Any], path: Path | str) -> None:
    """Reject keys by which a library could be made to fetch or run foreign code."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not MODEL_TYPE.fullmatch(model_type):
        found = "missing" if model_type is None else f"{str(model_type)[:80]!r}"
        code = ExitCode.BAD_DATA if model_type is None else ExitCode.REFUSED
        raise UserError(
            f"model_type in config.json is {found}",
            why="it must be 1 to 64 of a-z, 0-9, _ and -",
            do="fetch the original config.json of the model",
            where=str(path),
            code=code,
        )
    for key, value in _entries(config):
        names_code = key in FORBIDDEN_KEYS or key.endswith("_internal")
        names_repo = key in IMPLEMENTATION_KEYS and isinstance(value, str) and "/" in value
        if names_code or names_repo:
            raise UserError(
                f"config.json contains {key[:80]!r}",
                why="this key can make a library run code that comes with the model",
                do="use a version of the model that transformers supports without remote code",
                where=str(path),
                code=ExitCode.REFUSED,
            )


def _entries(value: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
