"""RAM and disk of a machine that exists only as text: as somebody said, or assumed from its GPUs.

Never those of the machine that asks: the same question has the same answer everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, Gpu, Origin
from profiles.quantities import bytes_text

RAM_SHARE: Final = 2
"""RAM over the memory of all GPUs: 84 of the 102 machines of instances.toml with a published RAM
have at least this, the median has 2.9 (a2-highgpu 85 GB for an A100 of 40, p4de 1 152 GiB for 640,
p5 2 048 for 640). The smallest of a series have less (g5.xlarge 16 GiB for 24), and a workstation
what somebody put in: then it is to be said."""
DISK_SHARE: Final = 8
"""Free disk over the same, as the clouds' local disks: AWS's g4dn.xlarge 125 GB for a T4 of 16,
Google's a3-highgpu-8g 6 000 for 640, Azure's NC24ads_A100_v4 960 for 80; p4d and p5 have more."""
_UNITS: Final = {"M": 1 << 20, "G": GIB, "T": 1 << 40}
_MOST_BYTES: Final = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is around the GPUs, all of it free."""

    ram_bytes: int
    ram_origin: Origin
    disk_bytes: int
    disk_origin: Origin
    note: str
    """What is assumed, by which rule; empty if nothing is."""


def host_of(
    gpus: Sequence[Gpu], *, ram: str | None, disk: str | None, known_ram: int | None
) -> Host:
    """The host of planned GPUs; `known_ram`: bytes that are published of it.

    UserError (USAGE) for a size that cannot be read.
    """
    memory = _whole(gpus)
    ram_bytes, ram_origin = known_ram, Origin.TABLE
    disk_bytes, disk_origin = DISK_SHARE * memory, Origin.DEFAULT
    assumed = []
    if ram is not None:
        ram_bytes, ram_origin = _said(ram, "--ram"), Origin.USER
    if ram_bytes is None:
        ram_bytes, ram_origin = RAM_SHARE * memory, Origin.DEFAULT
        rule = f"{RAM_SHARE} times the GPUs' memory (--ram says another)"
        assumed.append(f"{bytes_text(ram_bytes)} of RAM, {rule}")
    if disk is not None:
        disk_bytes, disk_origin = _said(disk, "--disk"), Origin.USER
    else:
        rule = f"{DISK_SHARE} times the GPUs' memory (--disk says another)"
        assumed.append(f"{bytes_text(disk_bytes)} of free disk, {rule}")
    return Host(
        ram_bytes=ram_bytes,
        ram_origin=ram_origin,
        disk_bytes=disk_bytes,
        disk_origin=disk_origin,
        note=f"Assumed of the planned machine: {', and '.join(assumed)}." if assumed else "",
    )


def _whole(gpus: Sequence[Gpu]) -> int:
    """Memory of all, in whole GiB, rounded up: drivers report less than a card is sold with."""
    return -(-sum(gpu.vram_bytes for gpu in gpus) // GIB) * GIB


def _said(text: str, option: str) -> int:
    """Bytes of "480", "480GiB", "480 GB" or "1.5T"; without a unit, GiB."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([MGT])(?:I?B)?)?\s*", text, re.IGNORECASE)
    value = float(found[1]) * _UNITS[(found[2] or "G").upper()] if found else 0.0
    if not 1 <= value <= _MOST_BYTES:
        raise UserError(
            f"a size of {text!r} cannot be",
            why="it is a number of bytes above 0 with a unit: M, G or T, in powers of 1024",
            do=f"write it like {option} 480G or {option} 1.5T",
            where=option,
            code=ExitCode.USAGE,
        )
    return int(value)
