"""What a model folder has beside its weights and goes along with them, wherever they go."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from profiles.models.model import TEMPLATES_NAME

_SIDE_FILES: Final = (
    *("tokenizer*.json", "tokenizer.model*", "*.model", "*.tiktoken", "tekken.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("generation_config.json", "chat_template.json", "*.jinja", f"{TEMPLATES_NAME}/*.jinja"),
    *("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"),
)
"""How text becomes tokens, and what may be done with the weights."""


def side_files(folder: Path) -> list[Path]:
    """Those of a model folder; no code, no weights, nothing of the person's own."""
    found = {path for pattern in _SIDE_FILES for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())
