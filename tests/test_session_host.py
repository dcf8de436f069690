"""Logout, batch jobs and mounts: what ends or delays a run from outside."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from profiles.runs import session_host
from profiles.runs.session_host import Login

MOUNTS = """\
/dev/vda / ext4 rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
filer:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb /home/local xfs rw 0 0
mgs@tcp:/work /scratch lustre rw 0 0
filer:/odd /mnt/with\\040space cifs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("text", "expected"), [("b true\n", True), ("b false\n", False), ("", False), ("x", False)]
)
def test_whether_logind_kills_is_read_from_busctl(text, expected):
    """`busctl get-property` prints the type and the value."""
    assert session_host.parse_kills(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("Linger=yes\n", True), ("Linger=no\n", False), ("", False)]
)
def test_whether_a_user_lingers_is_read_from_loginctl(text, expected):
    """`loginctl show-user --property=Linger`."""
    assert session_host.parse_linger(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("running\n", True), ("degraded\n", True), ("offline\n", False), ("", False)],
)
def test_whether_a_user_manager_answers_is_read_from_systemctl(text, expected):
    """A manager with a failed unit still keeps scopes."""
    assert session_host.parse_manager(text) is expected


@pytest.mark.parametrize(
    ("login", "warned", "wrapped"),
    [
        (Login(), False, False),
        (Login(kills=True), True, False),
        (Login(kills=True, has_manager=True), True, False),
        (Login(kills=True, lingers=True), True, False),
        (Login(kills=True, lingers=True, has_manager=True), False, True),
        (Login(lingers=True, has_manager=True), False, False),
    ],
)
def test_a_host_that_kills_at_logout_is_told_or_outlived(
    monkeypatch, tmp_path, login, warned, wrapped
):
    """A scope of the lingering user's manager stays; anything else is said before the launch."""
    monkeypatch.setattr(session_host, "login", lambda: login)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    told = session_host.warnings(tmp_path)
    command = session_host.scope_command("tunedeck-r42-1")

    advice = "this host kills processes on logout; run `loginctl enable-linger`"
    assert (advice in told) is warned
    assert (command[:3] == ["systemd-run", "--user", "--scope"]) is wrapped
    assert ("--unit=tunedeck-r42-1" in command) is wrapped


def test_a_host_without_systemd_is_not_asked(monkeypatch):
    """A container has no logind, and setsid is enough there."""
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    monkeypatch.setattr(session_host, "_ask", pytest.fail)

    assert session_host.login() == Login()


def stub(folder, name, script):
    """Put a program on the path."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(0o755)
    return path


def test_an_allocation_is_named_with_its_end(monkeypatch, tmp_path):
    """Its end comes from squeue."""
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 7230))
    stub(
        tmp_path / "bin", "squeue", f"import sys; print({end!r} if '--jobs=123' in sys.argv else 0)"
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    text = session_host.slurm_warning({"SLURM_JOB_ID": "123"})

    assert text.startswith("the run dies with Slurm job 123 at ")
    assert text.endswith("(2 h left)")


@pytest.mark.parametrize(
    ("seconds", "left"), [(7200, "(2 h left)"), (5400, "(1 h 30 min left)"), (600, "(10 min left)")]
)
def test_the_time_that_is_left_is_told(seconds, left):
    """In hours and minutes."""
    now = time.mktime((2026, 11, 22, 12, 0, 0, 0, 0, -1))

    assert session_host.slurm_text("7", now + seconds, now).endswith(left)


def test_a_silent_scheduler_still_gives_a_warning(monkeypatch, tmp_path):
    """Without an end, and without waiting."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "dies with Slurm job 9;" in session_host.slurm_warning({"SLURM_JOB_ID": "9"})


@pytest.mark.parametrize("job", ["", "x; reboot", "-1"])
def test_no_allocation_no_warning(job):
    """What is no job number is not given to any program."""
    assert session_host.slurm_warning({"SLURM_JOB_ID": job}) == ""


def test_a_program_that_hangs_is_given_up(tmp_path):
    """The limit is kept."""
    slow = stub(tmp_path, "squeue", "import time; time.sleep(60)")
    began = time.monotonic()

    assert session_host.run_briefly([str(slow)], timeout=0.3) == ""
    assert time.monotonic() - began < 30


def test_a_program_that_is_missing_or_fails_says_nothing(tmp_path):
    """No error reaches the launch."""
    failing = stub(tmp_path, "loginctl", "raise SystemExit(3)")

    assert session_host.run_briefly([""]) == ""
    assert session_host.run_briefly([str(tmp_path / "none")]) == ""
    assert session_host.run_briefly([str(failing)]) == ""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/runs", "nfs4"),
        ("/home/local/runs", "xfs"),
        ("/scratch/me", "lustre"),
        ("/mnt/with space/x", "cifs"),
        ("/var", "ext4"),
    ],
)
def test_the_mount_of_a_folder_is_the_longest_that_fits(path, kind):
    """Also with the table's escapes."""
    assert session_host.kind_of_mount(MOUNTS, Path(path)) == kind


def test_a_network_file_system_is_told(monkeypatch, tmp_path):
    """Readers elsewhere see updates later."""
    monkeypatch.setattr(session_host, "kind_of_mount", lambda *_: "nfs4")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    assert "runs are kept on NFS: updates may lag 3 to 60 s" in session_host.warnings(tmp_path)
