"""Our packages are ours: in a hostile directory, under a shadow, and from a wheel."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from profiles import installation
from profiles.errors import UserError

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


def test_a_shadowing_package_is_named(monkeypatch, tmp_path):
    """Another distribution that ships `runner` must not be run as ours."""
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "runner", raising=False)

    with pytest.raises(UserError, match="'runner'") as caught:
        installation.check()

    assert str(tmp_path) in caught.value.why


def test_the_ready_recipes_are_found_in_a_checkout():
    """At least the six that are promised."""
    assert len(list(installation.recipes_dir().glob("*.toml"))) >= 6


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
    assert tops == set(PACKAGES)
    assert any(n.startswith("advisor/recipes/") and n.endswith(".toml") for n in names)


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

    assert (script.name, script.value) == ("advisor", "tui.main:main")
