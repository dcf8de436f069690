"""Every kind of record: one class writes and reads it, and what does not fit is counted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from types import UnionType
from typing import ClassVar, get_args, get_origin, get_type_hints

import on_disk
import pytest
from record_examples import classes, example

from profiles.runs import records
from profiles.runs.journal import Journal, Tail, read_all
from profiles.runs.records.evaluation import (
    Answer,
    BaseEvaluated,
    Evaluated,
    Published,
    RowLosses,
)
from profiles.runs.records.metrics import Loss, Step
from profiles.runs.records.packing import Packing
from profiles.runs.records.record import Record
from profiles.runs.records.sampler import Usage
from profiles.runs.records.worker import (
    Changed,
    Paused,
    Prepared,
    Resumed,
    TrainBegun,
    WorkerStarted,
)
from tests.canned_run import gpu
from tui import follow

ON_DISK = {
    "Answer": "sample moment step prompt wanted answer",
    "AnswerFailed": "sample_failed moment error",
    "BaseEvaluated": "base_evaluated loss seconds data",
    "BegunWith": "begun_with parents",
    "Changed": "changed step log_every eval_every",
    "Checkpoint": "checkpoint step seconds bytes",
    "Drift": "drift changed",
    "Dropped": "dropped count",
    "End": "end state step",
    "EarlyStop": "early_stop step best_step evaluations",
    "Evaluated": "evaluated step loss seconds data rows gain scores classes before",
    "Exit": "exit state code what",
    "Guard": "guard step fault what",
    "InputsTouched": "inputs_touched step names",
    "LongestTried": "longest_tried rows longest seconds",
    "Loss": "loss step loss router_loss grad_norm learning_rate epoch penalty_loss smoothing_loss",
    "Moved": "moved step since linear",
    "OutOfMemory": "oom step during pieces micro_batch accumulation error what",
    "Packing": "packing apart difference rounding what",
    "Paused": "paused step reason what",
    "Phase": "phase phase total",
    "Prepared": "prepared seconds num_train num_dropped num_at_max_length num_tokens num_learnt "
    "file of_template num_trainable reclaimed_bytes device compute_capability",
    "Progressing": "progressing step",
    "Published": "published step last_step what",
    "Responsive": "responsive",
    "Restarted": "restarted number of what",
    "Ranks": "ranks step adapters",
    "Resumed": "resumed from_step passed_over what",
    "Rotated": "rotated steps",
    "Routed": "routed step since use",
    "RowLosses": "row_losses step data first losses tokens scores",
    "SaveBegun": "save_begun step",
    "SaveFailed": "save_failed step what",
    "Stalled": "stalled step phase seconds what",
    "Step": "step step seconds phases rows padded_tokens tokens label_tokens longest "
    "rss_peak_bytes allocated_bytes allocated_peak_bytes reserved_peak_bytes num_alloc_retries "
    "gpu_phases",
    "StopAccepted": "stop_accepted step verb",
    "StopEscalated": "stop_escalated signal seconds",
    "StopForced": "stop_forced signal",
    "SupervisorStarted": "sup_started pid",
    "TrainBegun": "train_begun step num_steps seconds",
    "Unpaused": "unpaused step",
    "Unresponsive": "unresponsive seconds what",
    "Usage": "sample num_processes rss_bytes cpu_seconds host_free_bytes gpus",
    "WorkerSpawned": "worker_spawned pid",
    "WorkerStarted": "worker_started pid start",
}
"""Kind and fields of what version 1 of the format has: other versions read it, so it stays."""
OPTIONAL = {
    WorkerStarted: {"start"},
    Prepared: {
        "num_at_max_length",
        "num_tokens",
        "num_learnt",
        "file",
        "of_template",
        "compute_capability",
    },
    Resumed: {"what"},
    Packing: {"difference", "rounding", "what"},
    Paused: {"reason", "what"},
    Evaluated: {"data", "rows", "gain", "scores", "classes", "before"},
    BaseEvaluated: {"data"},
    RowLosses: {"scores"},
    Published: {"what"},
    Changed: {"log_every", "eval_every"},
    TrainBegun: {"seconds"},
    Loss: {
        *("router_loss", "penalty_loss", "smoothing_loss"),
        *("grad_norm", "learning_rate", "epoch"),
    },
    Step: {
        "allocated_bytes",
        "allocated_peak_bytes",
        "reserved_peak_bytes",
        "num_alloc_retries",
        "gpu_phases",
    },
}
"""What runs of some machine, or of some day, did not write."""
HEAD = {"v": 1, "seq": 1, "t": 1e9, "m": 1e3, "a": 1}
ALL = pytest.mark.parametrize("cls", classes(), ids=lambda c: c.__name__)


def line_of(cls, **changes):
    """What the disk says of an example."""
    return HEAD | {"kind": cls.kind} | example(cls).content() | changes


def read(tmp_path, *contents):
    """What a reader makes of these lines: the records, and how many it passed over."""
    path = tmp_path / "j"
    path.write_bytes(b"".join(map(on_disk.seal, contents)))
    tail = Tail(path)
    return tail.poll(), tail.num_damaged


@pytest.mark.parametrize("cls", [c for c in classes() if c.__name__ in ON_DISK])
def test_names_on_the_disk_stay(cls):
    """Kind and fields, in their order."""
    assert [cls.kind, *example(cls).content()] == ON_DISK[cls.__name__].split()


def test_no_name_on_the_disk_is_given_up():
    """A kind that is not written any more is read all the same."""
    assert set(ON_DISK) <= {cls.__name__ for cls in classes()}


@ALL
def test_what_is_written_is_read_by_the_same_class(tmp_path, cls):
    """Every field, and nothing but the head is new."""
    written = example(cls)
    Journal(tmp_path / "j", attempt=7).append(written)

    (found,) = read_all(tmp_path / "j")

    assert found == replace(
        written,
        seq=1,
        attempt=7,
        unix_seconds=found.unix_seconds,
        monotonic_seconds=found.monotonic_seconds,
    )
    assert (found.unix_seconds > 1e9, found.monotonic_seconds > 0) == (True, True)


@ALL
def test_a_record_that_lacks_a_field_is_counted_unless_it_may(tmp_path, cls):
    """Nothing is made up for it; what some runs never wrote has a value of its own."""
    optional = OPTIONAL.get(cls, set())
    for name in [*example(cls).content(), *HEAD.keys() - {"v"}]:
        content = {k: v for k, v in line_of(cls).items() if k != name}
        found, num_damaged = read(tmp_path, content, line_of(cls))

        assert (len(found), num_damaged) == ((2, 0) if name in optional else (1, 1)), name


def misfits(hint):
    """Values that are none of this type."""
    if get_origin(hint) is UnionType:
        return [v for v in misfits(get_args(hint)[0]) if v is not None]
    wrong = [None, True, [None], {"data": "x"}, {"data": None}]
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        wrong = [v for v in wrong if v != [None] or get_origin(inner) is not UnionType]
        return [*wrong, "x", 7, {}]
    if hint is bool:
        wrong.remove(True)
    more = {
        str: [7, 0.5],
        bool: ["true", 1, 0.0],
        int: ["7", 0.5, 1.0, 2**63, -(2**63), 10**400],
        float: ["7", math.nan, math.inf, 1e200, 10**400],
    }
    others = ["x", 7, [], {"data": math.nan}, {"data": 10**400}, {"data": True}]
    return [*wrong, *more.get(hint, others)]


@ALL
def test_a_record_whose_field_is_of_another_type_is_counted(tmp_path, cls):
    """Whichever field, and whatever it is."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        name = field.metadata.get("name", field.name)
        for value in misfits(hints[field.name]):
            found, num_damaged = read(tmp_path, line_of(cls, **{name: value}))

            assert (found, num_damaged) == ([], 1), (name, value)


@pytest.mark.parametrize("part", gpu().__slots__)
@pytest.mark.parametrize("value", ["x", [1], {}, True])
def test_what_does_not_fit_inside_a_record_does_not_fit(tmp_path, part, value):
    """A sample of a GPU that says nonsense is none."""
    content = line_of(Usage)
    content["gpus"] = [content["gpus"][0] | {part: value}]

    assert read(tmp_path, content) == ([], 1)


@pytest.mark.parametrize("name", ["t", "m"])
@pytest.mark.parametrize("value", [1e12, -1e12, 1e300, 10**17])
def test_a_time_that_is_no_date_is_damage(tmp_path, name, value):
    """No calendar could show it."""
    assert read(tmp_path, line_of(Loss, **{name: value})) == ([], 1)


@ALL
def test_a_field_that_is_unknown_is_passed_over(tmp_path, cls):
    """A later program of the same format may say more."""
    (found, more), num_damaged = read(tmp_path, line_of(cls), line_of(cls, new={"a": [1]}))

    assert (found, num_damaged) == (more, 0)


@ALL
def test_whole_numbers_are_numbers_too(tmp_path, cls):
    """JSON of other programs says 1 for 1.0."""
    hints = get_type_hints(cls)
    names = [f.name for f in fields(cls) if hints[f.name] in (float, float | None)]
    changes = {f.metadata.get("name", f.name): 2 for f in fields(cls) if f.name in names}
    (found,), num_damaged = read(tmp_path, line_of(cls, **changes))

    assert ({getattr(found, name) for name in names}, num_damaged) == ({2}, 0)


def test_a_kind_that_is_unknown_is_no_damage(tmp_path):
    """It is what a later program says; when it was said is known."""
    (found,), num_damaged = read(tmp_path, HEAD | {"kind": "first_step", "step": 9})

    assert (type(found), found.attempt, found.unix_seconds, num_damaged) == (Record, 1, 1e9, 0)


@pytest.mark.parametrize("kind", [None, 7, [], {}, True])
def test_a_kind_that_is_no_name_is_damage(tmp_path, kind):
    """Nor does it stop the reader."""
    assert read(tmp_path, HEAD | {"kind": kind}) == ([], 1)


def test_two_kinds_of_one_name_are_told_apart_by_their_fields(tmp_path):
    """Samples of devices and answers to prompts."""
    found, _ = read(tmp_path, line_of(Usage), line_of(Answer))

    assert [type(record) for record in found] == [Usage, Answer]
    by_kind = [cls.kind for cls in classes()]
    assert {kind for kind in by_kind if by_kind.count(kind) > 1} == {"sample"}


def test_a_new_kind_is_one_class(tmp_path):
    """Nobody keeps a list of them."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Cooled(Record):
        kind: ClassVar[str] = "cooled"
        kelvin: float

    try:
        Journal(tmp_path / "j", attempt=1).append(Cooled(kelvin=4.2))
        (found,) = read_all(tmp_path / "j")
    finally:
        del records.record._classes["cooled"]

    assert (type(found), found.kelvin) == (Cooled, 4.2)


def test_a_loss_that_is_not_finite_is_none(tmp_path):
    """Null in the file, and said to be so."""
    Journal(tmp_path / "j", attempt=1).append(Loss(step=1, loss=math.nan, grad_norm=math.inf))

    (found,) = read_all(tmp_path / "j")

    assert (found.loss, found.grad_norm, found.learning_rate) == (None, None, None)
    assert follow.step_line(found, 9) == "step 1/9  loss not finite"


def test_lines_stay_json_of_one_object(tmp_path):
    """Any tool can read them."""
    file = Journal(tmp_path / "j", attempt=1)
    for cls in classes():
        file.append(example(cls))
    file.close()

    found = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]

    assert [line["kind"] for line in found] == [cls.kind for cls in classes()]
