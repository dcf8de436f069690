"""NVIDIA's part of the probe, against a stand-in for pynvml.

A GPU is a dict of what each NVML function (without its "nvmlDeviceGet") answers; an int wrapped in
`Fails` is raised as that NVML error instead, and whatever is not in the dict is "Not Supported".
"""

from __future__ import annotations

import os
import pathlib
import re
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from profiles.facts import GIB, Machine, Origin
from profiles.machines import nvml as nvml_module
from profiles.machines.machine import probe

if TYPE_CHECKING:
    from pathlib import Path

NOT_SUPPORTED, NO_PERMISSION, LOST, MISMATCH, UNKNOWN = 3, 4, 15, 18, 999
NOT_LOADED, NO_LIBRARY = 9, 12


class NVMLError(Exception):
    """Like pynvml's: carries the return code."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass(frozen=True)
class Fails:
    """An answer that is an NVML error."""

    code: int


def answer(value: Any) -> Any:
    """Give the value, or raise it where it is an error."""
    if isinstance(value, Fails):
        raise NVMLError(value.code)
    return value


def memory(total_bytes: int, free_bytes: int | None = None) -> SimpleNamespace:
    """Memory as nvmlDeviceGetMemoryInfo gives it; all free unless told."""
    return SimpleNamespace(
        total=total_bytes, free=total_bytes if free_bytes is None else free_bytes
    )


def process(pid: int, vram_bytes: int | None) -> SimpleNamespace:
    """Make a process as nvmlDeviceGetComputeRunningProcesses gives it."""
    return SimpleNamespace(pid=pid, usedGpuMemory=vram_bytes)


def card(name: str, total_mib: int, **answers: Any) -> dict[str, Any]:
    """Make an idle GPU with nothing but name and memory known, and what is given."""
    return {"Name": name, "MemoryInfo": memory(total_mib * 1024**2), **answers}


class FakeNvml:
    """The pynvml functions that profiles.machines.nvml calls."""

    NVMLError = NVMLError

    def __init__(self, *gpus: dict[str, Any] | Fails, init: Any = None) -> None:
        self.gpus = gpus
        self.init = init

    def nvmlInit(self) -> None:  # noqa: N802
        """Fail, or block, as told."""
        answer(self.init() if callable(self.init) else self.init)

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Nothing is held."""

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        """Answer one fixed version."""
        return "550.54.15"

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        """Answer NVML's number for CUDA 12.4."""
        return 12040

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """Count the fixtures."""
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        """Use the fixture itself as the handle."""
        handle: dict[str, Any] = answer(self.gpus[index])
        return handle

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: dict[str, Any]) -> int:  # noqa: N802
        """Offer one place more than there are slices."""
        return len(handle["slices"]) + 1

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: dict[str, Any], index: int) -> Any:  # noqa: N802
        """Answer a slice, or "Not Found" for a free place."""
        slices = handle["slices"]
        return slices[index] if index < len(slices) else answer(Fails(6))

    def nvmlDeviceGetNvLinkState(self, handle: dict[str, Any], link: int) -> int:  # noqa: N802
        """Answer the link's state; past the last link the argument is invalid."""
        links: list[int] = handle.get("links", [])
        state: int = answer(links[link] if link < len(links) else Fails(2))
        return state

    def nvmlDeviceGetP2PStatus(self, one: dict[str, Any], other: dict[str, Any], _: int) -> int:  # noqa: N802
        """Answer OK (0) within a bridge, else "not supported" (1)."""
        return int(one.get("bridge") != other.get("bridge"))

    def __getattr__(self, function: str) -> Any:
        """Answer everything else from the fixture."""
        key = function.removeprefix("nvmlDeviceGet")
        return lambda handle, *_: answer(handle.get(key, Fails(NOT_SUPPORTED)))


def write(path: Path, text: str) -> None:
    """Make a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a Linux with 64 GiB of RAM, half of it free."""
    write(tmp_path / "proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n")
    return tmp_path


def look(
    root: Path, *gpus: Any, environ: dict[str, str] | None = None, init: Any = None
) -> Machine:
    """Probe a machine with these GPUs."""
    nvml = FakeNvml(*gpus, init=init)
    return probe(root, nvml=nvml, root=root, environ=environ or {}, timeout_seconds=2)


A100 = card("NVIDIA A100-SXM4-80GB", 81920, UUID="GPU-aaaa1111", CudaComputeCapability=(8, 0))
T4 = card("Tesla T4", 15360, UUID="GPU-bbbb2222", CudaComputeCapability=(7, 5))


def test_nvidia_gpu_with_everything_known(root: Path) -> None:
    """Milliwatts become watts, bits become names, and the table adds the speeds."""
    full = A100 | {
        "PowerUsage": 251_300,
        "EnforcedPowerLimit": 400_000,
        "Temperature": 61,
        "UtilizationRates": SimpleNamespace(gpu=97, memory=40),
        "ClockInfo": 1275,
        "MaxClockInfo": 1410,
        "CurrentClocksThrottleReasons": 0x1 | 0x4 | 0x40,
        "MaxPcieLinkGeneration": 4,
        "CurrPcieLinkWidth": 8,
        "links": [1, 1, 0],
    }
    machine = look(root, full)
    gpu = machine.gpus[0]
    assert ("cuda", "550.54.15", "12.4", ()) == (
        machine.backend,
        machine.driver,
        machine.cuda_version,
        machine.notes,
    )
    assert ("a100-sxm-80", 312e12, "8.0", True, Origin.MEASURED) == (
        gpu.spec_id,
        gpu.bf16_flops,
        gpu.compute_capability,
        gpu.has_bf16,
        gpu.origin,
    )
    assert (251.3, 400, 61, 97) == (
        gpu.power_watts,
        gpu.power_limit_watts,
        gpu.temperature_celsius,
        gpu.utilization_percent,
    )
    assert ((1275, 1410), ("SwPowerCap", "HwThermal"), (4, 8), 2) == (
        (gpu.sm_clock_mhz, gpu.sm_clock_max_mhz),
        gpu.throttle_reasons,
        (gpu.pcie_generation, gpu.pcie_lanes),
        gpu.num_nvlinks,
    )


def test_half_occupied_gpu_names_its_holders(root: Path) -> None:
    """Who holds memory is listed largest first, a process that is gone as unknown."""
    busy = A100 | {
        "MemoryInfo": memory(80 * GIB, 38 * GIB),
        "ComputeRunningProcesses": [process(2**22 + 7, 1 * GIB), process(os.getpid(), 40 * GIB)],
        "GraphicsRunningProcesses": [process(os.getpid(), 1 * GIB)],
    }
    machine = look(root, busy)
    gpu = machine.gpus[0]
    me = psutil.Process()
    assert 42 * GIB == gpu.held_bytes
    assert [(me.name(), me.username(), 40 * GIB), ("unknown", "unknown", GIB)] == [
        (holder.name, holder.user, holder.vram_bytes) for holder in gpu.holders
    ]
    assert machine.notes == ()


def test_memory_held_by_nobody_visible_is_told(root: Path) -> None:
    """In a container the other tenants' processes cannot be seen, only their memory."""
    machine = look(root, A100 | {"MemoryInfo": memory(80 * GIB, 20 * GIB)})
    assert machine.notes[0].startswith("GPU 0: 60.0 GiB are held by processes that cannot be seen")


def test_not_supported_fields_stay_unknown(root: Path) -> None:
    """A driver that cannot tell the power costs that field, silently."""
    machine = look(root, T4)
    gpu = machine.gpus[0]
    assert (None, None, None, (), 0) == (
        gpu.power_watts,
        gpu.temperature_celsius,
        gpu.utilization_percent,
        gpu.throttle_reasons,
        gpu.num_nvlinks,
    )
    assert machine.notes == ()


def test_v100_and_t4_have_no_bf16(root: Path) -> None:
    """bf16 needs compute capability 8.0, whatever emulation claims."""
    v100 = card("Tesla V100-SXM2-16GB", 16160, CudaComputeCapability=(7, 0))
    machine = look(root, v100, T4)
    assert [(False, None), (False, None)] == [(g.has_bf16, g.bf16_flops) for g in machine.gpus]


def test_unknown_part_has_a_capability_but_no_speeds(root: Path) -> None:
    """What the driver measures is kept where the table has nothing."""
    gpu = look(root, card("NVIDIA X1", 100_000, CudaComputeCapability=(11, 0))).gpus[0]
    assert (None, None, "11.0", True) == (
        gpu.spec_id,
        gpu.bf16_flops,
        gpu.compute_capability,
        gpu.has_bf16,
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (MISMATCH, "differ in version (kernel module 460.56): a reboot is needed"),
        (UNKNOWN, "restart the container"),
        (NO_PERMISSION, "no permission"),
        (NOT_LOADED, "installed but not loaded: reboot"),
        (NO_LIBRARY, "start it with `--gpus all`"),
        (LOST, "fell off the bus"),
        (77, "NVML says 'NVML error 77'"),
    ],
)
def test_driver_that_does_not_start_is_a_note(root: Path, code: int, words: str) -> None:
    """The machine is reported without GPUs, with the cause and the cure."""
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  460.56  Tue Feb 23\n"
    write(root / "proc/driver/nvidia/version", version)
    machine = look(root, init=Fails(code))
    assert ("cpu", (), "460.56") == (machine.backend, machine.gpus, machine.driver)
    assert words in machine.notes[0]
    assert machine.notes[0] == machine.gpu_fault


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_sick_driver_is_no_fault_to_who_wants_the_cpu(root: Path, hidden: str) -> None:
    """It is told, and nothing more."""
    machine = look(root, init=Fails(MISMATCH), environ={"CUDA_VISIBLE_DEVICES": hidden})
    assert machine.gpu_fault is None
    assert "differ in version" in machine.notes[0]


def test_gpus_that_are_all_lost_are_a_fault_and_one_of_two_is_not(root: Path) -> None:
    """With one left there is something to train on."""
    assert "GPU 0 fell off the bus" in (look(root, Fails(LOST), Fails(LOST)).gpu_fault or "")
    assert look(root, Fails(LOST), A100).gpu_fault is None


def test_a_gpu_that_vanishes_between_two_looks_is_told(root: Path) -> None:
    """A container that loses its devices when systemd reloads; the run may go on."""
    nvml = FakeNvml(A100)
    before = probe(root, nvml=nvml, root=root, environ={})
    nvml.gpus = (Fails(UNKNOWN),)
    after = probe(root, nvml=nvml, root=root, environ={})
    assert (1, 0) == (len(before.gpus), len(after.gpus))
    assert "A run that holds the GPU may go on, a new one will fail" in (after.gpu_fault or "")


def test_memory_errors_are_told(root: Path) -> None:
    """ECC errors that were not corrected, and rows that wait for a reset."""
    worn = A100 | {"TotalEccErrors": 3, "RemappedRows": (0, 1, 1, 0)}
    sound = A100 | {"TotalEccErrors": 0, "RemappedRows": (2, 0, 0, 0)}
    notes = look(root, worn, sound).notes
    assert ["GPU 0 had 3 memory errors", "GPU 0 will replace bad memory"] == [
        note[: len(words)]
        for note, words in zip(
            notes, ("GPU 0 had 3 memory errors", "GPU 0 will replace bad memory"), strict=True
        )
    ]


def test_driver_that_hangs_does_not_hang_us(root: Path) -> None:
    """After the time limit the probe goes on and says so."""
    release = threading.Event()
    nvml = FakeNvml(A100, init=release.wait)
    machine = probe(root, nvml=nvml, root=root, environ={}, timeout_seconds=0.02)
    release.set()
    assert ("cpu", ()) == (machine.backend, machine.gpus)
    assert ("The NVIDIA driver is not answering (waited 0.02 s).",) == machine.notes
    assert machine.notes[0] == machine.gpu_fault


def test_our_own_mistake_in_the_thread_is_not_swallowed(root: Path) -> None:
    """Only NVML's errors become notes."""
    with pytest.raises(ZeroDivisionError):
        look(root, A100, init=lambda: 1 // 0)


def test_a_lost_gpu_costs_only_itself(root: Path) -> None:
    """The others keep their numbers and indices, whether the handle or a later call fails."""
    dying = A100 | {"PowerUsage": Fails(LOST)}
    machine = look(root, Fails(LOST), A100, dying, T4)
    assert [1, 3] == [gpu.index for gpu in machine.gpus]
    assert ["GPU 0 fell off the bus", "GPU 2 fell off the bus"] == [
        note.partition(":")[0] for note in machine.notes
    ]


def test_unified_memory_is_the_host_s(root: Path) -> None:
    """A DGX Spark's driver does not tell memory; it is the RAM."""
    gpu = look(root, {"Name": "NVIDIA GB10"}).gpus[0]
    assert ("gb10-dgx-spark", 64 * GIB, 32 * GIB) == (
        gpu.spec_id,
        gpu.vram_bytes,
        gpu.vram_free_bytes,
    )


def test_gpu_without_memory_is_left_out(root: Path) -> None:
    """A GPU of unknown size cannot be planned for."""
    machine = look(root, {"Name": "NVIDIA L4", "MemoryInfo": Fails(UNKNOWN)})
    assert ((), "GPU 0 (NVIDIA L4) does not tell its memory; left out.") == (
        machine.gpus,
        machine.notes[0],
    )


def test_mig_slices_stand_for_the_card(root: Path) -> None:
    """Where MIG is on, only slices can be used, each with its share of the speed."""
    one = card("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9728, UUID="MIG-1")
    machine = look(root, A100 | {"MigMode": [1, 1], "slices": [one, one | {"UUID": "MIG-2"}]})
    assert [("MIG-1", 0), ("MIG-2", 0)] == [(gpu.uuid, gpu.index) for gpu in machine.gpus]
    assert machine.gpus[0].bf16_flops == pytest.approx(312e12 / 7)
    assert machine.notes == ("GPU 0 is split by MIG into 2 slices; a process can use only one.",)


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("1", [1]),
        ("1,0", [1, 0]),
        ("GPU-bbbb", [1]),
        ("0,-1,1", [0]),
        ("7", []),
        ("", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices(root: Path, wanted: str, indices: list[int]) -> None:
    """Numbers and UUID prefixes choose and order; whatever follows a bad entry is dropped."""
    machine = look(root, A100, T4, environ={"CUDA_VISIBLE_DEVICES": wanted})
    assert indices == [gpu.index for gpu in machine.gpus]
    assert ("cuda" if indices else "cpu") == machine.backend


def test_hidden_gpus_and_ambiguous_numbers_are_told(root: Path) -> None:
    """CUDA counts unlike GPUs by speed, the driver by slot, unless told to agree."""
    environ = {"CUDA_VISIBLE_DEVICES": "1"}
    notes = look(root, A100, T4, environ=environ).notes
    assert ("CUDA_VISIBLE_DEVICES=1 leaves 1 of 2 GPUs.", True) == (
        notes[0],
        "CUDA_DEVICE_ORDER=PCI_BUS_ID" in notes[1],
    )
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    assert 1 == len(look(root, A100, T4, environ=environ).notes)


@pytest.mark.parametrize(
    ("gpus", "interconnect"),
    [
        ([A100 | {"links": [1] * 12}] * 2, "nvlink"),
        ([A100, A100], "pcie"),
        ([A100 | {"links": [1], "bridge": n // 2} for n in range(4)], "pcie"),
        ([A100 | {"links": [1]}], None),
    ],
)
def test_interconnect(root: Path, gpus: list[dict[str, Any]], interconnect: str | None) -> None:
    """NVLink counts only when it joins every pair."""
    assert interconnect == look(root, *gpus).interconnect


def test_every_function_asked_for_exists_in_pynvml() -> None:
    """The stand-in answers to any name, the real library does not."""
    import pynvml

    source = pathlib.Path(str(nvml_module.__file__)).read_text("utf-8")
    names = set(re.findall(r"\bnvml[A-Z]\w+", source))
    names |= {f"nvmlDeviceGet{kind}RunningProcesses" for kind in ("Compute", "Graphics")}
    missing = {name for name in names if not hasattr(pynvml, name)}
    assert {"nvmlDeviceGet"} >= missing
