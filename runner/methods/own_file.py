"""Adapters of our own making: published with the code that puts them on their base.

Such a folder holds nothing that transformers or PEFT would take for theirs: what they would write
of the model is a whole one, which loads as a model that was never adapted.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from safetensors.torch import save_file


class _Files(NamedTuple):
    """Where what is published is written. No module: a copy of a model copies this too."""

    config: str
    weights: str
    loader: str
    source: str
    """The code that becomes the loader."""
    part: str
    """In the names of the adapters' weights."""


def publish_with(
    model: Any, layers: ModuleType, part: str, loader: str, config: dict[str, Any]
) -> None:
    """Have the model saved as its weights below modules named `part`, and what loads them.

    `layers`: the module that is published as `loader`, with CONFIG and WEIGHTS, names of files.
    """
    files = _Files(layers.CONFIG, layers.WEIGHTS, loader, str(layers.__file__), f".{part}.")
    model.save_pretrained = functools.partial(_save, model, files, config)


def _save(
    model: Any, files: _Files, config: dict[str, Any], folder: str | Path, **_options: Any
) -> None:
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    weights = {name: weight for name, weight in model.named_parameters() if files.part in name}
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(tensors, place / files.weights, metadata={"format": "pt"})
    (place / files.config).write_text(json.dumps(config, indent=2) + "\n")
    shutil.copyfile(files.source, place / files.loader)
