"""The offline catalog: 584 models of the hub by name, without network.

catalog.jsonl has one line per shape: the ids that have it, the configuration that transformers
builds it from, its counts, and where each was read ("notes" tells what was solved or assumed,
"only" and "all" what is an id's own; null there: in no source). Decides which line a name means,
and which names are near one that is in none.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from profiles.facts import Model, Origin
from profiles.models.dimensions import from_config

_FILE: Final = Path(__file__).with_name("catalog.jsonl")
_LEAST_LIKENESS: Final = 0.5
_DIMENSIONS: Final = (
    "architecture",
    "model_type",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "tied_embeddings",
    "experts",
    "latent",
)


def find(name: str) -> Model | None:
    """The model with this id, or with this name after the slash if only one has it."""
    row = _row(name)
    if row is None:
        return None
    entry, canonical = row
    own = _own(entry, canonical)
    model = from_config(_config(entry, own), name=canonical, where=f"catalog: {entry['shape']}")
    num_params, tower = own.get("params", entry["params"]), entry.get("vision", 0)
    rest = num_params - tower - model.num_params
    return replace(
        model,
        architecture=entry["architecture"],
        model_type=_model_type(entry, model),
        max_positions=own.get("max_positions") or model.max_positions,
        vision_params=tower,
        other_params=model.other_params + rest,
        num_params=num_params,
        params_origin=Origin.TABLE,
        gated=own.get("gated", entry["gated"]),
    )


def near(name: str, n: int = 3) -> tuple[str, ...]:
    """The n ids most like a name that may be misspelt or lack its first half, the best first."""
    likeness = {known: _likeness(name, known) for known in ids()}
    best = sorted(likeness, key=lambda known: -likeness[known])
    return tuple(known for known in best[:n] if likeness[known] >= _LEAST_LIKENESS)


def config_of(name: str) -> dict[str, Any] | None:
    """The config.json to build this model from, or None if transformers has no class for it.

    `model_type` and `architectures` are those of a stand-in with the same tensors where the
    repository brings its own code.
    """
    row = _row(name)
    if row is None or row[0].get("stand_in", {}) is None:
        return None
    entry, canonical = row
    return _config(entry, _own(entry, canonical))


def twin(model: Model) -> Model | None:
    """A model of the catalog with the same dimensions, whose totals hold for this one too."""
    for line in _lines():
        if f'"hidden_size": {model.hidden_size},' not in line:
            continue
        known = find(json.loads(line)["ids"][0])
        if known and all(getattr(known, key) == getattr(model, key) for key in _DIMENSIONS):
            return known
    return None


def ids() -> tuple[str, ...]:
    """Every id, in the order of the file."""
    return tuple(known for known, _ in _index().values())


def _row(name: str) -> tuple[dict[str, Any], str] | None:
    """The line of a name, parsed, and the id as the hub spells it."""
    wanted = name.strip().lower()
    found = _index().get(wanted)
    if found is None and "/" not in wanted:
        same = [row for key, row in _index().items() if key.endswith(f"/{wanted}")]
        found = same[0] if len(same) == 1 else None
    if found is None:
        return None
    canonical, number = found
    entry: dict[str, Any] = json.loads(_lines()[number])
    return entry, canonical


@cache
def _lines() -> tuple[str, ...]:
    return tuple(_FILE.read_text(encoding="utf-8").splitlines())


@cache
def _index() -> dict[str, tuple[str, int]]:
    """Id in lower case to the id and its line; each line begins with its list of ids."""
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(_lines()):
        names = line[line.index("[") + 1 : line.index("]")]
        for name in re.findall(r'"([^"]+)"', names):
            found[name.lower()] = (name, number)
    return found


def _own(entry: dict[str, Any], canonical: str) -> dict[str, Any]:
    """What the line says of this id alone."""
    return {**entry.get("all", {}), **entry.get("only", {}).get(canonical, {})}


def _config(entry: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    made = entry.get("stand_in") or entry
    config = {
        "architectures": [made["architecture"]],
        "model_type": made["model_type"],
        **entry["config"],
    }
    config |= {key: own[key] for key in ("vocab_size", "sliding_window") if key in own}
    return config


def _model_type(entry: dict[str, Any], model: Model) -> str:
    """Of the text model; a stand-in's type is replaced by the repository's own."""
    stands_in = entry.get("stand_in") and not model.model_type.startswith(entry["model_type"])
    return str(entry["model_type"]) if stands_in else model.model_type


def _likeness(name: str, known: str) -> float:
    """From 0 to 1: half by letters, for misspelt words, half by words and numbers."""
    from difflib import SequenceMatcher  # noqa: PLC0415 - only errors need it

    one, other = name.lower(), known.lower()
    if "/" not in one:
        other = other.rpartition("/")[2]
    words, others = re.findall(r"[a-z]+|\d+", one), re.findall(r"[a-z]+|\d+", other)
    by_words = SequenceMatcher(None, words, others).ratio()
    return (SequenceMatcher(None, "".join(words), "".join(others)).ratio() + by_words) / 2
