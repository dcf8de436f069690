"""The machine we run on: accelerators, processor, memory, disk.

This file decides which backend a machine has and how much of the host this process may use, inside
containers and under CPU affinity too. Asking NVIDIA's driver is nvml.py's, what parts can do is
gputable.py's business. Nothing here may fail: what cannot be read is unknown, or a note.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.facts import GIB, Gpu, Machine, Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_AMD, _NVIDIA = "0x1002", "0x10de"
_LEAST_VRAM_BYTES = 3 * GIB  # less is the graphics part of a processor, which ROCm does not serve
_AMD_VISIBLE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
_AMD_NAMES = ("usr/share/libdrm/amdgpu.ids", "opt/amdgpu/share/libdrm/amdgpu.ids")
_NVIDIA_TRACES = (
    "dev/nvidiactl",
    "proc/driver/nvidia/version",
    "usr/lib/wsl/lib/libnvidia-ml.so.1",
    "Windows/System32/nvml.dll",
)
_PCI_DISPLAY = "0x03"


def probe(
    disk_path: str | Path,
    *,
    nvml: Any | None = None,
    root: Path = Path("/"),
    environ: Mapping[str, str] = os.environ,
    timeout_seconds: float = 5.0,
) -> Machine:
    """Look at this machine; `nvml`, `root` and `environ` stand in for the real ones in tests."""
    ram_bytes, ram_free_bytes = _ram(root)
    num_cores, num_threads = _cores(root)
    host = Machine(
        host=_system()[1],
        backend="cpu",
        gpus=(),
        cpu_name=_cpu_name(root),
        num_cores=num_cores,
        num_threads=num_threads,
        ram_bytes=ram_bytes,
        ram_free_bytes=ram_free_bytes,
        disk_path=str(disk_path),
        disk_free_bytes=_disk_free(disk_path),
        origin=Origin.MEASURED,
    )
    return (
        _with_nvidia(host, nvml, root, environ, timeout_seconds)
        or _with_amd(host, root, environ)
        or _with_apple(host)
        or replace(host, notes=_missing_driver(root))
    )


def _with_nvidia(
    host: Machine, nvml: Any | None, root: Path, environ: Mapping[str, str], timeout_seconds: float
) -> Machine | None:
    """Ask NVIDIA's driver, but only where it left a trace: its binding is slow to load."""
    if nvml is None and not any((root / trace).exists() for trace in _NVIDIA_TRACES):
        return None
    from profiles.machines.nvml import with_nvidia  # noqa: PLC0415

    version = re.search(r"Kernel Module\D*([\d.]+)", _text(root / "proc/driver/nvidia/version"))
    return with_nvidia(
        host,
        nvml,
        environ=environ,
        kernel_driver=version[1] if version else None,
        timeout_seconds=timeout_seconds,
    )


def _missing_driver(root: Path) -> tuple[str, ...]:
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if _text(device / "class").startswith(_PCI_DISPLAY) and _text(device / "vendor") == _NVIDIA:
            return ("An NVIDIA GPU is plugged in, but no NVIDIA driver is loaded.",)
    return ()


def _with_amd(host: Machine, root: Path, environ: Mapping[str, str]) -> Machine | None:
    """Read AMD GPUs from sysfs, so that no ROCm library is needed."""
    cards = sorted(
        (card for card in (root / "sys/class/drm").glob("card*") if card.name[4:].isdigit()),
        key=lambda card: int(card.name[4:]),
    )
    devices = [card / "device" for card in cards if _text(card / "device/vendor") == _AMD]
    all_gpus = [_amd_gpu(index, device, root) for index, device in enumerate(devices)]
    usable = [gpu for gpu in all_gpus if gpu.vram_bytes >= _LEAST_VRAM_BYTES]
    if not usable:
        return None
    from profiles.machines.nvml import visible  # noqa: PLC0415

    gpus = [replace(gpu, index=index) for index, gpu in enumerate(usable)]
    wanted = next((environ[name] for name in _AMD_VISIBLE if name in environ), None)
    chosen = visible(wanted, [(gpu.index, gpu.uuid) for gpu in gpus])
    notes = []
    if len(chosen) < len(gpus):
        notes.append(f"The environment leaves {len(chosen)} of {len(gpus)} GPUs ({wanted!r}).")
    if not (root / "dev/kfd").exists():
        notes.append("/dev/kfd is missing: the ROCm kernel driver is not loaded, or not passed in.")
    return replace(
        host,
        backend="rocm" if chosen else "cpu",
        gpus=tuple(gpus[position] for position in chosen),
        driver=_text(root / "sys/module/amdgpu/version") or None,
        notes=tuple(notes),
    )


def _amd_gpu(index: int, device: Path, root: Path) -> Gpu:
    from profiles.machines.gputable import MIB, gpu_of, look_up  # noqa: PLC0415

    name = _text(device / "product_name") or _amd_name(device, root)
    total = _number(device / "mem_info_vram_total") or 0
    unique_id = _text(device / "unique_id")
    gpu = gpu_of(
        look_up(name, total // MIB),
        index=index,
        name=name,
        vendor="amd",
        vram_bytes=total,
        vram_free_bytes=total - (_number(device / "mem_info_vram_used") or 0),
        origin=Origin.MEASURED,
    )
    busy = _number(device / "gpu_busy_percent")
    return replace(gpu, uuid=f"GPU-{unique_id}" if unique_id else None, utilization_percent=busy)


def _amd_name(device: Path, root: Path) -> str:
    """Consumer cards carry no name; libdrm's list has it by device and revision."""
    code = _text(device / "device").removeprefix("0x").upper()
    revision = _text(device / "revision").removeprefix("0x").upper()
    for names in _AMD_NAMES:
        found = re.search(rf"(?m)^{code},\s*{revision},\s*(.+)$", _text(root / names))
        if code and found:
            return found[1].strip()
    return f"AMD GPU {code}".strip()


def _with_apple(host: Machine) -> Machine | None:
    system, _, architecture = _system()
    if (system, architecture) != ("Darwin", "arm64"):
        return None
    from profiles.machines.gputable import apple_usable_bytes, gpu_of, look_up  # noqa: PLC0415

    name = _sysctl("machdep.cpu.brand_string") or "Apple GPU"
    usable_bytes = apple_usable_bytes(host.ram_bytes)
    gpu = gpu_of(
        look_up(name),
        index=0,
        name=name,
        vendor="apple",
        vram_bytes=usable_bytes,
        vram_free_bytes=min(usable_bytes, host.ram_free_bytes),
        origin=Origin.MEASURED,
    )
    note = (
        f"Processor and GPU share {host.ram_bytes / GIB:.0f} GiB of memory; macOS lets the GPU use"
        f" about {usable_bytes / GIB:.0f} GiB of it."
    )
    return replace(host, backend="mps", gpus=(gpu,), notes=(note,))


def _system() -> tuple[str, str, str]:
    """Kernel, host and processor architecture; `platform` says the same and loads slowly."""
    if sys.platform == "win32":
        return "Windows", os.environ.get("COMPUTERNAME", ""), ""
    names = os.uname()
    return names.sysname, names.nodename, names.machine


def _sysctl(key: str) -> str:
    import subprocess  # noqa: PLC0415

    command = ["/usr/sbin/sysctl", "-n", key]
    try:
        return subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=2, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _cpu_name(root: Path) -> str:
    # The file lists every thread and grows long; the name is near its beginning.
    found = re.search(r"(?m)^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo", 4096))
    if found:
        return found[1]
    system, _, architecture = _system()
    return (_sysctl("machdep.cpu.brand_string") if system == "Darwin" else "") or architecture


def _cores(root: Path) -> tuple[int, int]:
    """Physical cores and threads that affinity and the container's quota leave us."""
    if hasattr(os, "sched_getaffinity"):
        threads = sorted(os.sched_getaffinity(0))
    else:
        threads = list(range(os.cpu_count() or 1))
    topology = root / "sys/devices/system/cpu"
    siblings = {_text(topology / f"cpu{n}/topology/thread_siblings_list") for n in threads}
    if "" in siblings:
        import psutil  # noqa: PLC0415 - slow to load, so only where sysfs is not there

        num_cores = min(psutil.cpu_count(logical=False) or len(threads), len(threads))
    else:
        num_cores = len(siblings)
    num_threads = min(len(threads), _cpu_quota(root) or len(threads))
    return min(num_cores, num_threads), num_threads


def _cpu_quota(root: Path) -> int | None:
    """Whole threads that the control groups allow, rounded up."""
    quotas: list[int] = []
    for folder in _control_groups(root, "cpu"):
        limit = _text(folder / "cpu.max").split()
        if not limit:
            limit = [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]
        if all(number.isdigit() for number in limit):  # else there is none, "max" or -1
            quotas.append(max(1, -(-int(limit[0]) // int(limit[1]))))
    return min(quotas, default=None)


def _ram(root: Path) -> tuple[int, int]:
    """Total and free RAM, as the tightest control group leaves it."""
    table = dict(re.findall(r"(?m)^(\w+):\s+(\d+) kB", _text(root / "proc/meminfo")))
    if "MemAvailable" in table:
        total, free = int(table["MemTotal"]) * 1024, int(table["MemAvailable"]) * 1024
    else:
        import psutil  # noqa: PLC0415 - slow to load, so only where /proc is not there

        memory = psutil.virtual_memory()
        total, free = memory.total, memory.available
    for folder in _control_groups(root, "memory"):
        for names in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(folder / names[0]), _number(folder / names[1])
            if limit is None or used is None:
                continue
            # File cache counts as used but goes when memory gets tight.
            cache = re.search(rf"(?m)^{names[2]} (\d+)$", _text(folder / "memory.stat"))
            free = min(free, max(0, limit - used + (int(cache[1]) if cache else 0)))
            total = min(total, limit)
    return total, free


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders whose limits hold for this process, innermost first, of cgroup v2 and v1."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controllers and controller)
        # Inside a container the path may be the host's; then only the mount itself is ours.
        inner = mount / group.strip("/")
        while inner != mount and mount in inner.parents:
            yield inner
            inner = inner.parent
        yield mount


def _disk_free(path: str | Path) -> int:
    """Free bytes at the nearest parent that exists: run folders are made later."""
    import shutil  # noqa: PLC0415

    place = Path(path).expanduser().absolute()
    while not os.path.exists(place) and place != place.parent:  # noqa: PTH110 - never raises
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return 0


def _text(path: Path, num_bytes: int = -1) -> str:
    """Content of a small file, or nothing."""
    try:
        with path.open("rb") as file:
            return file.read(num_bytes).decode(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    content = _text(path)
    return int(content) if content.isdigit() else None
