"""Whole machines by the names that clouds and NVIDIA sell them under: "p4d.24xlarge", "DGX H100".

Decides which block of instances.toml a text means. What its GPUs can do is gputable.py's business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("instances.toml")
_BEFORE = r"^\s*((AWS|AMAZON|EC2|GCP|GOOGLE|CLOUD|AZURE|LAMBDA|NVIDIA)\s+)*(ML\.|STANDARD_)?"
_SEPARATOR = r"[^a-z0-9]+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One machine as it is sold."""

    name: str
    num_gpus: int
    gpu: str
    """A name of gpus.toml."""
    ram_gib: int | None
    """Of the host, as published; None if we do not have it from there."""

    def __str__(self) -> str:
        return f"{self.name} ({self.num_gpus}x {self.gpu})"


@cache
def instances() -> tuple[Instance, ...]:
    """All of them, in the table's order."""
    import tomllib  # noqa: PLC0415 - most commands need no table

    vendors = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    del vendors["sources"]
    found = []
    for rows in vendors.values():
        for name, row in rows.items():
            count, _, gpu = row["gpus"].partition("x ")
            ram = row.get("ram_gib")
            found.append(Instance(name=name, num_gpus=int(count), gpu=gpu, ram_gib=ram))
    return tuple(found)


def meant(text: str) -> tuple[Instance, ...]:
    """Those that a text may mean: the one of this name, else those of a family or a beginning."""
    wanted = parts(text)
    if not wanted:
        return ()
    key = joined(text)
    exact = [one for one in instances() if joined(one.name) == key]
    family = [one for one in instances() if parts(one.name)[: len(wanted)] == wanted]
    begun = [one for one in instances() if len(key) > 1 and joined(one.name).startswith(key)]
    return tuple(exact or family or begun)


def parts(name: str) -> Sequence[str]:
    """A name's words without its vendor: ("p4d", "24xlarge")."""
    plain = re.sub(_BEFORE, "", name, flags=re.IGNORECASE).lower()
    return tuple(part for part in re.split(_SEPARATOR, plain) if part)


def joined(name: str) -> str:
    """A name without what people leave out or write otherwise: "p4d24xlarge"."""
    return "".join(parts(name))
