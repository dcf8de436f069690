"""What a GPU can do, found by its driver's name, and machines that exist only as text.

This file decides which block of gpus.toml a name means. A name that no block fits has no numbers:
another part's are never borrowed, neither for a laptop part nor for a share of a card.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, Gpu, Machine, Origin

MIB = 1024**2
MAX_GPUS = 64

_TABLE = Path(__file__).with_name("gpus.toml")
_MOBILE = "laptop|mobile|max-q"
_MIG = r"\bMIG (?:(?P<compute>\d+)c\.)?(?P<slices>\d+)g\.(?P<gib>\d+)gb"
_MIG_SLICES = 7
_MEMORY_SLICES = 8
_BRIDGED = 2
# Drivers reserve a little and ECC takes a sixteenth; less than this share is another part, or a
# virtual GPU that has only a piece of this one.
_LEAST_MEMORY_SHARE = 0.9
# People round: B200 is sold as 192 GB and reports 179 GiB.
_MEMORY_TOLERANCE = 0.1
_NOISE = (
    r"\b(NVIDIA|GEFORCE|AMD|INSTINCT|TESLA|RADEON|GENERATION|BLACKWELL|WORKSTATION|SERVER|EDITION"
    r"|GPUS?|HBM\d?E?)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One block of gpus.toml in our units; rates are dense, `None` is unknown."""

    id: str
    name: str
    vendor: str
    memory_gib: float | None
    nvml_total_mib: int | None
    """Total memory as the driver reports it."""
    bf16_flops: float | None
    fp16_flops: float | None
    tf32_flops: float | None
    fp32_flops: float | None
    achievable_share: float | None
    memory_bytes_per_second: float | None
    compute_capability: str | None
    has_bf16: bool
    pcie_generation: int | None
    pcie_lanes: int | None
    nvlink_bytes_per_second: float | None
    """Both directions together."""
    nvlink_bridge: bool
    """NVLink needs a bridge, which joins two cards."""
    unified: bool
    """Memory shared with the CPU."""
    tdp_watts: float | None
    confidence: str
    """"high", "medium" or "low"."""
    sources: tuple[str, ...]

    @property
    def vram_bytes(self) -> int | None:
        """Total memory as the driver would report it, or nominal."""
        if self.nvml_total_mib is not None:
            return self.nvml_total_mib * MIB
        return None if self.memory_gib is None else int(self.memory_gib * GIB)


@cache
def look_up(name: str, total_mib: int | None = None) -> Spec | None:
    """Find the part behind a driver's name; a MIG slice gets its share of the whole card."""
    mig = re.search(_MIG, name, re.IGNORECASE)
    for spec_id, row in _rows().items():
        if _fits(row, name, None if mig else total_mib):
            spec = _spec(spec_id, row)
            slices = row.get("mig_slices", _MIG_SLICES)
            return _mig_slice(spec, mig, slices, total_mib) if mig else spec
    return None


def spec_by_id(spec_id: str) -> Spec | None:
    """Return the block that a `Gpu.spec_id` names; whole cards only."""
    row = _rows().get(spec_id)
    return None if row is None else _spec(spec_id, row)


def gpu_of(
    spec: Spec | None,
    *,
    index: int,
    name: str,
    vendor: str,
    vram_bytes: int,
    vram_free_bytes: int,
    origin: Origin,
) -> Gpu:
    """Make a GPU with the table's numbers, if the table has any."""
    gpu = Gpu(
        index=index,
        name=name,
        vendor=vendor,
        vram_bytes=vram_bytes,
        vram_free_bytes=vram_free_bytes,
        origin=origin,
    )
    if spec is None:
        return gpu
    return replace(
        gpu,
        spec_id=spec.id,
        compute_capability=spec.compute_capability,
        has_bf16=spec.has_bf16,
        bf16_flops=spec.bf16_flops,
        fp16_flops=spec.fp16_flops,
        fp32_flops=spec.fp32_flops,
        achievable_share=spec.achievable_share,
        memory_bytes_per_second=spec.memory_bytes_per_second,
    )


def plan_machine(text: str, *, host: Machine) -> Machine:
    """Turn "2x A100 40GB" or "8xA100-80G:nvlink" into a machine with those GPUs, all idle."""
    gpu_text, link = _split_link(text)
    notes: list[str] = []
    specs: list[Spec] = []
    for part in re.split(r"[+,]", gpu_text):
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
        driver=None,
        cuda_version=None,
        notes=tuple(notes),
    )


@cache
def _rows() -> dict[str, dict[str, Any]]:
    import tomllib  # noqa: PLC0415 - most commands need no table

    rows: dict[str, dict[str, Any]] = tomllib.loads(_TABLE.read_text(encoding="utf-8"))["gpus"]
    return rows


def _fits(row: dict[str, Any], name: str, total_mib: int | None) -> bool:
    if not re.search(row["match"], name, re.IGNORECASE):
        return False
    if re.search(row.get("exclude", _MOBILE), name, re.IGNORECASE):
        return False
    if "mib_range" in row:
        low, high = row["mib_range"]
        return total_mib is not None and low <= total_mib <= high
    expected_mib = row["memory"].get("nvml_mib") if "memory" in row else None
    if total_mib is None or expected_mib is None:
        return True
    return bool(total_mib >= _LEAST_MEMORY_SHARE * expected_mib)


def _spec(spec_id: str, row: dict[str, Any]) -> Spec:
    memory, tflops = row.get("memory", {}), row.get("tflops", {})
    generation, _, lanes = row.get("pcie", "").partition("x")
    return Spec(
        id=spec_id,
        name=row["name"],
        vendor=row.get("vendor", "nvidia"),
        memory_gib=memory.get("gib"),
        nvml_total_mib=memory.get("nvml_mib"),
        bf16_flops=_scaled(tflops.get("bf16"), 1e12),
        fp16_flops=_scaled(tflops.get("fp16", tflops.get("bf16")), 1e12),
        tf32_flops=_scaled(tflops.get("tf32"), 1e12),
        fp32_flops=_scaled(tflops.get("fp32"), 1e12),
        achievable_share=row.get("mamf"),
        memory_bytes_per_second=_scaled(memory.get("gbs"), 1e9),
        compute_capability=row.get("compute_capability"),
        has_bf16=row.get("bf16", True),
        pcie_generation=int(generation) if generation else None,
        pcie_lanes=int(lanes) if lanes else None,
        nvlink_bytes_per_second=_scaled(row.get("nvlink_gbs"), 1e9),
        nvlink_bridge=row.get("nvlink_bridge", False),
        unified=row.get("unified", False),
        tdp_watts=_scaled(row.get("tdp_w"), 1),
        confidence=row.get("confidence", "high"),
        sources=tuple(row["sources"].split()),
    )


def _mig_slice(spec: Spec, mig: re.Match[str], slices: int, total_mib: int | None) -> Spec:
    """Scale rates by compute slices, and bandwidth by memory slices (eighths of the card)."""
    share = int(mig["compute"] or mig["slices"]) / slices
    slice_gib = int(mig["gib"])
    bandwidth = spec.memory_bytes_per_second
    if spec.memory_gib is None:
        bandwidth = None
    elif bandwidth is not None:
        bandwidth *= min(1, round(slice_gib / spec.memory_gib * _MEMORY_SLICES) / _MEMORY_SLICES)
    return replace(
        spec,
        name=f"{spec.name} {mig[0]}",
        memory_gib=slice_gib,
        nvml_total_mib=total_mib,
        bf16_flops=_scaled(spec.bf16_flops, share),
        fp16_flops=_scaled(spec.fp16_flops, share),
        tf32_flops=_scaled(spec.tf32_flops, share),
        fp32_flops=_scaled(spec.fp32_flops, share),
        memory_bytes_per_second=bandwidth,
        nvlink_bytes_per_second=None,
        tdp_watts=None,
    )


def _scaled(number: float | None, factor: float) -> float | None:
    return None if number is None else number * factor


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
    found = re.fullmatch(r"(.*?)\s*:\s*(nvlink|pcie)\s*", text, re.IGNORECASE | re.DOTALL)
    return (found[1], found[2].lower()) if found else (text, None)


def _split_count(part: str, text: str) -> tuple[int, str]:
    """Read "4x NAME", "4 NAME" and "NAME x4"; four digits and a space are a name ("3090 Ti")."""
    found = re.fullmatch(r"(?P<n>\d+)\s*[x\u00d7*]\s*(?P<name>.+)", part, re.IGNORECASE)
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
    """Parts of a family whose memory is known; the table's catch-all blocks have none."""
    return [
        _spec(spec_id, row)
        for spec_id, row in _rows().items()
        if "gib" in row.get("memory", {})
        and family in {_take_apart(row["name"]).family, _take_apart(row.get("aka", "")).family}
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
    if len(specs) == 1 or link:
        return (link if len(specs) > 1 else None), None
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
    names = {
        _take_apart(row["name"]).family: row["name"]
        for row in _rows().values()
        if "gib" in row.get("memory", {})
    }
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
        do='write it like "RTX 4090", "4x RTX 4090", "2x A100 40GB" or "8x H100:nvlink"',
        where="--gpu",
        code=ExitCode.USAGE,
    )
