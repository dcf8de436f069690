"""A record of each kind, made from the types that its class names: no list to keep up."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import get_args, get_origin, get_type_hints

from profiles.runs.records import record

PLAIN = {int: 3, float: 0.5, str: "words", bool: True}


def classes():
    """Every kind of record."""
    return [cls for by_name in record._classes.values() for cls in by_name.values()]


def example(cls, **changes):
    """One of this class with every field set, but for what is asked for."""
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls) if "name" not in f.metadata]
    return cls(**{name: value_of(hints[name]) for name in names} | changes)


def value_of(hint):
    """Something that fits the type."""
    inner = get_args(hint)
    if get_origin(hint) is UnionType:
        return value_of(inner[0])
    if get_origin(hint) is tuple:
        return (value_of(inner[0]),)
    if get_origin(hint) is dict:
        return {"data": value_of(inner[1])}
    return example(hint) if is_dataclass(hint) else PLAIN[hint]
