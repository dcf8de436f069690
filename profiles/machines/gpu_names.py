"""GPUs as people write them: "a100-80g", "4090 laptop", "MacBook Pro M3 Max 64GB".

Decides which part of the GPU table is meant, and what is near to a name that means none. What else
a machine's text says is planned.py's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from profiles.machines import instances
from profiles.machines.gputable import Spec, look_up, sized_specs

# People round: B200 is sold as 192 GB and reports 179 GiB.
_MEMORY_TOLERANCE = 0.1
_MACS = r"\b(MACBOOK( PRO| AIR)?|MAC (STUDIO|MINI|PRO)|IMAC|APPLE)\b"
_NOISE = (
    r"\b(NVIDIA|GEFORCE|AMD|INSTINCT|TESLA|RADEON|GENERATION|BLACKWELL|WORKSTATION|SERVER|EDITION"
    r"|GPUS?|HBM\d?E?)\b"
)
_LAPTOP = r"\b(LAPTOP|MOBILE|NOTEBOOK)\b"
_MOST_NEAR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A name as people write it, taken apart: "A100-SXM4-80GB" is A100, SXM, 80."""

    family: str
    """Letters and digits; a laptop part's end in LAPTOP."""
    form: str | None
    memory_gib: int | None


@cache
def take_apart(name: str) -> Wording:
    """Read a name; its family is empty where it says nothing but noise."""
    words = re.sub(_MACS, " ", name.upper())
    memory = re.search(r"(?<![A-Z0-9])(\d+)\s*GI?B?(?![A-Z0-9])", words)
    words = words.replace(memory[0], " ") if memory else words
    form = re.search(r"(SXM|PCI-?E|NVL)\d*", words)
    words = words.replace(form[0], " ") if form else words
    words, laptops = re.subn(_LAPTOP, " ", words)
    letters = re.sub(r"[^A-Z0-9]", "", re.sub(_NOISE, " ", words))
    family = re.sub(r"^(RTX|GTX|RX)(?=.)", "", letters)
    return Wording(
        family=family + "LAPTOP" if family and laptops else family,
        form=form[1].replace("-", "") if form else None,
        memory_gib=int(memory[1]) if memory else None,
    )


def understand(name: str) -> Wording:
    """Read a name; "A100-80" and "3060 12" are memory without its unit, if nothing else fits."""
    wanted = take_apart(name)
    short = re.fullmatch(r"(.*\w)[\s-]+(\d{1,3})", name.strip())
    if short and not plannable(wanted.family):
        whole = take_apart(short[1])
        if plannable(whole.family) and whole.memory_gib is None:
            return replace(whole, memory_gib=int(short[2]))
    return wanted


@cache
def plannable(family: str) -> tuple[Spec, ...]:
    """Parts of a family, by either of their names; only those whose memory is known."""
    return tuple(
        spec
        for spec in sized_specs()
        if family == take_apart(spec.name).family
        or (spec.aka and family == take_apart(spec.aka).family)
    )


def choices(wanted: Wording, link: str | None) -> list[Spec]:
    """The parts that a name may mean, on boards with or without NVLink if that was said."""
    found = [spec for spec in plannable(wanted.family) if _agrees(wanted, spec)]
    if wanted.form is None and link:
        linked = [
            spec for spec in found if (take_apart(spec.name).form == "PCIE") == (link == "pcie")
        ]
        found = linked or found
    return found


def assume(name: str, wanted: Wording, found: list[Spec]) -> tuple[Spec, str]:
    """The part that is planned with, and what to write for the others where there are any.

    An unstated size never promises memory that the card may lack.
    """
    smallest = min(spec.vram_bytes or 0 for spec in found)
    small = [spec for spec in found if spec.vram_bytes == smallest]
    usual = look_up(wanted.family)
    spec = next((spec for spec in small if usual and spec.id == usual.id), small[0])
    others = [other.name for other in found if not _same_facts(other, spec)]
    if not others:
        return spec, ""
    return spec, f'"{name}" is read as {spec.name}; if it is another, write {_either(others)}'


def near(name: str, wanted: Wording) -> list[str]:
    """Names of GPUs and machines that differ by little from one that is not known."""
    names: dict[str, str] = {}
    for spec in sized_specs():
        names.setdefault(take_apart(spec.name).family, spec.name)
    holding = [known for key, known in names.items() if _holds(key, wanted.family)]
    written = {key: known for key, known in names.items() if known not in holding}
    close = [(_edits(wanted.family, key), known) for key, known in written.items()]
    key = instances.joined(name)
    close += [(_edits(key, instances.joined(one.name)), str(one)) for one in instances.instances()]
    most = max(1, min(len(key), len(wanted.family)) // 4)
    nearest = sorted((pair for pair in close if pair[0] <= most), key=lambda pair: pair[0])
    return [*holding, *(known for _, known in nearest)][:_MOST_NEAR]


def _holds(key: str, family: str) -> bool:
    """A name that was left unfinished: "6000" for "RTX 6000 Ada"; two letters are in too many."""
    return len(family) > 2 and family in key


def _either(names: Iterable[str]) -> str:
    *first, last = [f'"{name}"' for name in names]
    return f"{', '.join(first)} or {last}" if first else last


def _agrees(wanted: Wording, spec: Spec) -> bool:
    form = take_apart(spec.name).form
    if wanted.form and form and wanted.form != form:
        return False
    if wanted.memory_gib is None or spec.memory_gib is None:
        return True
    return abs(spec.memory_gib - wanted.memory_gib) <= _MEMORY_TOLERANCE * spec.memory_gib


def _same_facts(one: Spec, other: Spec) -> bool:
    return (one.vram_bytes, one.fp16_flops, one.memory_bytes_per_second) == (
        other.vram_bytes,
        other.fp16_flops,
        other.memory_bytes_per_second,
    )


def _edits(one: str, other: str) -> int:
    """Letters put in, left out, changed or swapped with their neighbour, at least so many."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        now = [i + 1]
        for j, mine in enumerate(other):
            cost = min(row[j + 1] + 1, now[j] + 1, row[j] + (letter != mine))
            if i and j and letter == other[j - 1] and one[i - 1] == mine:
                cost = min(cost, before[j - 1] + 1)
            now.append(cost)
        before, row = row, now
    return row[-1]
