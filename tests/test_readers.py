"""What readers make of records: the same words everywhere, and no record ends a reader."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import fields, replace
from pathlib import Path
from types import UnionType
from typing import get_args, get_origin, get_type_hints

import on_disk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_examples import classes, example

from profiles.runs import run as runs
from profiles.runs import rundir
from profiles.runs.records.evaluation import Evaluated
from profiles.runs.records.inputs import Drift
from profiles.runs.records.metrics import Loss, Step
from profiles.runs.records.supervisor import Restarted, Unresponsive
from profiles.runs.records.worker import (
    Guard,
    OutOfMemory,
    Paused,
    Prepared,
    Resumed,
    Stalled,
)
from profiles.runs.state import State, status
from tests.canned_run import canned_run, finish
from tui import follow
from tui.feed import Reader
from tui.live import LiveRun
from tui.screens import panes
from tui.terminal import Symbols

SILENT = {"LongestTried", "Rotated", "SaveBegun", "SaveFailed"}
READY = """model and data are there: 3 rows of 3 tokens, 3 of them learnt (100 %), \
12 400 rows to train on; 9 trained weights on cpu
! 3 of 3 rows are cut at data.max_length; 3 more are left out, for nothing is learnt within it
! words"""


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        (
            example(Prepared, seconds=303.0, num_train=12_400, num_trainable=9, device="cpu"),
            READY,
        ),
        (Evaluated(step=0, loss=3.5, seconds=4.0), "base model: evaluation loss 3.5000 (4 s)"),
        (Evaluated(step=7, loss=None, seconds=4.0), "step 7: evaluation loss not finite (4 s)"),
        (Resumed(from_step=4, passed_over=()), "resumed from step 4"),
        (Resumed(from_step=4, passed_over=(), what="going on"), "going on"),
        (Paused(step=4), "paused at step 4"),
        (Paused(step=4, what="no\nroom"), "paused at step 4: no room"),
        (Drift(changed=("model", "torch")), "! changed since the run began: model; torch"),
        *(
            (example(cls), "")
            for cls in classes()
            if cls.__name__ in {"AnswerFailed", "End", *SILENT}
        ),
    ],
)
def test_what_a_record_tells_people(record, lines):
    """One line, a warning on a line of its own, and nothing of what programs alone need."""
    assert follow.describe(record) == lines


@pytest.mark.parametrize("cls", [Guard, OutOfMemory, Stalled, Unresponsive, Restarted])
def test_a_warning_that_lasts_is_the_notice_too(cls):
    """The same words in the log, on the screen and in the list of runs."""
    assert follow.describe(example(cls, what="mind\nthis")) == "! mind this"
    assert example(cls, what="mind\nthis").notice == "mind\nthis"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([10**400, 2**63 - 1, -(2**63) + 1, 1e99, -1e99, 5e-324, 0, -1])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
EDGES = {
    int: st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63) + 1]) | st.integers(0, 50),
    float: st.sampled_from([0.0, -1.0, 5e-324, 9e99, -9e99]) | st.floats(0, 10),
    bool: st.booleans(),
    str: st.text(max_size=8) | st.sampled_from(["finished", "train", "\x1b[2J\ud800"]),
}


def fitting(hint):
    """Values of this type, at the ends of what it can say."""
    inner = get_args(hint)
    if get_origin(hint) is UnionType:
        return st.none() | fitting(inner[0])
    if get_origin(hint) is tuple:
        return st.lists(fitting(inner[0]), max_size=2)
    if get_origin(hint) is dict:
        return st.dictionaries(st.sampled_from(["data", "forward", "x"]), fitting(inner[1]))
    if hint in EDGES:
        return EDGES[hint]
    hints = get_type_hints(hint)
    return st.fixed_dictionaries({f.name: fitting(hints[f.name]) for f in fields(hint)})


@st.composite
def lines(draw, cls):
    """A line of this kind, with fields that fit, and now and then one that does not."""
    hints, content = get_type_hints(cls), {"v": 1, "kind": cls.kind}
    for field in fields(cls):
        content[field.metadata.get("name", field.name)] = draw(fitting(hints[field.name]))
    usual = {"a": st.integers(1, 2), "t": st.floats(0, 1e10), "m": st.floats(0, 1e6)}
    content |= {name: draw(values) for name, values in usual.items() if draw(st.booleans())}
    for name in draw(st.lists(st.sampled_from(sorted(content)), max_size=2)):
        content[name] = draw(ANYTHING)
    return content


ANY_LINE = st.sampled_from(classes()).flatmap(lines) | st.dictionaries(
    st.sampled_from(["v", "seq", "t", "m", "a", "kind", "step", "loss", "gpus"]), ANYTHING
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(ANY_LINE, max_size=8), st.lists(st.sampled_from([Step, Loss]).flatmap(lines)))
def test_whatever_the_records_say_no_reader_raises(monkeypatch, anything, metrics):
    """State, facts, feed, live screen, lines: all say what they can."""
    with tempfile.TemporaryDirectory() as home:
        monkeypatch.setenv("TUNEDECK_HOME", home)
        run = canned_run(done=2)
        for path in (run.metrics, run.worker_events, run.supervisor_events, run.samples):
            with path.open("ab") as file:
                file.write(b"".join(map(on_disk.seal, anything)))
        with run.metrics.open("ab") as file:
            file.write(b"".join(map(on_disk.seal, metrics)))

        assert status(run).state is not State.UNKNOWN, status(run).notice
        found, _ = runs.from_run_dir(run)
        assert found is not None
        live = LiveRun(run)
        live.apply(Reader(run).poll())
        shown = [live.headline(80), live.evaluation(), live.silent_seconds(1e9)]
        shown += panes.gpu_rows(live, 60, 9, Symbols.BLOCK)
        shown += panes.time_rows(live, 60, 9, Symbols.BLOCK)
        finish(run, "stopped", 2)
        shown += list(follow._lines(run))
        assert shown


def test_every_reader_passes_over_a_damaged_record_of_each_kind(home):
    """The others stand as they were, and each damaged one is counted once."""
    source = Path(__file__).parent / "fixtures" / "v1"
    (folder,) = source.iterdir()
    run = rundir.RunDir(Path(shutil.copytree(folder, home / "runs" / folder.name)))
    facts, status_before = runs.from_run_dir(run)[0], status(run)
    before, described = Reader(run).poll(), list(follow._lines(run))
    kinds = [cls.kind for cls in classes()]
    for path in (run.metrics, run.worker_events, run.supervisor_events, run.samples):
        for kind in kinds:
            on_disk.write(path, kind, step=[], count=[], pid=[], what=7, signal=7, seconds="x")

    damaged = [c for c in kinds if c != "responsive"]
    assert runs.from_run_dir(run) == (facts, 3 * len(damaged))
    assert status(run) == status_before
    assert replace(Reader(run).poll(), num_damaged=0) == before
    told = f"! {2 * len(damaged)} damaged records passed over"
    assert sorted(follow._lines(run)) == sorted([*described, told])
