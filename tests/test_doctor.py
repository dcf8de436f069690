"""`advisor doctor`: one line a check, and what counts as broken."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import replace

import pytest
from known import HOST

from profiles.errors import ExitCode, UserError
from profiles.facts import GIB, Gpu, Origin
from profiles.machines import machine, torch_build
from runner.checks import gpu_checks, imports
from tui.commands import doctor

GPU = Gpu(
    index=0,
    name="RTX 4090",
    vendor="nvidia",
    vram_bytes=24 * GIB,
    vram_free_bytes=24 * GIB,
    origin=Origin.MEASURED,
)
BOX = replace(HOST, backend="cuda", gpus=(GPU, GPU))


@pytest.fixture
def sound(monkeypatch):
    """Everything is installed, in the version that is wanted at least; the machine has no GPU."""
    versions = dict(doctor._PACKAGES)
    found = {"machine": HOST, "torch": None}
    monkeypatch.setattr(machine, "probe", lambda _home: found["machine"])
    monkeypatch.setattr(torch_build, "installed", lambda: found["torch"])
    monkeypatch.setattr(imports, "fault", lambda _name: "")
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: versions.get(name) or real(name)
    )
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if versions.get(name) == "" else object()
    )
    monkeypatch.setattr("tui.commands.doctor.installation.home_of", lambda _package: "/here")
    return versions, found


def checked(capsys):
    """Exit code, and verdict and words by what was checked."""
    code = doctor.doctor()
    rows = [row.split(maxsplit=2) for row in capsys.readouterr().out.splitlines()]
    return code, [(name, verdict, words) for verdict, name, words in rows]


def test_what_takes_long_on_a_busy_machine_is_slow_and_not_broken(sound, monkeypatch, capsys):
    """It may go all the same, so the exit code is that of a sound installation."""
    monkeypatch.setattr(imports, "fault", lambda _name: f"{imports.SLOW} 60 s")

    code, rows = checked(capsys)

    (row,) = [row for row in rows if row[1] == "slow"]
    assert (code, row[0]) == (0, "bitsandbytes")
    assert "the load is" in row[2]
    assert "BAD" not in {verdict for _, verdict, _ in rows}


def test_a_sound_installation(sound, capsys, home):
    """Every line is ok: Python, ourselves, the runs' place, each package, the devices."""
    code, rows = checked(capsys)

    assert code == 0
    assert [name for name, _, _ in rows] == [
        *("python", "tunedeck", "runs"),
        *("torch", "transformers", "peft", "trl", "accelerate", "datasets", "safetensors"),
        *("bitsandbytes", "devices"),
    ]
    assert {verdict for _, verdict, _ in rows} == {"ok"}
    told = {name: words for name, _, words in rows}
    assert told["runs"] == str(home / "runs")
    assert told["peft"] == doctor._PACKAGES["peft"]
    assert told["devices"] == "no GPU: training runs on the CPU"


def test_a_package_that_is_missing_is_a_note(sound, capsys):
    """Planning needs none of them."""
    versions, _ = sound
    wanted = versions["trl"]
    versions["trl"] = ""

    code, rows = checked(capsys)

    assert code == 0
    assert ("trl", "note", f"not installed; training needs trl >= {wanted}") in rows


def test_a_package_that_is_too_old_is_broken(sound, capsys):
    """With what is needed."""
    versions, _ = sound
    wanted = versions["trl"]
    versions["trl"] = "0.1"

    code, rows = checked(capsys)

    assert code == 1
    assert ("trl", "BAD", f"0.1, needs {wanted} or newer") in rows


def test_a_package_that_cannot_be_imported_is_broken(sound, capsys, monkeypatch):
    """It is tried in a child, where it is installed."""
    versions, _ = sound
    monkeypatch.setattr(imports, "fault", lambda name: f"{name} raised")

    code, rows = checked(capsys)
    assert code == 1
    assert ("bitsandbytes", "BAD") in {(name, verdict) for name, verdict, _ in rows}
    assert any(words.startswith("cannot be used: bitsandbytes raised") for _, _, words in rows)

    versions["bitsandbytes"] = ""
    assert checked(capsys)[0] == 0


def test_the_gpus_are_counted_and_notes_are_told(sound, capsys):
    """Only a driver's fault is broken."""
    _, found = sound
    found["machine"] = replace(BOX, notes=("one is hot",))
    code, rows = checked(capsys)
    assert (code, rows[-2:]) == (
        0,
        [("devices", "ok", "2 GPUs"), ("devices", "note", "one is hot")],
    )

    found["machine"] = replace(HOST, gpu_fault="it is sick", notes=("it is sick", "a note"))
    code, rows = checked(capsys)
    assert code == 1
    assert rows[-2:] == [("devices", "BAD", "it is sick"), ("devices", "note", "a note")]


def test_a_torch_that_does_not_go_with_the_driver_is_broken(sound, capsys, monkeypatch):
    """It is asked on a machine with CUDA that has torch."""
    _, found = sound

    def refuse(_machine, _build):
        raise UserError("too old", why="w", do="update it", where="p", code=ExitCode.REFUSED)

    monkeypatch.setattr(gpu_checks, "check_torch", refuse)
    codes = []
    for target, build in ((HOST, "2.13"), (BOX, None), (BOX, "2.13")):
        found["machine"], found["torch"] = target, build
        code, rows = checked(capsys)
        codes.append(code)

    assert codes == [0, 0, 1]
    monkeypatch.setattr(gpu_checks, "check_torch", lambda *_: None)
    assert checked(capsys)[0] == 0
    assert ("torch", "BAD", "too old; update it") in rows


def test_a_place_for_runs_that_cannot_be_written_is_broken(sound, capsys, monkeypatch):
    """The nearest folder that exists decides."""
    asked = []

    def access(path, mode):
        asked.append((path, mode))
        return False

    monkeypatch.setattr("os.access", access)

    code, rows = checked(capsys)

    assert code == 1
    assert [verdict for name, verdict, _ in rows if name == "runs"] == ["BAD"]
    ((path, mode),) = asked
    assert (path.is_dir(), mode) == (True, 2)
