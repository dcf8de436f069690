"""GPUs that are taken, drivers and packages that do not fit together: told before a run starts."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace

import pytest

from advisor import recipe as recipes
from advisor.choice.devices import crowded
from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, Gpu, GpuProcess, Machine, Origin
from profiles.machines import machine, torch_build
from profiles.machines.torch_build import TorchBuild, driver_is_too_old
from runner.checks import gpu_checks, imports, preflight
from tui.commands import doctor

CUDA_13 = TorchBuild(version="2.13.0+cu130", cuda="13.0")
BOB = GpuProcess(pid=4711, name="python", user="bob", vram_bytes=61 * GIB)


def gpu(free_gib: float = 80, *, index: int = 0, **more) -> Gpu:
    """Build an 80 GiB card."""
    return Gpu(
        index=index,
        name="A100",
        vendor="nvidia",
        vram_bytes=80 * GIB,
        vram_free_bytes=int(free_gib * GIB),
        origin=Origin.MEASURED,
        **{"has_bf16": True, "compute_capability": "8.0"} | more,
    )


def box(*gpus: Gpu, **more) -> Machine:
    """Build a host with them."""
    return Machine(
        host="box",
        backend="cuda" if gpus else "cpu",
        gpus=gpus,
        cpu_name="a processor",
        num_cores=8,
        num_threads=16,
        ram_bytes=64 * GIB,
        ram_free_bytes=60 * GIB,
        disk_path="/",
        disk_free_bytes=500 * GIB,
        origin=Origin.MEASURED,
        **{"driver": "550.54.15", "cuda_version": "12.4"} | more,
    )


def refusal(here: Machine, *, precision: str = "bf16", torch: TorchBuild | None = None):
    """What the checks say of this machine."""
    with pytest.raises(UserError) as caught:
        gpu_checks.check(here, 1, precision, torch)
    assert caught.value.code is ExitCode.DRIVER
    return caught.value


def passes(here: Machine, *, precision: str = "bf16", torch: TorchBuild | None = None) -> None:
    """The checks have nothing to say of this machine, or raise."""
    gpu_checks.check(here, 1, precision, torch)


@pytest.mark.parametrize(
    ("free_gib", "needed_gib", "in_the_way"),
    [(19, 30, True), (19, 18, False), (80, 79, False), (19, 90, False), (79.5, 79.8, False)],
)
def test_others_are_in_the_way_only_of_what_would_fit_without_them(
    free_gib, needed_gib, in_the_way
):
    """Not of what fits beside them, not of what fits nowhere; a driver's reserve is nobody."""
    found = crowded(box(gpu(free_gib)), 1, needed_gib * GIB)

    assert in_the_way == bool(found)


def test_only_the_gpus_that_a_run_would_take_are_judged():
    """The emptiest: the full one beside it is left alone."""
    here = box(gpu(19), gpu(80, index=1))

    assert crowded(here, 1, 30 * GIB) == ()
    assert [g.index for g in crowded(here, 2, 30 * GIB)] == [0]


@pytest.fixture
def small_recipe(tiny_model, orders):
    """A recipe for the tiny model, and the folder of its data."""
    text = (
        f'schema = 1\nname = "tiny"\n[model]\nid = "{tiny_model}"\n'
        f'[data]\ntrain = "{orders.name}"\n[method]\nname = "lora"\n'
    )
    return recipes.parse(text, where="r"), orders.parent


def on(here, monkeypatch, torch=None):
    """Let the machine be this one."""
    monkeypatch.setattr(machine, "probe", lambda *_, **__: here)
    monkeypatch.setattr(torch_build, "installed", lambda: torch)


def test_a_gpu_full_of_somebody_else_is_refused_with_who_it_is(small_recipe, monkeypatch):
    """Who, which process, how much; `--share` starts all the same."""
    taken = gpu(0.05, holders=(replace(BOB, vram_bytes=79 * GIB),))
    on(box(taken), monkeypatch)

    with pytest.raises(UserError) as caught:
        preflight.check(*small_recipe)

    assert caught.value.code is ExitCode.DRIVER
    assert caught.value.what == "GPU 0: 80.0 GiB of 80.0 GiB used by bob (python 4711, 80896 MiB)"
    assert "--share" in caught.value.do
    shared = preflight.check(*small_recipe, share=True)
    assert any("it may run out of memory" in warning for warning in shared.warnings)


def test_a_gpu_with_room_beside_somebody_is_used(small_recipe, monkeypatch):
    """The tiny model fits beside 61 GiB of others."""
    on(box(gpu(19, holders=(BOB,))), monkeypatch)

    assert preflight.check(*small_recipe).devices == ("0",)


def test_memory_held_by_nobody_that_can_be_seen_counts_too(small_recipe, monkeypatch):
    """Another container's processes have no names here."""
    on(box(gpu(0.05)), monkeypatch)

    with pytest.raises(UserError, match="processes that cannot be seen from here"):
        preflight.check(*small_recipe)


@pytest.mark.parametrize(
    "fault",
    [
        "The NVIDIA driver and its library differ in version (kernel module 460.56): a reboot",
        "The NVIDIA driver is not answering (waited 5 s).",
    ],
)
def test_a_sick_driver_is_refused_instead_of_training_on_the_cpu(fault):
    """Exit code 71, the driver's own reason, and how to want the CPU."""
    error = refusal(box(gpu_fault=fault))

    assert error.why == fault
    assert "CUDA_VISIBLE_DEVICES=" in error.do
    assert "existing runs may go on" in error.do


def test_a_machine_without_gpu_is_no_fault(small_recipe, monkeypatch):
    """It trains on the CPU, which is told."""
    on(box(driver=None, cuda_version=None), monkeypatch, torch=CUDA_13)

    warnings = preflight.check(*small_recipe).warnings

    assert "there is no GPU: this trains on the CPU, which takes long" in warnings


@pytest.mark.parametrize(
    ("driver_cuda", "torch_cuda", "expected"),
    [("12.4", "13.0", True), ("12.4", "12.8", False), ("13.0", "12.8", False), ("9.2", "12", True)],
)
def test_a_driver_runs_every_toolkit_of_its_own_major_version(driver_cuda, torch_cuda, expected):
    """NVIDIA's rule of minor version compatibility."""
    assert expected == driver_is_too_old(driver_cuda, torch_cuda)


def test_a_driver_too_old_for_torch_is_told_with_both_versions():
    """Needed and found."""
    error = refusal(box(gpu()), torch=CUDA_13)

    assert "CUDA 13.0 is needed, the driver knows up to 12.4" in error.what
    assert "install a torch built for CUDA 12" in error.do
    passes(box(gpu(), cuda_version="13.1"), torch=CUDA_13)
    passes(box(gpu(), cuda_version=None), torch=CUDA_13)


def test_a_torch_without_cuda_beside_a_gpu_is_refused():
    """It would silently train on the CPU."""
    error = refusal(box(gpu()), torch=replace(CUDA_13, version="2.13.0+cpu", cuda=None))

    assert "built without CUDA; it would train on the CPU" in error.why


def test_bf16_on_a_card_without_it_is_refused_with_what_to_set():
    """T4 and V100; fp16 and unknown abilities pass."""
    old = box(gpu(has_bf16=False))

    assert refusal(old, precision="bf16").do == "add --set train.precision=fp16"
    passes(old, precision="fp16")
    passes(box(gpu(has_bf16=None)))


VERSION_FILE = """from typing import Optional
__all__ = ['cuda']
__version__ = '2.13.0+cu130'
cuda: Optional[str] = '13.0'
hip: Optional[str] = None
"""


def test_the_build_of_torch_is_read_without_importing_it(tmp_path):
    """From its version file; a damaged or strange one tells nothing."""
    path = tmp_path / "version.py"
    path.write_text(VERSION_FILE)

    assert torch_build.read(path) == CUDA_13
    for content in (b"", b"cuda = (", b"\xff\x00", b"raise SystemExit"):
        path.write_bytes(content)
        assert torch_build.read(path) is None
    assert torch_build.read(tmp_path / "none") is None


def test_the_installed_torch_tells_its_build():
    """The file that is read is that of the real package."""
    torch = pytest.importorskip("torch")

    assert torch_build.installed().version == torch.__version__
    assert torch_build.installed().cuda == torch.version.cuda


STUBS = {
    "raises": ("raise RuntimeError('CUDA Setup failed')", "RuntimeError: CUDA Setup failed"),
    "crashes": ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
    "hangs": ("import time; time.sleep(60)", "takes longer than 1 s"),
    "leaves": ("import sys; sys.exit(3)", "no reason was given"),
    "works": ("", ""),
}


@pytest.mark.parametrize("name", STUBS)
def test_a_package_that_raises_crashes_or_hangs_is_found_out_in_a_child(
    name, tmp_path, monkeypatch
):
    """And we are none the worse for it."""
    code, expected = STUBS[name]
    (tmp_path / "stub_package.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()

    found = imports.fault("stub_package", timeout_seconds=1 if name == "hangs" else 30)

    assert expected in found
    assert bool(found) == bool(expected)
    assert time.monotonic() - began < 30


def test_a_broken_bitsandbytes_is_refused_with_the_pip_line(small_recipe, tmp_path, monkeypatch):
    """Before the run, where the recipe needs it and the machine has a GPU."""
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "bitsandbytes.py").write_text("raise RuntimeError('no CUDA')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stubs"))
    recipe, folder = small_recipe
    on(box(gpu()), monkeypatch)

    with pytest.raises(UserError, match="bitsandbytes") as caught:
        preflight.check(recipe.model_copy(update={"method": _qlora()}), folder)

    assert caught.value.code is ExitCode.DRIVER
    assert caught.value.why == "RuntimeError: no CUDA"
    assert caught.value.do.startswith("pip install")


def _qlora():
    text = (
        'schema = 1\nname = "n"\n[model]\nid = "m"\n[data]\ntrain = "d"\n[method]\nname = "qlora"\n'
    )
    return recipes.parse(text, where="r").method


def test_the_doctor_tells_a_sick_driver_and_a_broken_package(monkeypatch, capsys):
    """As BAD, with exit code 1."""
    on(box(gpu_fault="it is sick", notes=("it is sick", "a note")), monkeypatch)
    monkeypatch.setattr(imports, "fault", lambda _: "RuntimeError: no CUDA")

    code = doctor.doctor()

    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert code == 1
    assert "BAD devices it is sick" in shown
    assert "note devices a note" in shown
    if importlib.util.find_spec("bitsandbytes"):
        assert any("BAD bitsandbytes cannot be used" in line for line in shown)
