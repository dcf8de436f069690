"""What a path in a recipe may look like: a recipe comes from anywhere, its paths from anybody.

Only the text is judged here. Where a path leads is another matter, which needs a disk
(`profiles.paths`).
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, Field

MAX_PATH_CHARS: Final = 500
MAX_NAME_BYTES: Final = 200
"""File systems allow 255; ours add a prefix and a suffix to names that they write."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def sound_path(text: str) -> str:
    """The path as it is; ValueError for what a file system, a program or a reader may mistake."""
    if any(unicodedata.category(char) in _INVISIBLE for char in text):
        raise ValueError("a path must not hold control or invisible characters")
    if text.startswith("-"):
        raise ValueError('a path must not begin with "-", programs take that for an option')
    if text.startswith("~"):
        raise ValueError('"~" is not replaced in a recipe; write the whole path')
    if any(len(name.encode()) > MAX_NAME_BYTES for name in text.split("/")):
        raise ValueError(f"a name in a path must not be longer than {MAX_NAME_BYTES} bytes")
    return text


InputPath = Annotated[
    str, Field(min_length=1, max_length=MAX_PATH_CHARS), AfterValidator(sound_path)
]
"""A file or folder that a recipe reads. A recipe names nothing that is written."""
