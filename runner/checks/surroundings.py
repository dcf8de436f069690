"""What around a run changes the bits of its result, as far as it is seen without torch.

Sums are ordered by the number of threads, by the processor's widest instructions and by the GPU's
kernels; torch, MKL and CUDA read the environment for which of them to take.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from profiles.facts import Machine

_READ_BY_TORCH: Final = (
    *("ATEN_", "BLAS_", "CUBLAS", "CUDA_", "CUDNN", "DNNL_", "GOMP_", "KMP_", "MKL_", "NCCL_"),
    *("NVIDIA_TF32", "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "TORCH_"),
)
_WITHOUT_EFFECT: Final = {
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "CUDA_PATH", "OMP_WAIT_POLICY"),
    *("TORCH_HOME", "TORCH_LOGS", "TORCH_SHOW_CPP_STACKTRACES", "NCCL_DEBUG"),
}
"""On results: they choose devices that are told otherwise, places, logs, and how to wait."""
_AVX512: Final = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
_AVX2: Final = {"avx2", "fma"}
_CPU_INFO: Final = Path("/proc/cpuinfo")


def surroundings(
    here: Machine, devices: Sequence[str], environment: Mapping[str, str]
) -> dict[str, str]:
    """Name -> value; `devices`: the GPUs to be used, by UUID or number, none on a CPU."""
    gpus = [gpu for gpu in here.gpus if {gpu.uuid, str(gpu.index)} & set(devices)]
    found = {
        "processors": str(num_processors()),
        "processor": here.cpu_name,
        "instructions": instructions(),
        "GPU": ", ".join(gpu.name for gpu in gpus) or "none",
        "driver": (here.driver or "none") if gpus else "none",
    }
    names = [name for name in environment if name.startswith(_READ_BY_TORCH)]
    wanted = {name: environment[name] for name in names if name not in _WITHOUT_EFFECT}
    return found | {f"${name}": wanted[name] for name in sorted(wanted)}


def num_processors() -> int:
    """As many as this process may use: torch starts its threads by them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def instructions() -> str:
    """The widest vector instructions that torch's kernels know and the processor has."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
        flags = set(next(line.split()[2:] for line in lines if line.startswith("flags")))
    except (OSError, StopIteration):
        return "unknown"
    if flags >= _AVX512 | _AVX2:
        return "AVX512"
    return "AVX2" if flags >= _AVX2 else "default"
