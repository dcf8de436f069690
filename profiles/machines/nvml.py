"""What the NVIDIA driver says about its GPUs.

This file decides how to ask NVML so that no answer, or no answer in time, costs one field or one
GPU and a sentence for the user, never the probe. It knows nothing of the rest of the machine.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from profiles.facts import Gpu, GpuProcess, Machine, Origin
from profiles.machines.gputable import MIB, gpu_of, look_up
from profiles.quantities import bytes_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

THROTTLE_BITS = {
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x20: "SwThermal",
    0x40: "HwThermal",
    0x80: "HwPowerBrake",
}
"""Reasons that cost speed. Idle, application clocks, sync boost and display clocks do not."""

_LOST, _NEEDS_RESET, _UNKNOWN = 15, 16, 999
_SENTENCES = {
    4: "{who} refuses access: no permission for the /dev/nvidia* devices.",
    9: "{who} is installed but not loaded: reboot, or ask the administrator for `modprobe nvidia`.",
    12: "{who}'s library libnvidia-ml.so.1 is missing: in a container, start it with `--gpus all`.",
    _LOST: "{who} fell off the bus: hardware or driver fault, the administrator is needed.",
    _NEEDS_RESET: "{who} must be reset before it can be used: the administrator is needed.",
    18: "{who} and its library differ in version{kernel}: a reboot is needed; programs that already"
    " run on the GPUs go on.",
    _UNKNOWN: '{who} answers "Unknown Error": a container loses its GPUs so when systemd reloads.'
    " A run that holds the GPU may go on, a new one will fail: restart the container.",
}
_TEMPERATURE_GPU = 0
_CLOCK_SM = 1
_P2P_NVLINK = 2
_MAX_NVLINKS = 36
_ECC_UNCORRECTED, _ECC_SINCE_LOADED = 1, 0
_BF16_SINCE = (8, 0)
_UNSEEN_BYTES = 1024 * MIB
"""Held memory below this is the driver's own."""


@dataclass(frozen=True, slots=True)
class _Device:
    """A GPU, or one MIG slice of it, with the number that nvidia-smi gives the GPU."""

    index: int
    handle: Any
    uuid: str | None


def with_nvidia(
    host: Machine,
    library: Any | None,
    *,
    environ: Mapping[str, str],
    kernel_driver: str | None = None,
    timeout_seconds: float = 5.0,
) -> Machine:
    """Add NVIDIA's GPUs to a host; asked off this thread because a sick driver blocks for ever."""
    import threading  # noqa: PLC0415 - machines without a driver need not pay

    answers: list[Machine | BaseException] = []

    def ask() -> None:
        try:
            answers.append(_Reader(host, library, environ).read(kernel_driver))
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            answers.append(error)

    thread = threading.Thread(target=ask, name="nvml", daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if not answers:
        note = f"The NVIDIA driver is not answering (waited {timeout_seconds:g} s)."
        return _without_gpus(host, note, kernel_driver, environ)
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


def visible(wanted: str | None, devices: Sequence[tuple[int, str | None]]) -> list[int]:
    """Apply CUDA_VISIBLE_DEVICES to (number, uuid) pairs; the answer are positions in them."""
    if wanted is None:
        return list(range(len(devices)))
    chosen: list[int] = []
    for word in (part.strip().lower() for part in wanted.split(",")):
        found = [
            position
            for position, (number, uuid) in enumerate(devices)
            if word == str(number) or (word[3:] and uuid and uuid.lower().startswith(word))
        ]
        if not found:
            break  # CUDA ignores everything after an entry that names nothing
        chosen += [position for position in found if position not in chosen]
    return chosen


def _without_gpus(
    host: Machine, fault: str, kernel_driver: str | None, environ: Mapping[str, str]
) -> Machine:
    """The host alone; whoever hides all GPUs from CUDA wants the CPU, and misses nothing."""
    wants_cpu = environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in {"", "-1", "NoDevFiles"}
    return replace(
        host,
        driver=kernel_driver,
        gpu_fault=None if wants_cpu else fault,
        notes=(*host.notes, fault),
    )


class _Reader:
    """NVML, any of whose answers may be missing."""

    def __init__(self, host: Machine, library: Any | None, environ: Mapping[str, str]) -> None:
        self.host = host
        self.nvml: Any = library or _load()
        self.environ = environ
        self.notes: list[str] = list(host.notes)
        self.faults: list[str] = []

    def read(self, kernel_driver: str | None) -> Machine:
        try:
            self.nvml.nvmlInit()
            num_gpus = self.nvml.nvmlDeviceGetCount()
        except self.nvml.NVMLError as error:
            kernel = f" (kernel module {kernel_driver})" if kernel_driver else ""
            fault = _sentence(error, "The NVIDIA driver", kernel)
            return _without_gpus(self.host, fault, kernel_driver, self.environ)
        devices = self._visible_devices(num_gpus)
        read = [(device, self._gpu_or_note(device)) for device in devices]
        gpus = tuple(gpu for _, gpu in read if gpu)
        interconnect = self._interconnect(gpus, [device.handle for device, gpu in read if gpu])
        cuda = self.ask("nvmlSystemGetCudaDriverVersion")
        driver = self.ask("nvmlSystemGetDriverVersion")
        with contextlib.suppress(self.nvml.NVMLError):
            self.nvml.nvmlShutdown()
        return replace(
            self.host,
            backend="cuda" if gpus else "cpu",
            gpus=gpus,
            interconnect=interconnect,
            driver=driver or kernel_driver,
            cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            gpu_fault=self.faults[0] if self.faults and not gpus else None,
            notes=tuple(self.notes),
        )

    def ask(self, function: str, *arguments: Any) -> Any:
        """Return the answer or None; raise only when the whole GPU is gone."""
        try:
            return getattr(self.nvml, function)(*arguments)
        except self.nvml.NVMLError as error:
            if error.value in {_LOST, _NEEDS_RESET}:
                raise
        except (AttributeError, UnicodeDecodeError):  # an older library; a garbled name
            pass
        return None

    def _visible_devices(self, num_gpus: int) -> list[_Device]:
        devices: list[_Device] = []
        for index in range(num_gpus):
            try:
                handle = self.nvml.nvmlDeviceGetHandleByIndex(index)
                devices += self._slices(index, handle)
            except self.nvml.NVMLError as error:
                self._is_lost(error, index)
        wanted = self.environ.get("CUDA_VISIBLE_DEVICES")
        chosen = visible(wanted, [(device.index, device.uuid) for device in devices])
        if wanted is not None and len(chosen) < len(devices):
            self.notes.append(
                f"CUDA_VISIBLE_DEVICES={wanted} leaves {len(chosen)} of {len(devices)} GPUs."
            )
        self._warn_of_order(wanted, devices)
        return [devices[position] for position in chosen]

    def _warn_of_order(self, wanted: str | None, devices: list[_Device]) -> None:
        """CUDA counts the fastest GPU first, nvidia-smi and NVML count by PCI slot."""
        if not wanted or self.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
            return
        names = {self.ask("nvmlDeviceGetName", device.handle) for device in devices}
        if len(names) > 1 and any(word.strip().isdigit() for word in wanted.split(",")):
            self.notes.append(
                "The GPUs differ, so CUDA may number them unlike nvidia-smi: set"
                " CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID."
            )

    def _slices(self, index: int, handle: Any) -> list[_Device]:
        """Return the GPU itself or, where MIG is on, its slices: the rest cannot be used."""
        mode = self.ask("nvmlDeviceGetMigMode", handle)
        if not mode or not mode[0]:
            return [_Device(index, handle, self.ask("nvmlDeviceGetUUID", handle))]
        count = self.ask("nvmlDeviceGetMaxMigDeviceCount", handle) or 0
        handles = [self.ask("nvmlDeviceGetMigDeviceHandleByIndex", handle, n) for n in range(count)]
        slices = [slice_ for slice_ in handles if slice_ is not None]
        self.notes.append(
            f"GPU {index} is split by MIG into {len(slices)} slices; a process can use only one."
        )
        return [_Device(index, slice_, self.ask("nvmlDeviceGetUUID", slice_)) for slice_ in slices]

    def _gpu_or_note(self, device: _Device) -> Gpu | None:
        try:
            return self._gpu(device)
        except self.nvml.NVMLError as error:
            self._is_lost(error, device.index)
            return None

    def _is_lost(self, error: Any, index: int) -> None:
        self.faults.append(_sentence(error, f"GPU {index}"))
        self.notes.append(self.faults[-1])

    def _gpu(self, device: _Device) -> Gpu | None:
        handle = device.handle
        name = self.ask("nvmlDeviceGetName", handle) or "NVIDIA GPU"
        memory = self.ask("nvmlDeviceGetMemoryInfo", handle)
        spec = look_up(name, memory.total // MIB if memory else None)
        if memory:
            total, free = memory.total, memory.free
        elif spec and spec.unified:
            total, free = self.host.ram_bytes, self.host.ram_free_bytes
        else:
            self.notes.append(f"GPU {device.index} ({name}) does not tell its memory; left out.")
            return None
        self._warn_of_memory_errors(device)
        holders = self._holders(handle)
        unseen = total - free - sum(holder.vram_bytes for holder in holders)
        if memory and unseen > _UNSEEN_BYTES + total // 20:
            self.notes.append(
                f"GPU {device.index}: {bytes_text(unseen)} are held by processes that cannot"
                " be seen from here (another container or user)."
            )
        gpu = gpu_of(
            spec,
            index=device.index,
            name=name,
            vendor="nvidia",
            vram_bytes=total,
            vram_free_bytes=free,
            origin=Origin.MEASURED,
        )
        return self._with_state(replace(gpu, uuid=device.uuid, holders=holders), handle)

    def _warn_of_memory_errors(self, device: _Device) -> None:
        """ECC: what could not be corrected since the driver was loaded, and rows to be replaced."""
        uncorrected = self.ask(
            "nvmlDeviceGetTotalEccErrors", device.handle, _ECC_UNCORRECTED, _ECC_SINCE_LOADED
        )
        if uncorrected:
            self.notes.append(
                f"GPU {device.index} had {uncorrected} memory errors that it could not correct:"
                " results may be wrong, the administrator should look at it."
            )
        rows = self.ask("nvmlDeviceGetRemappedRows", device.handle)
        if rows and rows[2]:
            self.notes.append(
                f"GPU {device.index} will replace bad memory at its next reset:"
                " the administrator should plan one."
            )

    def _with_state(self, gpu: Gpu, handle: Any) -> Gpu:
        capability = self.ask("nvmlDeviceGetCudaComputeCapability", handle)
        power_mw = self.ask("nvmlDeviceGetPowerUsage", handle)
        limit_mw = self.ask("nvmlDeviceGetEnforcedPowerLimit", handle)
        rates = self.ask("nvmlDeviceGetUtilizationRates", handle)
        reasons = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle) or 0
        return replace(
            gpu,
            compute_capability=".".join(map(str, capability))
            if capability
            else gpu.compute_capability,
            has_bf16=tuple(capability) >= _BF16_SINCE if capability else gpu.has_bf16,
            power_watts=None if power_mw is None else power_mw / 1000,
            power_limit_watts=None if limit_mw is None else limit_mw / 1000,
            temperature_celsius=self.ask("nvmlDeviceGetTemperature", handle, _TEMPERATURE_GPU),
            utilization_percent=rates.gpu if rates else None,
            sm_clock_mhz=self.ask("nvmlDeviceGetClockInfo", handle, _CLOCK_SM),
            sm_clock_max_mhz=self.ask("nvmlDeviceGetMaxClockInfo", handle, _CLOCK_SM),
            throttle_reasons=tuple(word for bit, word in THROTTLE_BITS.items() if reasons & bit),
            # An idle GPU falls back to generation 1, so ask for the most that the slot allows; the
            # lanes stay, and the current ones show a riser that the maximum hides.
            pcie_generation=self.ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            pcie_lanes=self.ask("nvmlDeviceGetCurrPcieLinkWidth", handle),
            num_nvlinks=self._num_nvlinks(handle),
        )

    def _num_nvlinks(self, handle: Any) -> int:
        active = 0
        for link in range(_MAX_NVLINKS):
            state = self.ask("nvmlDeviceGetNvLinkState", handle, link)
            if state is None:
                break  # links are numbered without gaps
            active += state
        return active

    def _holders(self, handle: Any) -> tuple[GpuProcess, ...]:
        """Who holds memory, largest first; a process may hold both compute and graphics memory."""
        held: dict[int, int] = {}
        for kind in ("Compute", "Graphics"):
            for process in self.ask(f"nvmlDeviceGet{kind}RunningProcesses", handle) or ():
                held[process.pid] = max(held.get(process.pid, 0), process.usedGpuMemory or 0)
        return tuple(
            _holder(pid, vram_bytes)
            for pid, vram_bytes in sorted(held.items(), key=lambda item: (-item[1], item[0]))
        )

    def _interconnect(self, gpus: tuple[Gpu, ...], handles: list[Any]) -> str | None:
        if not gpus[1:]:
            return None
        if not all(gpu.num_nvlinks for gpu in gpus):
            return "pcie"
        pairs = [(one, other) for i, one in enumerate(handles) for other in handles[i + 1 :]]
        with contextlib.suppress(self.nvml.NVMLError):
            states = [self.ask("nvmlDeviceGetP2PStatus", *pair, _P2P_NVLINK) for pair in pairs]
            if all(not state for state in states):  # 0 is "OK", None is "cannot tell"
                return "nvlink"
        self.notes.append("NVLink joins only some pairs of the GPUs; the slower PCIe is assumed.")
        return "pcie"


def _load() -> Any:
    import pynvml  # noqa: PLC0415 - slow to load

    return pynvml


def _holder(pid: int, vram_bytes: int) -> GpuProcess:
    import psutil  # noqa: PLC0415 - slow to load, and most GPUs are free

    name = user = "unknown"
    try:
        process = psutil.Process(pid)
        name = process.name()
        user = process.username()
    except (psutil.Error, KeyError):  # gone, not ours to see, or in another container
        pass
    return GpuProcess(pid=pid, name=name, user=user, vram_bytes=vram_bytes)


def _sentence(error: Any, who: str, kernel: str = "") -> str:
    template = _SENTENCES.get(error.value, f"{{who}} cannot be used: NVML says {str(error)!r}.")
    return template.format(who=who, kernel=kernel)
