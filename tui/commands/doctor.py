"""`advisor doctor`: whether everything is in place."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys

from profiles import installation
from profiles.errors import UserError
from profiles.facts import Machine
from profiles.machines import machine, torch_build
from profiles.runs import rundir
from runner.checks import gpu_checks, imports
from tui import plain

_PACKAGES = {
    "torch": "2.10",
    "transformers": "5.3",
    "peft": "0.21",
    "trl": "1.16",
    "accelerate": "1.12",
    "datasets": "5.2",
    "safetensors": "0.8",
    "bitsandbytes": "0.49",
}


def doctor() -> int:
    """Print one line a check; exit code 1 if one failed."""
    found = machine.probe(installation.home())
    rows = [_python(), _ours(), _home(), *map(_package, _PACKAGES), *_imports(), *_torch(found)]
    gpus = f"{len(found.gpus)} GPUs" if found.gpus else "no GPU: training runs on the CPU"
    rows.append(("ok", "devices", gpus))
    rows += [
        ("BAD" if note == found.gpu_fault else "note", "devices", note) for note in found.notes
    ]
    plain.show(plain.table(rows))
    return int(any(verdict == "BAD" for verdict, _, _ in rows))


def _python() -> tuple[str, str, str]:
    return "ok", "python", f"{sys.version.split()[0]} at {sys.prefix}"


def _ours() -> tuple[str, str, str]:
    return "ok", "tunedeck", f"{installation.version()} at {installation.home_of('profiles')}"


def _home() -> tuple[str, str, str]:
    home = installation.home()
    place = next(p for p in (home, *home.parents) if p.exists())
    writable = os.access(place, os.W_OK)
    return ("ok" if writable else "BAD"), "runs", f"{rundir.run_root()}"


def _package(name: str) -> tuple[str, str, str]:
    if importlib.util.find_spec(name) is None:
        return "note", name, f"not installed; training needs {name} >= {_PACKAGES[name]}"
    version = importlib.metadata.version(name)
    if installation.is_older(version, _PACKAGES[name]):
        return "BAD", name, f"{version}, needs {_PACKAGES[name]} or newer"
    return "ok", name, version


def _imports() -> list[tuple[str, str, str]]:
    """The package that breaks most often, tried in a child; it brings torch with it."""
    installed = importlib.util.find_spec("bitsandbytes") is not None
    fault = imports.fault("bitsandbytes") if installed else ""
    if fault.startswith(imports.SLOW):
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        busy = f"{fault}; the load is {load:.1f} on {cores} cores, so nothing is said of it"
        return [("slow", "bitsandbytes", busy)]
    advice = "pip install --force-reinstall 'bitsandbytes>=0.49'"
    return [("BAD", "bitsandbytes", f"cannot be used: {fault}; {advice}")] if fault else []


def _torch(found: Machine) -> list[tuple[str, str, str]]:
    """Whether torch and the driver go together."""
    build = torch_build.installed()
    if build is None or found.backend != "cuda":
        return []
    try:
        gpu_checks.check_torch(found, build)
    except UserError as error:
        return [("BAD", "torch", f"{error.what}; {error.do}")]
    return []
