"""What the installed torch was built for, read from its files: importing it takes seconds."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchBuild:
    """One torch wheel."""

    version: str
    cuda: str | None
    """The CUDA toolkit it brings, like "13.0"; None for a build without CUDA."""


def installed() -> TorchBuild | None:
    """The torch that a worker would import; None if there is none or it tells nothing."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    return read(Path(spec.origin).with_name("version.py"))


def read(version_file: Path) -> TorchBuild | None:
    """What torch/version.py says; None if it cannot be read."""
    try:
        tree = ast.parse(version_file.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return None
    said: dict[str, str] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        name = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(name, ast.Name) and isinstance(node.value, ast.Constant):
            said[name.id] = node.value.value if isinstance(node.value.value, str) else ""
    if "__version__" not in said:
        return None
    return TorchBuild(version=said["__version__"], cuda=said.get("cuda") or None)


def driver_is_too_old(driver_cuda: str, torch_cuda: str) -> bool:
    """Whether a driver that runs up to `driver_cuda` cannot run a torch built for `torch_cuda`.

    Within one major version an older driver runs newer toolkits: NVIDIA, CUDA Compatibility,
    "Minor Version Compatibility".
    """
    return int(driver_cuda.partition(".")[0]) < int(torch_cuda.partition(".")[0])
