"""Machines that exist only as text: "2x A100 40GB", "8x H100:nvlink" or "2 nodes of 8x H100".

Decides which parts of the GPU table a person means, how the GPUs are linked, and says so in a note
wherever the text left a choice. Everything that is no GPU is taken from the machine at hand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import NoReturn

from profiles.errors import ExitCode, UserError
from profiles.facts import Gpu, Machine, Origin
from profiles.machines.gputable import Spec, gpu_of, look_up, sized_specs

MAX_GPUS = 64
MAX_NODES = 64

_BRIDGED = 2
# People round: B200 is sold as 192 GB and reports 179 GiB.
_MEMORY_TOLERANCE = 0.1
_NOISE = (
    r"\b(NVIDIA|GEFORCE|AMD|INSTINCT|TESLA|RADEON|GENERATION|BLACKWELL|WORKSTATION|SERVER|EDITION"
    r"|GPUS?|HBM\d?E?)\b"
)


def plan_machine(text: str, *, host: Machine) -> Machine:
    """Turn "2x A100 40GB" or "8xA100-80G:nvlink" into a machine with those GPUs, all idle.

    With several nodes ("2 nodes of 8x H100", "2x 8x H100") the GPUs are those of one of them.
    """
    linked_text, link = _split_link(text)
    num_nodes, gpu_text = _split_nodes(linked_text, text)
    notes: list[str] = []
    specs: list[Spec] = []
    for part in re.split(r"[+,]|\band\b", gpu_text):
        count, name = _split_count(part.strip(), text)
        spec, note = _resolve(name, link, text)
        specs += [spec] * count
        if note and note not in notes:
            notes.append(note)
    if len(specs) > MAX_GPUS:
        _refuse(text, f"it asks for {len(specs)} GPUs; up to {MAX_GPUS} in one machine are planned")
    vendors = {spec.vendor for spec in specs}
    if len(vendors) > 1:
        _refuse(text, "GPUs of two vendors cannot train together")
    interconnect, link_note = _interconnect(specs, link, text)
    notes += [link_note] if link_note else []
    if num_nodes > 1:
        notes.append(f"The network between the {num_nodes} nodes is not part of the plan.")
    notes.append(
        f"Processor, RAM and disk are those of {host.host}; the planned machine may differ."
    )
    return replace(
        host,
        host="planned",
        backend="rocm" if vendors == {"amd"} else "cuda",
        gpus=tuple(_planned_gpu(index, spec) for index, spec in enumerate(specs)),
        origin=Origin.USER,
        interconnect=interconnect,
        num_nodes=num_nodes,
        driver=None,
        cuda_version=None,
        notes=tuple(notes),
    )


def _planned_gpu(index: int, spec: Spec) -> Gpu:
    vram_bytes = spec.vram_bytes
    assert vram_bytes is not None  # _resolve offers only parts with known memory
    gpu = gpu_of(
        spec,
        index=index,
        name=spec.name,
        vendor=spec.vendor,
        vram_bytes=vram_bytes,
        vram_free_bytes=vram_bytes,
        origin=Origin.TABLE,
    )
    return replace(
        gpu,
        power_limit_watts=spec.tdp_watts,
        pcie_generation=spec.pcie_generation,
        pcie_lanes=spec.pcie_lanes,
    )


def _split_link(text: str) -> tuple[str, str | None]:
    """Read ":nvlink" and ":pcie" at the end; PCIe without a colon is a kind of card."""
    found = re.fullmatch(
        r"(.*?)(?:\s*:\s*(nvlink|pcie)|\s+(nvlink))\s*", text, re.IGNORECASE | re.DOTALL
    )
    return (found[1], (found[2] or found[3]).lower()) if found else (text, None)


def _split_nodes(gpu_text: str, text: str) -> tuple[int, str]:
    """Read "2 nodes of 8x NAME", "2x 8x NAME", "8x NAME on 2 nodes"; else one node."""
    times, nodes = r"[x\u00d7*]", r"(?:nodes?|machines?|hosts?)\b"
    found = re.fullmatch(
        rf"\s*(?P<n>\d+)\s*{times}?\s*{nodes}\s*(?:of|with|{times}|:)?\s*(?P<gpus>.+)"
        rf"|\s*(?P<n2>\d+)\s*{times}\s*\(?(?P<gpus2>\d+\s*{times}[^()]+)\)?"
        rf"|(?P<gpus3>.+?)\s*(?:on|{times}|,)\s*(?P<n3>\d+)\s*{nodes}\s*",
        gpu_text,
        re.IGNORECASE,
    )
    if not found:
        return 1, gpu_text
    count = int(found["n"] or found["n2"] or found["n3"])
    if not 1 <= count <= MAX_NODES:
        _refuse(text, f"the number of nodes must be between 1 and {MAX_NODES}, not {count}")
    return count, found["gpus"] or found["gpus2"] or found["gpus3"]


def _split_count(part: str, text: str) -> tuple[int, str]:
    """Read "4x NAME", "4 NAME" and "NAME x4"; four digits and a space are a name ("3090 Ti")."""
    found = re.fullmatch(r"(?P<n>\d{1,3})\s*[x\u00d7*]\s*(?P<name>.+)", part, re.IGNORECASE)
    found = found or re.fullmatch(r"(?P<n>\d{1,3})\s+(?P<name>.+)", part)
    found = found or re.fullmatch(r"(?P<name>.+?)\s+[x\u00d7*]\s*(?P<n>\d+)", part, re.IGNORECASE)
    if not found:
        return 1, part
    count = int(found["n"])
    if not 1 <= count <= MAX_GPUS:
        _refuse(text, f"the number of GPUs must be between 1 and {MAX_GPUS}, not {count}")
    return count, found["name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wording:
    """A name as people write it, taken apart: "A100-SXM4-80GB" is A100, SXM, 80."""

    family: str
    form: str | None
    memory_gib: int | None


def _take_apart(name: str) -> _Wording:
    words = name.upper()
    memory = re.search(r"(?<![A-Z0-9])(\d+)\s*GI?B?(?![A-Z0-9])", words)
    words = words.replace(memory[0], " ") if memory else words
    form = re.search(r"(SXM|PCI-?E|NVL)\d*", words)
    words = words.replace(form[0], " ") if form else words
    letters = re.sub(r"[^A-Z0-9]", "", re.sub(_NOISE, " ", words))
    return _Wording(
        family=re.sub(r"^(RTX|GTX|RX)(?=.)", "", letters),
        form=form[1].replace("-", "") if form else None,
        memory_gib=int(memory[1]) if memory else None,
    )


def _resolve(name: str, link: str | None, text: str) -> tuple[Spec, str | None]:
    """Pick the part that a person means, and say so where the name leaves a choice."""
    if ":" in name:
        _refuse(text, f'after the colon stands "nvlink" or "pcie", not "{name.partition(":")[2]}"')
    wanted = _take_apart(name)
    if not wanted.family:
        _refuse(text, "a GPU's name is missing")
    choices = [spec for spec in _plannable(wanted.family) if _agrees(wanted, spec)]
    if not choices:
        _refuse_name(name, wanted, text)
    if wanted.form is None and link:
        linked = [
            spec for spec in choices if (_take_apart(spec.name).form == "PCIE") == (link == "pcie")
        ]
        choices = linked or choices
    # An unstated size never promises memory that the card may lack.
    smallest = min(spec.vram_bytes or 0 for spec in choices)
    small = [spec for spec in choices if spec.vram_bytes == smallest]
    usual = look_up(wanted.family)
    spec = next((spec for spec in small if usual and spec.id == usual.id), small[0])
    others = [other.name for other in choices if not _same_facts(other, spec)]
    if not others:
        return spec, None
    return spec, f'"{name}" is read as {spec.name}; there is also {", ".join(others)}.'


def _plannable(family: str) -> list[Spec]:
    """Parts of a family, by either of their names; only those whose memory is known."""
    return [
        spec
        for spec in sized_specs()
        if family in {_take_apart(spec.name).family, _take_apart(spec.aka).family}
    ]


def _agrees(wanted: _Wording, spec: Spec) -> bool:
    form = _take_apart(spec.name).form
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


def _interconnect(specs: list[Spec], link: str | None, text: str) -> tuple[str | None, str | None]:
    """Say how the GPUs talk to each other, and what was assumed for it."""
    without = next((spec.name for spec in specs if not spec.nvlink_bytes_per_second), None)
    if link == "nvlink" and without:
        _refuse(text, f"the {without} has no NVLink")
    bridged = len(specs) > _BRIDGED and specs[0].nvlink_bridge
    if len(specs) == 1 or link:
        pairs = f"NVLink bridges join two {specs[0].name} cards; between pairs there is PCIe."
        return (link if len(specs) > 1 else None), pairs if link == "nvlink" and bridged else None
    if without:
        # On AMD a missing number means unknown: Infinity Fabric may be there.
        return (None if specs[0].vendor == "amd" else "pcie"), None
    if len(set(specs)) > 1:
        return "pcie", None
    if not specs[0].nvlink_bridge:
        return "nvlink", None
    if len(specs) == _BRIDGED:
        return "nvlink", 'An NVLink bridge is assumed; add ":pcie" if there is none.'
    note = f"NVLink bridges join two {specs[0].name} cards, not {len(specs)}: PCIe is assumed."
    return "pcie", note


def _refuse_name(name: str, wanted: _Wording, text: str) -> NoReturn:
    import difflib  # noqa: PLC0415 - only errors need it

    variants = [spec.name for spec in _plannable(wanted.family)]
    if variants:
        _refuse(text, f'"{name}" is not a known variant; known: {", ".join(variants)}')
    names = {_take_apart(spec.name).family: spec.name for spec in sized_specs()}
    near = [known for known in names if wanted.family[2:] and wanted.family in known]
    near += difflib.get_close_matches(
        wanted.family, [key for key in names if key not in near], 4, 0.5
    )
    known = ", ".join(names[key] for key in near[:4])
    hint = f"; the nearest known: {known}" if near else ""
    _refuse(text, f'no GPU called "{name}" is in the table{hint}')


def _refuse(text: str, why: str) -> NoReturn:
    raise UserError(
        f'cannot plan a machine from "{text}"',
        why=why,
        do='write it like "4x RTX 4090", "2x A100 40GB", "8x H100:nvlink" or "2 nodes of 8x H100"',
        where="--gpu",
        code=ExitCode.USAGE,
    )
