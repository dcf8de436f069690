"""A model's facts as JSON and back: a run keeps them, for its base model may be gone later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from profiles.facts import Experts, Latent, Model, Origin

KEY: Final = "model"
"""Of a run's manifest."""
_PARTS: Final = {"experts": Experts, "latent": Latent, "params_origin": Origin}


def to_dict(model: Model) -> dict[str, Any]:
    """All its fields, as JSON takes them."""
    return asdict(model)


def from_dict(written: object) -> Model | None:
    """The model; None for what no version of this one wrote."""
    if not isinstance(written, Mapping):
        return None
    try:
        known = {f.name: written[f.name] for f in fields(Model) if f.name in written}
        for name, part in _PARTS.items():
            value = known.get(name)
            if isinstance(value, Mapping):
                known[name] = part(**value)
            elif part is Origin and value is not None:
                known[name] = Origin(value)
        return Model(**known)
    except (KeyError, TypeError, ValueError):
        return None
