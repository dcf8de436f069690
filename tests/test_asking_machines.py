"""The answer for a planned machine is the same wherever it is asked: bytes of page and JSON."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import NamedTuple

import pytest
from known import HOST

from profiles.errors import ExitCode
from profiles.facts import GIB, Gpu, Origin
from profiles.machines import machine
from tui.main import run

GPU = Gpu(
    index=0,
    name="RTX 4090",
    vendor="nvidia",
    vram_bytes=24 * GIB,
    vram_free_bytes=GIB,
    origin=Origin.MEASURED,
)


class Usage(NamedTuple):
    """As shutil tells it."""

    total: int
    used: int
    free: int


def asking(number):
    """One of ten machines: RAM, disk, GPUs, processor; and its locale."""
    here = replace(
        HOST,
        host=f"box{number}",
        ram_bytes=(4 << number) * GIB,
        ram_free_bytes=(1 << number) * GIB,
        disk_free_bytes=number * 50 * GIB,
        cpu_name=f"cpu {number}",
        num_cores=1 << number,
        num_threads=2 << number,
        disk_path=f"/disk{number}",
        gpus=(GPU,) * (number % 4),
        backend="cuda" if number % 4 else "cpu",
        notes=(f"note {number}",),
    )
    names = ("C.UTF-8", "de_DE.UTF-8", "tr_TR.UTF-8", "zh_CN.UTF-8", "ar_EG.UTF-8", "")
    return here, names[number % len(names)]


@pytest.fixture
def ask(capsys, monkeypatch, tmp_path):
    """What is answered on one of the machines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")

    def asked(number, arguments):
        here, locale = asking(number)
        monkeypatch.setattr(machine, "probe", lambda *_args, **_more: here)
        monkeypatch.setattr(os, "cpu_count", lambda: here.num_threads)
        free = Usage(1 << 60, 0, here.disk_free_bytes)
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
        for name in ("LC_ALL", "LANG"):
            monkeypatch.setenv(name, locale)
        code = run([*arguments])
        said = capsys.readouterr()
        assert said.err == ""
        return code, said.out

    return asked


@pytest.mark.parametrize("form", [[], ["--json"], ["--explain"]])
@pytest.mark.parametrize(
    "named",
    [
        ["recommend", "--gpu", "8x H100"],
        ["recommend", "--gpu", "2x RTX 4090", "--ram", "32G", "--disk", "90G", "--critical"],
        ["recommend", "--gpu", "2 nodes of 8x A100 80GB", "--no-value"],
        ["recommend", "--compare", "T4", "8x H100"],
    ],
)
def test_ten_machines_answer_alike(ask, named, form):
    """Nothing of the machine that asks is in the answer."""
    if "--compare" in named and form == ["--explain"]:
        form = ["--price", "1", "--price", "9"]
    arguments = [*named, "--model", "meta-llama/Llama-3.1-8B", *form]
    if "--compare" in named:
        arguments = [*arguments[:1], *arguments[4:], *arguments[1:4]]

    answers = {ask(number, arguments) for number in range(10)}

    assert len(answers) == 1
    ((_, told),) = answers
    assert "box" not in told


def test_where_ram_and_disk_are_known_from_is_told(ask):
    """On the page and in JSON; without --gpu they are measured."""
    base = ["recommend", "--model", "meta-llama/Llama-3.1-8B", "--json"]
    assumed = json.loads(ask(1, [*base, "--gpu", "8x H100"])[1])["machine"]
    said = json.loads(ask(1, [*base, "--gpu", "8x H100", "--ram", "1T", "--disk", "2T"])[1])
    here = json.loads(ask(5, base)[1])["machine"]
    page = ask(1, ["recommend", "--model", "meta-llama/Llama-3.1-8B", "--gpu", "8x H100"])[1]

    assert (assumed["ram_origin"], assumed["disk_origin"]) == ("default", "default")
    assert assumed["ram_free_bytes"] == 2 * 637 * GIB + 2 * GIB
    assert said["machine"]["ram_free_bytes"] == 1 << 40
    assert (said["machine"]["ram_origin"], said["machine"]["disk_origin"]) == ("user", "user")
    assert (here["ram_origin"], here["ram_free_bytes"]) == ("measured", 32 * GIB)
    flat = " ".join(page.split())
    assert "1.2 TiB assumed" in flat
    assert "2 times the GPUs' memory (--ram says another)" in flat


@pytest.mark.parametrize(
    ("arguments", "do"),
    [
        (["--ram", "480G"], "--gpu"),
        (["--disk", "480G", "--ram", "1T"], "--gpu"),
        (["--ram", "480G", "--compare", "T4"], "leave one of them out"),
        (["--gpu", "T4", "--ram", "much"], "--ram 480G"),
    ],
)
def test_sizes_of_no_planned_machine_are_refused(arguments, do, capsys):
    """With what to write instead."""
    code = run(["recommend", "--model", "meta-llama/Llama-3.1-8B", *arguments])

    assert code == ExitCode.USAGE
    assert do in " ".join(capsys.readouterr().err.split())
