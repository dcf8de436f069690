"""What samples say of the GPUs is the same by the pattern of their lines and record by record."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from random import Random

import pytest
from on_disk import write

from profiles.runs import samples
from profiles.runs.journal import Journal, Tail
from profiles.runs.records.sampler import GpuUsage, Usage
from profiles.runs.samples import DeviceUse

GPU = GpuUsage(
    index=0,
    used_bytes=5,
    total_bytes=9,
    utilization_percent=50.0,
    power_watts=300.25,
    temperature_celsius=61.0,
    sm_clock_mhz=1400.0,
    sm_clock_max_mhz=1980.0,
    throttle=(),
)
USAGE = Usage(num_processes=2, rss_bytes=7, cpu_seconds=0.5, host_free_bytes=8, gpus=(GPU,))


@pytest.fixture
def path(tmp_path):
    """Of the samples."""
    return tmp_path / "samples.jsonl"


def keep(path, *found):
    """Write samples of these GPUs."""
    journal = Journal(path, attempt=1)
    for gpus in found:
        journal.append(replace(USAGE, gpus=gpus), sync=False)
    journal.close()


def one_by_one(path):
    """The same, by every record on its own."""
    use = DeviceUse()
    for record in Tail(path).stream():
        for gpu in record.gpus if isinstance(record, Usage) else ():
            use.add(gpu)
    return use


@pytest.fixture
def parsed(monkeypatch):
    """The lines that the pattern did not know."""
    found, real = [], Tail.parsed

    def seen(tail, lines):
        found.extend(filter(None, lines))
        return real(tail, lines)

    monkeypatch.setattr(Tail, "parsed", seen)
    return found


def test_what_the_sampler_writes_is_known_by_its_form(path, parsed):
    """With any number of GPUs, and whatever a driver does not say."""
    chance = Random(4)  # noqa: S311  # no secret
    gpus = [
        replace(
            GPU,
            index=number % 3,
            used_bytes=chance.choice([None, 0, chance.randrange(1 << 38)]),
            total_bytes=chance.choice([None, 1 << 38]),
            utilization_percent=chance.choice([None, 0.0, 1e-05, 99.5, 100]),
            power_watts=chance.choice([None, 70.123]),
            throttle=chance.choice([(), ("power cap",), ("hw_slowdown", "sw_thermal", "a-b")]),
        )
        for number in range(600)
    ]
    keep(path, (), *((gpu,) for gpu in gpus[:200]), *zip(gpus[200:400], gpus[400:], strict=True))

    found = samples.read(Tail(path))

    assert parsed == []
    assert found == one_by_one(path)
    assert found.used_bytes > 0
    assert found.num_busy > 100
    assert len(found.reasons) == 4


def test_the_fullest_gpu_is_told_with_its_own_size(path):
    """Busy ones alone are asked what holds them back."""
    small = replace(GPU, used_bytes=6, total_bytes=7, throttle=("heat",))
    idle = replace(GPU, used_bytes=1, utilization_percent=0.0, throttle=("idle",))
    keep(path, (GPU, small), (idle,), (small,))

    assert samples.read(Tail(path)) == DeviceUse(
        used_bytes=6, total_bytes=7, num_busy=3, reasons=Counter(heat=2)
    )


def test_other_lines_are_read_as_every_record(path, parsed):
    """Words with other letters, other kinds, more fields; damaged ones are counted."""
    keep(path, (replace(GPU, throttle=("à cause de",)),), (GPU,))
    write(path, "sample", **USAGE.content() | {"more": 1})
    write(path, "other", gpus=[])
    with path.open("ab") as file:
        first = path.read_bytes().splitlines()[1]
        file.write(first.replace(b'"used_bytes":5', b'"used_bytes":6') + b"\n")
    tail = Tail(path)

    found = samples.read(tail)

    assert (found.used_bytes, found.num_busy, found.reasons) == (5, 3, Counter(["à cause de"]))
    assert tail.num_damaged == 1
    assert len(parsed) == 4


@pytest.mark.parametrize("name", [one.name for one in fields(GpuUsage)])
def test_a_line_with_a_value_of_another_type_is_not_known(path, name):
    """It is passed over, and counted."""
    content = USAGE.content()
    content["gpus"][0][name] = {"no": "number"}
    write(path, "sample", **content)
    tail = Tail(path)

    assert samples.read(tail) == DeviceUse()
    assert tail.num_damaged == 1
