"""Our packages are ours: in a hostile directory, under a shadow, and from a wheel."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from small_model import recipe_text, small_model

from profiles import chat_families, installation
from profiles.errors import ExitCode, UserError
from tui.main import run as advisor_here

ROOT = Path(__file__).parent.parent
PACKAGES = installation.PACKAGES


@pytest.fixture
def hostile(tmp_path):
    """A working directory with files and folders of all four names that leave a mark."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    mark = f"open({str(tmp_path / 'fired')!r}, 'a').write(__file__ + chr(10))"
    for name in PACKAGES:
        (folder / f"{name}.py").write_text(mark)
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(mark)
    return folder


def test_a_hostile_working_directory_is_never_imported_by_the_command(advisor, hostile, tmp_path):
    """Nor by anything that the command starts."""
    for command in (["probe"], ["runs"], ["doctor"], ["--help"]):
        assert advisor(*command, cwd=hostile).returncode == 0

    assert not (tmp_path / "fired").exists()


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_a_stranger_on_pythonpath_is_named_and_not_run(advisor, tmp_path, name, is_folder):
    """PYTHONPATH comes before what is installed; `advisor` says which file is in the way."""
    mark = tmp_path / "fired"
    file = tmp_path / name / "__init__.py" if is_folder else tmp_path / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"open({str(mark)!r}, 'w')")

    done = advisor("runs", PYTHONPATH=str(tmp_path))

    assert (done.returncode, done.stdout) == (ExitCode.REFUSED, "")
    assert f"where: {file}\n" in done.stderr
    assert "env -u PYTHONPATH" in done.stderr
    assert not mark.exists()
    assert advisor("runs").returncode == 0  # what it advises


def test_a_shadowing_package_is_named(monkeypatch, tmp_path):
    """Another distribution that ships `runner` must not be run as ours."""
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "runner", raising=False)

    with pytest.raises(UserError, match="'runner'") as caught:
        installation.check()

    assert str(tmp_path) in caught.value.why


SAFE = {
    "torch": "2.13.0+cpu",
    "transformers": "5.23.0",
    "datasets": "5.2.0",
    "safetensors": "0.8.0",
}


@pytest.fixture
def versions(monkeypatch):
    """Make the environment say that it holds these versions."""

    def pretend(**changes):
        known = SAFE | changes
        real = importlib.metadata.version

        def version(name):
            if known.get(name, "") is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return known.get(name) or real(name)

        monkeypatch.setattr(importlib.metadata, "version", version)

    return pretend


@pytest.mark.parametrize(
    ("package", "version"),
    [
        *(("torch", "2.9.1+cu128"), ("torch", "2.10.0rc1"), ("torch", "1.13")),
        *(("transformers", "5.2.9"), ("transformers", "5.3.0.dev0"), ("transformers", "4.99.9")),
        *(("datasets", "5.1.0"), ("safetensors", "0.7.9")),
    ],
)
def test_a_package_with_known_holes_is_refused(versions, package, version):
    """Exit code 77, the version that was found, and the line that repairs it."""
    versions(**{package: version})

    with pytest.raises(UserError, match="too old to be safe") as caught:
        installation.check_floors()

    error = caught.value
    assert (error.code, f"{package} {version}" in error.what) == (77, True)
    assert f"pip install --upgrade '{package}>={installation.FLOORS[package]}'" == error.do


@pytest.mark.parametrize(
    ("package", "version"),
    [
        *(("torch", "2.10"), ("torch", "2.10.0+cu130"), ("torch", "3.0.0.dev1")),
        *(
            ("transformers", "5.3.0"),
            ("safetensors", "0.8.0"),
            ("datasets", None),
            ("torch", "own"),
        ),
    ],
)
def test_a_package_at_its_floor_above_it_or_not_there_passes(versions, package, version):
    """What is missing is told elsewhere; a build without a version is its builder's business."""
    versions(**{package: version})

    installation.check_floors()


def test_the_floors_are_what_the_project_asks_for():
    """Pip keeps them too, where it is asked."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = set(extra["optional-dependencies"]["train"])

    assert {f"{name}>={floor}" for name, floor in installation.FLOORS.items()} <= wanted


def test_old_packages_stop_a_run_before_anything_is_read(versions, tmp_path, capsys):
    """Through the command."""
    versions(transformers="5.2.0")
    small_model(tmp_path / "model")
    (tmp_path / "rows.json").write_text("never read")
    (tmp_path / "r.toml").write_text(recipe_text())

    assert advisor_here(["run", str(tmp_path / "r.toml"), "--dry-run"]) == 77
    assert "transformers 5.2.0" in capsys.readouterr().err


def test_every_dependency_is_pinned_for_development_and_ci():
    """One exact version each, so that a new release cannot change what was tested."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = {_name(line) for lines in (project["dependencies"], *extras) for line in lines}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))

    assert asked - {_name(name) for name in pins} == set()
    assert all(version[0].isdigit() for version in pins.values())


def _name(requirement):
    """Its normal form: lower case, dashes."""
    return re.split(r"[<>=\[ ;]", requirement)[0].lower().replace("_", "-")


def test_the_ready_recipes_are_found_in_a_checkout():
    """Some for each method, and one for each use that the documents name."""
    assert len(list(installation.recipes_dir().glob("*.toml"))) >= 14


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_carries_code_recipes_and_nothing_else(wheel):
    """No tests, and no import package called recipes."""
    names = zipfile.ZipFile(wheel).namelist()

    tops = {n.split("/")[0] for n in names if ".dist-info" not in n}
    assert tops == {*PACKAGES, "tunedeck.py"}
    assert any(n.startswith("advisor/recipes/") and n.endswith(".toml") for n in names)
    templates = {f"profiles/chat_families/{n}.jinja" for n in chat_families.names()}
    assert len(templates) > 10
    assert templates <= set(names)


def test_the_wheel_works_from_another_directory(wheel, tmp_path):
    """Unpacked somewhere, with the checkout out of sight, it plans and finds its recipes."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); sys.path.remove({str(ROOT)!r})\n"
        "from profiles import installation\n"
        "installation.check()\n"
        "print(installation.home_of('tui'), len(list(installation.recipes_dir().glob('*.toml'))))\n"
        "from tui.main import run\n"
        "raise SystemExit(run(['probe', '--json']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    first, *rest = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert first.split()[0] == str(site)
    assert int(first.split()[1]) >= 6
    assert '"backend"' in "".join(rest)


def test_the_command_is_installed():
    """`advisor` belongs to this distribution."""
    (script,) = importlib.metadata.distribution("tunedeck").entry_points

    assert (script.name, script.value) == ("advisor", "tunedeck:main")


def test_the_module_starts_the_command_too():
    """`python -m tunedeck` says something, and leaves with the command's exit code."""

    def called(word):
        command = [sys.executable, "-m", "tunedeck", word]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    shown = called("--version")
    assert (shown.returncode, shown.stdout.startswith("tunedeck ")) == (0, True)
    assert called("nonsense").returncode == ExitCode.USAGE
