"""JSON files of a model folder, and the refusal of those that could make a library run code.

Decides what is safe to look at: regular files of bounded size and depth that hold an object, and
configurations without any key by which a library could be made to fetch or load code. Libraries
get the folder only after that: `trust_remote_code=False` was not enough in CVE-2026-4372 (a key
`*_internal`), CVE-2026-5241 (a nested configuration) and CVE-2026-93348 (a newline in
`model_type`). One such key is let pass: config.json's own `auto_map`, where the caller knows that
the library has a class for the type, which it then takes. It knows nothing of models.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from profiles.errors import ExitCode, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_JSON_BYTES: Final = 64_000_000
MAX_CONFIG_BYTES: Final = 16_000_000
"""The largest in use, of tokenizers with many added tokens, have under 2 MB."""
MAX_DEPTH: Final = 64
MODEL_TYPE: Final = re.compile(r"[a-z0-9_\-]{1,64}")
CLASS_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
CODE_KEY: Final = "auto_map"
FORBIDDEN_KEYS: Final = frozenset(
    {CODE_KEY, "trust_remote_code", "kernel_config", "transformers_weights"}
)
IMPLEMENTATION_KEYS: Final = frozenset(
    {"attn_implementation", "_attn_implementation", "experts_implementation"}
)
CLASS_KEYS: Final = frozenset(
    {
        "architectures",
        "tokenizer_class",
        "processor_class",
        "image_processor_type",
        "feature_extractor_type",
        "video_processor_type",
    }
)
SIDE_FILES: Final = (
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)
"""What libraries read beside config.json, and obey in the same way."""


def _none(_model_type: str) -> bool:
    return False


def read_config(path: Path, has_class: Callable[[str], bool] = _none) -> dict[str, Any]:
    """The config.json at `path`; raises UserError where it is missing, torn or unsafe.

    `has_class`: as `refuse_code` has it.
    """
    if not os.path.lexists(path):
        raise UserError(
            f"no config.json in {path.parent}",
            why="a model folder needs it: the dimensions stand there",
            do="give the folder into which the model was downloaded or saved",
            where=str(path),
            code=ExitCode.NO_INPUT,
        )
    config = read_json(path, MAX_CONFIG_BYTES)
    refuse_code(config, path, has_class)
    return config


def refuse_side_files(folder: Path) -> None:
    """Raise UserError if a file beside config.json could make a library run code."""
    for path in (folder / name for name in SIDE_FILES):
        if os.path.lexists(path):
            _refuse_keys(read_json(path, MAX_CONFIG_BYTES), path)


def read_json(path: Path, most_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file; raises UserError for anything else."""
    text: str | None = None
    try:
        about = path.stat()
        if stat.S_ISREG(about.st_mode) and about.st_size <= most_bytes:
            text = path.read_text(encoding="utf-8")
        value = json.loads(text) if text is not None else None
    except json.JSONDecodeError as error:
        raise bad_file(
            f"{path.name} is not valid JSON",
            f"{path}:{error.lineno}:{error.colno}",
            why=error.msg,
            do="fetch the file again; it may have been cut off while copying",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        reasons = {RecursionError: "it is nested too deeply", MemoryError: "it fills the memory"}
        why = reasons.get(type(error), "it is not UTF-8, or a number in it has no end")
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
        limit = f"it is over {most_bytes} bytes, or no regular file"
        why = limit if text is None else "it is not a JSON object"
        raise bad_file(f"{path.name} is not usable", path, why=why, do="fetch the file again")
    return value


def bad_file(what: str, where: Path | str, *, why: str, do: str) -> UserError:
    """The error for a file of a model folder that holds what it must not."""
    return UserError(what, why=why, do=do, where=str(where), code=ExitCode.BAD_DATA)


def refuse_code(
    config: dict[str, Any], path: Path | str, has_class: Callable[[str], bool] = _none
) -> None:
    """Reject keys by which a library could be made to fetch or run foreign code.

    `has_class`: whether the library has a class of its own for a model type.
    """
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
    if names_code(config) and has_class(model_type):
        config = {key: value for key, value in config.items() if key != CODE_KEY}
    _refuse_keys(config, path)


def names_code(config: dict[str, Any]) -> bool:
    """A configuration names classes of its own, in the form in which libraries write them."""
    named = config.get(CODE_KEY)
    return isinstance(named, dict) and all(isinstance(one, str) for one in named.values())


def _refuse_keys(config: dict[str, Any], path: Path | str) -> None:
    """Look at every key, at any depth."""
    name = Path(path).name
    for key, value in _entries(config, path):
        if _names_code(key, value):
            raise UserError(
                f"{name} contains {key[:80]!r}: {str(value)[:80]}",
                why="this can make a library run code that comes with the model",
                do="use a version of the model that transformers supports without remote code",
                where=str(path),
                code=ExitCode.REFUSED,
            )


def _names_code(key: str, value: object) -> bool:
    """Whether a library could take this entry for code, or for the name of code, to load."""
    if key in FORBIDDEN_KEYS or key.endswith("_internal"):
        return True
    if key in IMPLEMENTATION_KEYS:
        return any("/" in text for text in _texts(value))  # a repository of kernels
    if key == "model_type":
        return not all(MODEL_TYPE.fullmatch(text) for text in _texts(value) if text)
    return key in CLASS_KEYS and not all(CLASS_NAME.fullmatch(text) for text in _texts(value))


def _texts(value: object) -> list[str]:
    """The strings in a value: itself, or those in its lists and objects."""
    found, pending = [], [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict | list):
            pending.extend(item.values() if isinstance(item, dict) else item)
    return found


def _entries(value: object, path: Path | str) -> Iterator[tuple[str, object]]:
    """Every key with its value; UserError where objects and lists lie in each other too deeply."""
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise bad_file(
                f"{Path(path).name} is not usable",
                path,
                why=f"it is nested over {MAX_DEPTH} deep",
                do="fetch the file again",
            )
        if isinstance(item, dict):
            yield from item.items()
            pending.extend((inner, depth + 1) for inner in item.values())
        elif isinstance(item, list):
            pending.extend((inner, depth + 1) for inner in item)
