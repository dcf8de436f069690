"""Run directories of earlier versions: read for ever, never rewritten, whatever is cut off them.

`fixtures/v1/` is a finished run as version 1 of the format is written. It is never edited: a new
version of the format gets a directory of its own beside it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import on_disk
import pytest

from profiles.errors import UserError
from profiles.runs import find_run, heartbeats, rundir
from profiles.runs.journal import Tail
from profiles.runs.state import State, status
from runner import checkpoints
from tui.commands import profile
from tui.feed import Reader

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("v*/*"))


@pytest.fixture(params=FIXTURES, ids=lambda p: p.parent.name)
def run(request, home):
    """A copy of the run under the home of this test."""
    return rundir.RunDir(Path(shutil.copytree(request.param, home / "runs" / request.param.name)))


def content(folder):
    """Every file with the hash of its content."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).digest() for p in files}


def test_there_is_a_fixture():
    """An empty list would prove nothing."""
    assert FIXTURES


def test_an_old_run_is_found_and_its_state_known(run):
    """Finished, with its steps and losses."""
    found = status(find_run.find(run.id))

    assert (found.state, found.step, found.num_steps) == (State.FINISHED, 6, 6)
    assert found.eval_loss < found.base_loss
    assert found.resumable_from == 6


def test_every_record_of_an_old_run_is_read(run):
    """None is damaged, none of a later version, none missing."""
    for path in (run.supervisor_events, run.worker_events, run.metrics, run.samples):
        tail = Tail(path)
        numbers = [record.seq for record in tail.poll()]

        assert numbers == list(range(1, len(numbers) + 1))
        assert (tail.num_damaged, tail.num_newer) == (0, 0)
        assert numbers


def test_every_record_would_be_written_again_as_it_was(run):
    """The same names in the same order, the same values, and nothing that it did not know."""
    for path in (run.supervisor_events, run.worker_events, run.metrics, run.samples):
        lines = list(on_disk.read_all(path))
        again = [
            dict(list(line.items())[:6])
            | {name: value for name, value in record.content().items() if value is not None}
            | {"crc": line["crc"]}
            for line, record in zip(lines, Tail(path).poll(), strict=True)
        ]

        assert [json.dumps(line) for line in again] == [json.dumps(line) for line in lines]
        assert [record.kind for record in Tail(path).poll()] == [line["kind"] for line in lines]


def test_the_screen_shows_an_old_run(run):
    """Steps, losses and memory reach the live view."""
    batch = Reader(run).poll()

    assert [point.step for point in batch.steps] == [1, 2, 3, 4, 5, 6]
    assert len(batch.losses) == 6
    assert batch.memory


def test_the_report_of_an_old_run_says_what_it_passed_over(run, tmp_path):
    """Nothing while all is well."""
    manifest = json.loads(run.manifest.read_text()) | {"base_dir": str(tmp_path)}
    run.manifest.write_text(json.dumps(manifest))
    (tmp_path / "model").mkdir()
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300}
    config |= {"num_attention_heads": 4, "intermediate_size": 128}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    before = profile.load(run)
    on_disk.write(run.metrics, "step", step=7)
    after = profile.load(run)

    told = "1 damaged record passed over"
    assert after == replace(before, not_measured=(*before.not_measured, told))
    assert told not in before.not_measured


def test_a_report_of_damaged_steps_alone_says_that_they_are(run):
    """Not that there was no step."""
    run.metrics.unlink()
    on_disk.write(run.metrics, "step", step=7)

    with pytest.raises(UserError) as caught:
        profile.load(run)

    assert caught.value.why.endswith("; 1 damaged record passed over")


def test_checkpoints_and_model_of_an_old_run_verify(run):
    """Every byte is as its manifest says."""
    faults = [checkpoints.verify(c.path) for c in checkpoints.committed(run)]

    assert [*faults, checkpoints.verify(run.model)] == [None, None, None]


def test_reading_an_old_run_changes_nothing(run):
    """Not a byte, not a name."""
    before = content(run.path)

    Reader(run).poll()
    status(run)
    checkpoints.newest_sound(run)

    assert content(run.path) == before


@pytest.mark.parametrize(
    "name", ["exit.json", "proc.json", "run.json", "attempt", "hb.runner", "checkpoints/best.json"]
)
def test_a_file_cut_at_any_length_is_survived(run, name):
    """Readers say what they can; they do not raise."""
    path = run.path / name
    whole = path.read_bytes() if path.exists() else b'{"schema":1,"step":6,"loss":0.5}'
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert status(run).state in State, length
        assert heartbeats.of_worker(run).counter >= 0, length
        assert checkpoints.best(run) is None, length


@pytest.mark.parametrize("text", ["[]", "7", "null", '"x"', '{"step":"x"}', "{", "\0\0\0", ""])
def test_a_file_with_nonsense_is_survived(run, text):
    """Sound JSON of a wrong shape is no better than none."""
    for path in (run.exit, run.processes, run.manifest, run.attempt_file, run.error):
        path.write_text(text)
    for name in ("best.json", "pins.json"):
        (run.checkpoints / name).write_text(text)

    assert status(run).state in State
    assert (checkpoints.best(run), checkpoints.pins(run)) == (None, {})
