"""Machines that exist only as text: "2x A100 40GB", "8x H100:nvlink", "2 nodes of p4d.24xlarge".

Decides how many GPUs of which part there are and how they are linked, and says what the text left
open and how it was read. RAM and disk are planned_host.py's business; nothing is taken from the
machine that asks.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, NoReturn

from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, Gpu, Machine, Origin
from profiles.machines import instances
from profiles.machines.gpu_names import Wording, assume, choices, near, plannable, understand
from profiles.machines.gputable import Spec, gpu_of
from profiles.machines.instances import Instance
from profiles.machines.planned_host import host_of

MAX_GPUS = 64
MAX_NODES = 64

_BACKENDS = {"nvidia": "cuda", "amd": "rocm", "apple": "mps"}
_BRIDGED = 2
_UNTOLD: dict[str, Any] = {"cpu_name": "", "num_cores": 0, "num_threads": 0, "disk_path": ""}
_MOST_LISTED = 8
_SHORTEST = 3
_TOGETHER = r"[+,]|\band\b"
_NO_GPU = r"(TRN\d|INF\d|DL\d|TRAINIUM|INFERENTIA|GAUDI|TPU|CT\dP?-)"
_WRITE = (
    'write it like "4x RTX 4090", "2x A100 40GB", "8x H100:nvlink", "2 nodes of 8x H100" or'
    ' "p4d.24xlarge"'
)
_ON_APPLE = (
    "On Apple GPUs torch computes through MPS: without fused attention, 8-bit optimizers or several"
    " processes. No run of this program was measured there: memory and speed are rough."
)


def plan_machine(text: str, *, ram: str | None = None, disk: str | None = None) -> Machine:
    """Turn "2x A100 40GB" or "8xA100-80G:nvlink" into a machine with those GPUs, all idle.

    With several nodes ("2 nodes of 8x H100", "2x 8x H100") the GPUs are those of one of them, and
    so are `ram` and `disk`, like "480G". UserError (USAGE) for what cannot be understood.
    """
    linked_text, link = _split_link(text)
    num_nodes, gpu_text = _split_nodes(linked_text, text)
    assumed: list[str] = []
    sold = _sold(text, gpu_text)
    if sold:
        count, instance = sold
        if num_nodes > 1 and count > 1:
            _refuse(text, f"{instance.name} is a whole machine; say once how many there are")
        num_nodes *= count
        gpu_text = f"{instance.num_gpus}x {instance.gpu}"
        assumed.append(_sold_as(instance))
    specs = _specs(gpu_text, link, text, assumed)
    _check_kinds(text, specs, num_nodes)
    interconnect, link_choice = _interconnect(specs, link, text)
    assumed += [link_choice] if link_choice else []
    notes = [note for spec in dict.fromkeys(specs) for note in _shared_memory(spec)]
    if num_nodes > 1:
        notes.append(f"The network between the {num_nodes} nodes is not part of the plan.")
    gpus = tuple(_planned_gpu(index, spec) for index, spec in enumerate(specs))
    known = _known_ram(specs[0], sold[1] if sold else None)
    host = host_of(gpus, ram=ram, disk=disk, known_ram=known)
    return Machine(
        host="planned",
        backend=_BACKENDS[specs[0].vendor],
        gpus=gpus,
        **_UNTOLD,
        ram_bytes=host.ram_bytes,
        ram_free_bytes=host.ram_bytes,
        ram_origin=host.ram_origin,
        disk_free_bytes=host.disk_bytes,
        disk_origin=host.disk_origin,
        origin=Origin.USER,
        interconnect=interconnect,
        num_nodes=num_nodes,
        assumed=tuple(assumed),
        notes=(*notes, host.note) if host.note else tuple(notes),
    )


def _specs(gpu_text: str, link: str | None, text: str, assumed: list[str]) -> list[Spec]:
    """The part behind each GPU; what the text left open is added to `assumed`."""
    specs: list[Spec] = []
    for part in re.split(_TOGETHER, gpu_text):
        count, name = _split_count(part.strip(), text)
        spec, choice = _resolve(name, link, text)
        specs += [spec] * count
        if choice and choice not in assumed:
            assumed.append(choice)
    return specs


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


def _sold(text: str, gpu_text: str) -> tuple[int, Instance] | None:
    """A machine that is sold as a whole, and how many; None where the text names GPUs."""
    count, name = _split_count(gpu_text.strip(), text)
    if not understand(name).family or any(
        plannable(understand(part).family) for part in re.split(_TOGETHER, name)
    ):
        return None
    found = instances.meant(name)
    if not found:
        return None
    is_short = len(instances.joined(name)) < _SHORTEST  # "A4" may be a GPU's name as well
    if len(found) > 1 or is_short:
        listed = ", ".join(map(str, found[:_MOST_LISTED]))
        more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
        _refuse(text, f'"{name}" can be {listed}{more}', do=f'write it like "{found[0].name}"')
    return count, found[0]


def _sold_as(instance: Instance) -> str:
    ram = f", {instance.ram_gib} GiB of RAM" if instance.ram_gib else ""
    return f"{instance.name} is {instance.num_gpus}x {instance.gpu}{ram}"


def _known_ram(spec: Spec, instance: Instance | None) -> int | None:
    """Bytes of RAM, where the text alone tells them; a shared memory's are the GPU's as well."""
    if instance is not None:
        return None if instance.ram_gib is None else instance.ram_gib * GIB
    if not spec.unified or spec.memory_gib is None:
        return None
    return int(spec.memory_gib * GIB)


def _resolve(name: str, link: str | None, text: str) -> tuple[Spec, str]:
    """Pick the part that a person means, and say so where the name leaves a choice."""
    if ":" in name:
        _refuse(text, f'after the colon stands "nvlink" or "pcie", not "{name.partition(":")[2]}"')
    wanted = understand(name)
    if not wanted.family:
        _refuse(text, "a GPU's name is missing")
    found = choices(wanted, link)
    if not found:
        _refuse_name(name, wanted, text)
    return assume(name, wanted, found)


def _refuse_name(name: str, wanted: Wording, text: str) -> NoReturn:
    if re.match(_NO_GPU, name.strip(), re.IGNORECASE):
        _refuse(text, f'"{name}" is no GPU: runs need one of NVIDIA, AMD or Apple')
    if variants := [spec.name for spec in plannable(wanted.family)]:
        _refuse(text, f'"{name}" is not a known variant; known: {", ".join(variants)}')
    known = near(name, wanted)
    hint = f"; the nearest known: {', '.join(known)}" if known else ""
    _refuse(text, f'no GPU called "{name}" is in the table{hint}')


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


def _check_kinds(text: str, specs: list[Spec], num_nodes: int) -> None:
    """What cannot train together, or cannot be."""
    if len(specs) > MAX_GPUS:
        _refuse(text, f"it asks for {len(specs)} GPUs; up to {MAX_GPUS} in one machine are planned")
    vendors = {spec.vendor for spec in specs}
    if len(vendors) > 1:
        _refuse(text, "GPUs of two vendors cannot train together")
    alone = next((spec for spec in specs if spec.alone), None)
    if alone is None:
        return
    if alone.vendor == "apple" and num_nodes > 1:
        why = "a run over several Macs is not possible here"
        _refuse(text, why, do=f'plan for one: "{alone.name}"')
    if len(specs) > 1:
        why = f"no machine has another GPU beside that of {alone.name}"
        _refuse(text, why, do=f'plan for one: "{alone.name}"')


def _shared_memory(spec: Spec) -> list[str]:
    """What is particular to a chip whose GPU has no memory of its own."""
    if not spec.unified or spec.memory_gib is None or spec.vram_bytes is None:
        return []
    share = (
        f"{spec.name}: processor and GPU share {spec.memory_gib:g} GiB, of which"
        f" {spec.vram_bytes / GIB:.1f} are taken as the GPU's; what other programs hold is missing."
    )
    return [share, _ON_APPLE] if spec.vendor == "apple" else [share]


def _refuse(text: str, why: str, *, do: str = _WRITE) -> NoReturn:
    raise UserError(
        f'cannot plan a machine from "{text}"',
        why=why,
        do=do,
        where="--gpu",
        code=ExitCode.USAGE,
    )
