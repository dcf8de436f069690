"""The columns of a long run: what is read fast is what a plain reader finds, whatever is there."""

from __future__ import annotations

import json
import math
import random
import re
import zlib
from statistics import fmean, median

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from profiles.runs import columns, journal, records, rundir
from profiles.runs import run as runs
from profiles.runs.alike import like
from profiles.runs.journal import Journal, Tail, read_all
from profiles.runs.lines import CRC_LENGTH, decode, encode
from profiles.runs.parts import existing
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.metrics import PHASES, Loss, Step
from profiles.runs.records.worker import TrainBegun, Unpaused
from tests.canned_run import step


class Plain:
    """The facts of a run from a list of all its records, as one would write it down first."""

    def __init__(self, run):
        tail = Tail(run.metrics)
        found = list(tail.stream())
        self.num_damaged = tail.num_damaged
        by_step = {r.step: r for r in found if isinstance(r, Step)}
        self.steps = [by_step[n] for n in sorted(by_step)]
        self.steady = self.steps[max(5, len(self.steps) // 20) :] or self.steps[-1:]
        logged = {r.step: r.loss for r in found if isinstance(r, Loss)}
        self.losses = [(n, logged[n]) for n in sorted(logged)]
        self.events = list(read_all(run.worker_events))

    def wall_seconds(self):
        total = 0.0
        for attempt in {s.attempt for s in self.steps}:
            begun = [e for e in self.events if isinstance(e, TrainBegun) and e.attempt == attempt]
            mine = [e for e in self.events if isinstance(e, Evaluated)] + self.steps
            ends = [e.monotonic_seconds for e in mine if e.attempt == attempt]
            total += max(ends) - min([e.monotonic_seconds for e in begun] or ends)
        return total

    def facts(self):
        """Names and values of `Run`."""
        steady, steps = self.steady, self.steps
        seconds, wall = sum(s.seconds for s in steady), self.wall_seconds()
        waits = sorted(s.phases.get("data", 0.0) for s in steady)
        middle = waits[len(waits) // 2]
        on_gpu = steps[-1].allocated_peak_bytes is not None
        return {
            "num_steps": steps[-1].step,
            "num_steady_steps": len(steady),
            "step_seconds": median(s.seconds for s in steady),
            "phase_seconds": {
                name: sum(s.phase_seconds.get(name, 0.0) for s in steady) / len(steady)
                for name in PHASES
            },
            "longest_data_share": waits[int(len(waits) * 0.99)] / middle if middle else 1.0,
            "wall_seconds": pytest.approx(wall),
            "tokens": sum(s.tokens for s in steps),
            "padded_tokens": sum(s.padded_tokens for s in steps),
            "label_tokens": sum(s.label_tokens for s in steps),
            "tokens_per_second": sum(s.tokens for s in steady) / seconds if seconds else 0.0,
            "longest": max(s.longest for s in steps),
            "peak_bytes": max(
                (s.allocated_peak_bytes or 0) if on_gpu else s.rss_peak_bytes for s in steps
            ),
            "reserved_peak_bytes": max(s.reserved_peak_bytes or 0 for s in steps)
            if on_gpu
            else None,
            "num_alloc_retries": steps[-1].num_alloc_retries or 0,
            "first_loss": self.losses[0][1] if self.losses else None,
            "last_loss": self.losses[-1][1] if self.losses else None,
        }

    def curve(self):
        return tuple((n, loss) for n, loss in self.losses if loss is not None)


class Chance(random.Random):
    """What a run may have written."""

    def phases(self, names):
        """Some of the phases, now and then in another order, or one of another name."""
        names = [name for name in names if self.random() < 0.97]
        if self.random() < 0.1:
            self.shuffle(names)
        if self.random() < 0.03:
            names.append("another")
        small = [0.0, 1e-6, 5e-05]
        return {
            n: round(self.choice(small) if self.random() < 0.2 else self.random(), 6) for n in names
        }

    def step(self, number, on_gpu):
        """A step of many forms."""
        more = {}
        if on_gpu:
            more = {
                "allocated_bytes": self.randrange(1 << 40),
                "allocated_peak_bytes": self.randrange(1 << 40),
                "reserved_peak_bytes": self.randrange(1 << 40),
                "num_alloc_retries": self.randrange(3),
                "gpu_phases": self.phases(PHASES[:-1]) if self.random() < 0.9 else {},
            }
        return step(
            number,
            seconds=self.choice([2, 0.0, self.random() * 3]),
            phases=self.phases(PHASES),
            tokens=self.randrange(500),
            padded_tokens=self.choice([self.randrange(900), 1 << 60, -3]),
            label_tokens=self.randrange(400),
            longest=self.randrange(200),
            rss_peak_bytes=self.randrange(1 << 50),
            **more,
        )

    def loss(self, number):
        """A loss that may be of no finite number."""
        numbers = [math.nan, math.inf, 3, -0.5, 1e-7, 1e20, self.random() * 5]
        weights = [1, 1, 1, 1, 1, 1, 30]
        loss, norm, rate = self.choices(numbers, weights, k=3)
        return Loss(step=number, loss=loss, grad_norm=norm, learning_rate=rate, epoch=None)

    def damage(self, data):
        """Some lines with other bytes, some cut, some of other kinds, versions and shapes."""
        lines = data.split(b"\n")
        for at in range(len(lines) - 1):
            found = self.random()
            if found < 0.01 and lines[at]:
                place = self.randrange(len(lines[at]))
                lines[at] = lines[at][:place] + b"7" + lines[at][place + 1 :]
            elif found < 0.02:
                lines[at] = lines[at][: self.randrange(1 + len(lines[at]))]
            elif found < 0.05:
                lines[at] = self.other(lines[at])
        return b"\n".join(lines)

    def other(self, line):
        """Sound by its checksum, and something else."""
        content = decode(line) or {"v": 1}
        content.pop("crc", None)
        name = self.choice(list(content))
        values = [None, "x", 10**400, -(2**63), 2**63 - 1, 1e99, 12, 0.5, {}, [1], True, 10**11]
        content[self.choice([name, "step", "t", "more", "v"])] = self.choice(values)
        if self.random() < 0.3:
            return sealed(json.dumps(content))
        return encode(content)


def sealed(text):
    """Any JSON object with a sound checksum."""
    body = text.encode()[:-1]
    return body + f',"crc":"{zlib.crc32(body):08x}"}}'.encode()


def made(seed):
    """A run of several attempts in parts, of which each goes on from before the last one's end."""
    chance, run = Chance(seed), rundir.create("a run")
    events = Journal(run.worker_events, attempt=1)
    events.append(Evaluated(step=0, loss=3.0, seconds=1.0))
    last = 0
    for attempt in range(1, chance.randrange(2, 5)):
        first = max(1, last - chance.randrange(20) + 1)
        last = first + chance.randrange(1, 150)
        on_gpu = chance.random() < 0.6
        if chance.random() < 0.8:
            events = Journal(run.worker_events, attempt=attempt)
            events.append(TrainBegun(step=first - 1, num_steps=500))
        metrics = Journal(run.metrics, attempt=attempt, max_bytes=chance.choice([9000, 1 << 20]))
        for number in range(first, last + 1):
            metrics.append(chance.step(number, on_gpu), sync=False)
            if number % 3:
                metrics.append(chance.loss(number), sync=False)
        metrics.append(Unpaused(step=last))
        metrics.close()
    for part in existing(run.metrics):
        part.write_bytes(chance.damage(part.read_bytes()))
    return run


@pytest.mark.parametrize("seed", range(40))
def test_the_facts_are_those_of_a_plain_reader(seed, monkeypatch):
    """Damage, steps that were made again, several attempts and parts; whatever is read at once."""
    monkeypatch.setattr(journal, "_CHUNK_BYTES", 1 << (11 if seed % 2 else 20))
    run = made(seed)
    plain = Plain(run)
    found, num_damaged = runs.from_run_dir(run)

    assert {name: getattr(found, name) for name in plain.facts()} == plain.facts()
    assert found.curves.training == plain.curve()
    assert num_damaged == plain.num_damaged


NUMBER = st.text("0123456789.-+eE_ ", min_size=1, max_size=22) | st.sampled_from(
    ["null", "true", '"7"', "{}", "NaN", "-0", "1e999", "9" * 18, "9" * 19, "99999999999.9", "1e11"]
)
LINES = [
    encode({"v": 1, "seq": 1, "t": 1.5, "m": 2.5, "a": 1, "kind": r.kind} | r.content())
    for r in (
        step(3, allocated_peak_bytes=7, gpu_phases={"data": 1e-05, "forward": 0.5}),
        Loss(step=3, loss=2.25, grad_norm=None, learning_rate=1e-05),
    )
]


@given(st.sampled_from(LINES), st.integers(0, 99), NUMBER)
@example(LINES[0], 0, "2")
@example(LINES[0], 2, "100000000000.5")
@example(LINES[1], 2, "01.5")
def test_what_is_taken_for_alike_is_a_sound_record_with_these_numbers(line, place, text):
    """One number replaced by anything: none is accepted that the plain reader refuses."""
    places = list(re.finditer(rb"(?<=:)-?[0-9][^,}]*", line))
    where = places[place % len(places)]
    body = line[: where.start()] + text.encode() + line[where.end() : -CRC_LENGTH]
    other = sealed(f"{body.decode()}}}")
    shape = like(line, {"seq", "t", "m", "a", *decode(line)})
    row = shape.read(other)

    if row is not None:
        content = decode(other)
        assert content["v"] == 1
        assert records.parse(content) is not None
        told = [float(json.dumps(n)) for n in row_of(content)]
        assert [float(number) for number in row] == told


def row_of(content):
    """The numbers of a line in order, but for its version."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from row_of(value)
        elif name != "v" and isinstance(value, int | float):
            yield value


def test_a_damaged_line_is_not_alike():
    """The checksum is compared as ever."""
    shape = like(LINES[0], {"step"})

    assert shape.read(LINES[0]) == (b"3",)
    assert shape.read(LINES[0].replace(b'"step":3', b'"step":4')) is None
    assert shape.read(LINES[0] + b" ") is None


@pytest.mark.parametrize(
    "line",
    [
        sealed('{"v":1,"t":5,"m":1.5,"step":1}'),
        sealed('{"v": 1, "t": 1.5, "m": 1.5, "step": 1}'),
        sealed('{"v":1,"t":1.5,"m":1.5,"step":1,"step":2}'),
        sealed('{"v":1,"t":1.5,"m":1.5,"\\ud800":1}'),
        b"damaged",
    ],
    ids=lambda line: line[:50],
)
def test_what_is_not_as_it_is_written_stands_for_no_other(line):
    """Whole seconds, spaces, a name twice, half a character."""
    assert like(line, {"step"}) is None


@pytest.mark.parametrize(("left", "right"), [('{"x":', "}"), ("[", "]")])
def test_however_deep_the_json_of_a_line_nothing_is_raised(left, right):
    """Some depths are read and cannot be written again."""
    for depth in range(700, 1100, 3):
        line = sealed('{"v":1,"t":1.5,"m":1.5,"x":' + left * depth + "1" + right * depth + "}")
        shape = like(line, {"step"})

        assert shape is None or shape.read(line) == ()


def long_run(num_steps, line_of=step):
    """A run of so many steps and losses."""
    run = rundir.create("long")
    metrics = Journal(run.metrics, attempt=1)
    for number in range(1, num_steps + 1):
        metrics.append(line_of(number), sync=False)
        metrics.append(Loss(step=number, loss=5.0 - number / 1000), sync=False)
    metrics.close()
    return run


def test_of_a_long_run_hardly_a_line_is_read_as_json(monkeypatch):
    """A report on a million records is a matter of seconds."""
    run, parsed, real = long_run(2000), [], records.parse
    monkeypatch.setattr(records, "parse", lambda c: parsed.append(c) or real(c))

    steps, losses = columns.read(Tail(run.metrics))

    assert (len(steps), len(losses), len(parsed)) == (2000, 2000, 2)
    assert losses["loss"][-1] == 3.0


def test_forms_that_take_turns_are_each_known(monkeypatch):
    """Phases in another order, a loss that is not finite."""
    there_and_back = [dict.fromkeys(names, 0.5) for names in (PHASES, PHASES[::-1])]
    run, parsed = long_run(300, lambda n: step(n, phases=there_and_back[n % 2])), []
    real = records.parse
    monkeypatch.setattr(records, "parse", lambda c: parsed.append(c) or real(c))

    steps, _ = columns.read(Tail(run.metrics))

    assert (len(steps), len(parsed), set(steps["data"])) == (300, 3, {0.5})


def test_lines_that_are_all_different_are_not_each_made_a_pattern(monkeypatch):
    """That would cost more than it saves."""
    run = long_run(100, lambda n: step(n, phases={f"phase {n}": 0.5}))
    made, real = [], columns.like
    monkeypatch.setattr(columns, "like", lambda *a: made.append(a) or real(*a))

    steps, _ = columns.read(Tail(run.metrics))

    assert len(steps) == 100
    assert len(made) <= 20


def test_a_long_curve_is_told_in_means(monkeypatch):
    """However long the run, the report holds as many points; the first and last loss stay."""
    monkeypatch.setattr(runs, "_MOST_POINTS", 100)
    found, _ = runs.from_run_dir(long_run(950))

    losses = [5.0 - n / 1000 for n in range(1, 951)]
    groups = [losses[first : first + 10] for first in range(0, 950, 10)]
    assert found.curves.training == tuple((10 * n + 1, fmean(g)) for n, g in enumerate(groups))
    assert (found.first_loss, found.last_loss) == (losses[0], losses[-1])
