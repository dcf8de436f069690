"""What a GPU can do, found by its driver's name.

This file decides which block of gpus.toml a name means. A name that no block fits has no numbers:
another part's are never borrowed, neither for a laptop part nor for a share of a card. Names as
people write them are planned.py's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from profiles.facts import GIB, Gpu, Origin

MIB = 1024**2

_TABLE = Path(__file__).with_name("gpus.toml")
_MOBILE = "laptop|mobile|max-q"
_MIG = r"\bMIG (?:(?P<compute>\d+)c\.)?(?P<slices>\d+)g\.(?P<gib>\d+)gb"
_MIG_SLICES = 7
_SMALL_MAC_BYTES = 32 * GIB
_MEMORY_SLICES = 8
# Drivers reserve a little and ECC takes a sixteenth; less than this share is another part, or a
# virtual GPU that has only a piece of this one.
_LEAST_MEMORY_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One block of gpus.toml in our units; rates are dense, `None` is unknown."""

    id: str
    name: str
    aka: str
    """Another name that people use, or nothing."""
    vendor: str
    memory_gib: float | None
    nvml_total_mib: int | None
    """Total memory as the driver reports it."""
    usable_gib: float | None
    """Of a shared memory, what was free for the GPU at a start; None where nothing is known."""
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
    """Memory shared with the CPU; `memory_gib` is all of it."""
    alone: bool
    """No machine has several of them."""
    tdp_watts: float | None
    confidence: str
    """"high", "medium" or "low"."""
    sources: tuple[str, ...]

    @property
    def vram_bytes(self) -> int | None:
        """Total memory as the driver would report it, or nominal; of a shared one the usable."""
        if self.usable_gib is not None:
            return int(self.usable_gib * GIB)
        if self.nvml_total_mib is not None:
            return self.nvml_total_mib * MIB
        if self.memory_gib is None:
            return None
        total = int(self.memory_gib * GIB)
        return apple_usable_bytes(total) if self.vendor == "apple" else total


def apple_usable_bytes(ram_bytes: int) -> int:
    """What Metal lets a GPU use (recommendedMaxWorkingSetSize), as Macs of 8 to 192 GiB report it.

    Two thirds up to 32 GiB, which newer systems raise to 74 to 78 %, and three quarters above.
    """
    if ram_bytes <= _SMALL_MAC_BYTES:
        return ram_bytes * 2 // 3
    return ram_bytes * 3 // 4


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


@cache
def sized_specs() -> tuple[Spec, ...]:
    """Every whole card whose memory is known, in the table's order; catch-all blocks have none.

    A chip that is sold with several sizes of shared memory is there once with each.
    """
    found = []
    for spec_id, row in _rows().items():
        spec, sizes = _spec(spec_id, row), row.get("memory", {}).get("sizes", ())
        found += [replace(spec, name=f"{spec.name} {gib}GB", memory_gib=gib) for gib in sizes]
        found += [spec] if spec.memory_gib is not None else []
    return tuple(found)


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
        alone=spec.alone,
        unified=spec.unified,
        memory_bytes_per_second=spec.memory_bytes_per_second,
        nvlink_bytes_per_second=_scaled(spec.nvlink_bytes_per_second, 0.5),
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
    memory = row.get("memory", {})
    expected_mib = memory.get("nvml_mib", memory.get("gib", 0) * 1024)
    return total_mib is None or bool(total_mib >= _LEAST_MEMORY_SHARE * expected_mib)


def _spec(spec_id: str, row: dict[str, Any]) -> Spec:
    memory, tflops = row.get("memory", {}), row.get("tflops", {})
    generation, _, lanes = row.get("pcie", "").partition("x")
    return Spec(
        id=spec_id,
        name=row["name"],
        aka=row.get("aka", ""),
        vendor=row.get("vendor", "nvidia"),
        memory_gib=memory.get("gib"),
        nvml_total_mib=memory.get("nvml_mib"),
        usable_gib=memory.get("usable_gib"),
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
        alone=row.get("alone", False),
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
