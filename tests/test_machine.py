"""The probe of everything but NVIDIA's GPUs, against a fake root folder."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from profiles.facts import GIB
from profiles.machines import machine as machine_module
from profiles.machines.machine import probe

if TYPE_CHECKING:
    from pathlib import Path

    from profiles.facts import Machine

MEMINFO = "MemTotal:       67108864 kB\nMemFree:  1 kB\nMemAvailable:   33554432 kB\n"


def write(path: Path, text: str) -> None:
    """Make a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a Linux with 64 GiB and 32 cores of two threads, and nothing else."""
    write(tmp_path / "proc/meminfo", MEMINFO)
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nmodel name\t: Fast CPU 9000\n")
    for thread in range(64):
        pair = f"{thread // 2 * 2},{thread // 2 * 2 + 1}\n"
        write(tmp_path / f"sys/devices/system/cpu/cpu{thread}/topology/thread_siblings_list", pair)
    return tmp_path


def look(root: Path, environ: dict[str, str] | None = None) -> Machine:
    """Probe the fake machine."""
    return probe(root, root=root, environ=environ or {})


def amd(root: Path, number: int, **files: str) -> None:
    """Add an AMD card to the fake sysfs."""
    for name, text in {"vendor": "0x1002\n", **files}.items():
        write(root / f"sys/class/drm/card{number}/device/{name}", text)


def test_amd_gpus_are_read_without_rocm(root: Path) -> None:
    """Names, memory and load come from sysfs; the processor's graphics and connectors do not."""
    total, used = 196592 * 1024**2, 10 * GIB
    vram = {"mem_info_vram_total": f"{total}\n", "mem_info_vram_used": f"{used}\n"}
    amd(root, 10, product_name="AMD Instinct MI300X\n", gpu_busy_percent="3\n", **vram)
    amd(root, 2, device="0x744c\n", revision="0xc8\n", mem_info_vram_total=f"{24 * GIB}\n")
    amd(root, 1, mem_info_vram_total=f"{GIB // 2}\n")
    write(root / "sys/class/drm/card2-DP-1/device/vendor", "0x1002\n")
    write(root / "usr/share/libdrm/amdgpu.ids", "1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n")
    write(root / "dev/kfd", "")
    machine = look(root)
    assert ("rocm", ["rx-7900-xtx", "mi300x"], [0, 1], ()) == (
        machine.backend,
        [gpu.spec_id for gpu in machine.gpus],
        [gpu.index for gpu in machine.gpus],
        machine.notes,
    )
    gpu = machine.gpus[1]
    assert (total - used, 3, 1307.4e12) == (
        gpu.vram_free_bytes,
        gpu.utilization_percent,
        gpu.bf16_flops,
    )


def test_amd_without_kernel_driver_or_visibility_is_told(root: Path) -> None:
    """HIP's variable is respected, and a missing /dev/kfd explains what fails later."""
    amd(root, 0, product_name="AMD Instinct MI210", mem_info_vram_total=str(64 * GIB))
    machine = look(root, environ={"HIP_VISIBLE_DEVICES": ""})
    assert ("cpu", ()) == (machine.backend, machine.gpus)
    assert ["The environment leaves 0 of 1 GPUs ('')", "/dev/kfd is missing"] == [
        machine.notes[0].rstrip("."),
        machine.notes[1].partition(":")[0],
    ]


def test_apple_gpu_shares_the_ram(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of the RAM are usable, and no more than is free."""
    monkeypatch.setattr(machine_module, "_system", lambda: ("Darwin", "mac", "arm64"))
    monkeypatch.setattr(machine_module, "_sysctl", lambda _: "Apple M3 Pro")
    machine = look(root)
    gpu = machine.gpus[0]
    assert ("mps", "mac", "apple-m3-pro", 48 * GIB, 32 * GIB) == (
        machine.backend,
        machine.host,
        gpu.spec_id,
        gpu.vram_bytes,
        gpu.vram_free_bytes,
    )
    assert "share 64 GiB of memory; macOS lets the GPU use about 48 GiB" in machine.notes[0]


def test_machine_without_gpu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trace of a driver: the processor alone, and nothing to remark."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    machine = look(root)
    assert ("cpu", (), (), "Fast CPU 9000", 64 * GIB, 32 * GIB) == (
        machine.backend,
        machine.gpus,
        machine.notes,
        machine.cpu_name,
        machine.ram_bytes,
        machine.ram_free_bytes,
    )
    assert (3, 4) == (machine.num_cores, machine.num_threads)


def test_nvidia_gpu_without_driver_is_told(root: Path) -> None:
    """The PCI bus shows a GPU that no driver serves."""
    write(root / "sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n")
    write(root / "sys/bus/pci/devices/0000:01:00.0/class", "0x030000\n")
    write(root / "sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    assert ("An NVIDIA GPU is plugged in, but no NVIDIA driver is loaded.",) == look(root).notes


def test_cgroup_v2_limits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tightest of the nested limits holds; file cache counts as free; quotas round up."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    write(root / "proc/self/cgroup", "0::/pod/job\n")
    pod = root / "sys/fs/cgroup/pod"
    write(pod / "memory.max", f"{16 * GIB}\n")
    write(pod / "memory.current", f"{10 * GIB}\n")
    write(pod / "memory.stat", f"anon 1\ninactive_file {2 * GIB}\n")
    write(pod / "cpu.max", "250000 100000\n")
    write(pod / "job/memory.max", "max\n")
    write(pod / "job/memory.current", f"{10 * GIB}\n")
    write(pod / "job/cpu.max", "max 100000\n")
    machine = look(root)
    assert (16 * GIB, 8 * GIB) == (machine.ram_bytes, machine.ram_free_bytes)
    assert (3, 3) == (machine.num_cores, machine.num_threads)


def test_cgroup_v1_limits_in_a_container(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path in /proc may be the host's; the limits are then at the mount itself."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    write(root / "proc/self/cgroup", "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{8 * GIB}\n")
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{3 * GIB}\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    machine = look(root)
    assert (8 * GIB, 5 * GIB, 2) == (
        machine.ram_bytes,
        machine.ram_free_bytes,
        machine.num_threads,
    )


def test_unlimited_cgroup_changes_nothing(root: Path) -> None:
    """Version 1 writes "no limit" as a huge number and a quota of -1."""
    write(root / "proc/self/cgroup", "4:memory:/\n1:cpu:/\n")
    write(root / "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(root / "sys/fs/cgroup/memory/memory.usage_in_bytes", "4096\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert (64 * GIB, 32 * GIB) == (look(root).ram_bytes, look(root).ram_free_bytes)


def test_disk_is_measured_at_the_nearest_parent(root: Path) -> None:
    """A run folder that does not exist yet has the space of the disk it will be on."""
    machine = probe(root / "runs/not/yet", root=root, environ={})
    assert str(root / "runs/not/yet") == machine.disk_path
    assert machine.disk_free_bytes > 0


def test_probing_without_gpu_loads_nothing_heavy() -> None:
    """No NVIDIA binding, no table, no psutil: a laptop's probe stays quick."""
    code = (
        "import sys; from profiles.machines.machine import probe; from pathlib import Path;"
        "probe('.', root=Path(sys.argv[1]));"
        "print(sorted({'pynvml','tomllib','torch','profiles.machines.nvml'} & set(sys.modules)))"
    )
    home = str(machine_module.__file__).removesuffix("profiles/machines/machine.py")
    command = [sys.executable, "-c", code, "/nonexistent"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
