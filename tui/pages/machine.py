"""The machine as lines."""

from __future__ import annotations

from profiles.facts import Gpu, Machine
from profiles.quantities import bytes_text
from tui.plain import facts, wrap


def lines(machine: Machine, width: int) -> list[str]:
    """Host, accelerators, who holds their memory, and what looks wrong."""
    kind = "planned machine" if machine.planned else "machine"
    found = facts(
        [
            (kind, machine.host),
            ("accelerator", _summary(machine)),
            ("read as", "; ".join(machine.assumed)),
            ("cpu", f"{machine.cpu_name}, {machine.num_cores} cores"),
            ("memory", f"{_free(machine.ram_free_bytes, machine.ram_bytes)}"),
            ("disk", f"{bytes_text(machine.disk_free_bytes)} free at {machine.disk_path}"),
            ("driver", _driver(machine)),
        ],
        width,
    )
    for gpu in machine.gpus:
        found += ["", *_gpu(gpu, width)]
    for note in machine.notes:
        found += wrap(note, width, indent="  ", first="! ")
    return found


def _summary(machine: Machine) -> str:
    if not machine.gpus:
        return "none; training runs on the CPU"
    return names(machine) + (f", joined by {machine.interconnect}" if machine.interconnect else "")


def names(machine: Machine) -> str:
    """Like "4x RTX 4090 + 1x RTX 3090"; empty without GPUs."""
    every = [gpu.name for gpu in machine.gpus]
    return " + ".join(f"{every.count(name)}x {name}" for name in dict.fromkeys(every))


def _driver(machine: Machine) -> str:
    parts = [machine.driver or "", f"CUDA {machine.cuda_version}" if machine.cuda_version else ""]
    return ", ".join(p for p in parts if p)


def _free(free_bytes: int, total_bytes: int) -> str:
    return f"{bytes_text(free_bytes)} free of {bytes_text(total_bytes)}"


def _gpu(gpu: Gpu, width: int) -> list[str]:
    rate = gpu.bf16_flops or gpu.fp16_flops
    live = [
        f"{gpu.utilization_percent} % busy" if gpu.utilization_percent is not None else "",
        f"{gpu.power_watts:.0f} W" if gpu.power_watts is not None else "",
        f"of {gpu.power_limit_watts:.0f} W" if gpu.power_limit_watts is not None else "",
        f"{gpu.temperature_celsius} C" if gpu.temperature_celsius is not None else "",
    ]
    pcie = f"PCIe {gpu.pcie_generation} x{gpu.pcie_lanes}" if gpu.pcie_generation else ""
    pairs = [
        (f"gpu {gpu.index}", gpu.name),
        ("  memory", _free(gpu.vram_free_bytes, gpu.vram_bytes)),
        ("  rate", f"{rate / 1e12:.0f} TFLOP/s dense 16-bit" if rate else "not known"),
        ("  bf16", {True: "yes", False: "no", None: "not known"}[gpu.has_bf16]),
        ("  now", " ".join(part for part in live if part)),
        ("  throttled", ", ".join(gpu.throttle_reasons)),
        ("  links", ", ".join(p for p in (pcie, _nvlinks(gpu)) if p)),
    ]
    for holder in gpu.holders:
        who = f"{holder.user} ({holder.name} {holder.pid})"
        pairs.append(("  held", f"{bytes_text(holder.vram_bytes)} by {who}"))
    return facts(pairs, width)


def _nvlinks(gpu: Gpu) -> str:
    return f"{gpu.num_nvlinks} NVLinks" if gpu.num_nvlinks else ""
