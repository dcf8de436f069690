"""Records: checksummed lines, tolerant readers."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import tempfile
import threading
from pathlib import Path

import on_disk
import pytest
from faulty_disk import Fault, FaultyDisk
from hypothesis import given, settings
from hypothesis import strategies as st
from record_examples import example

from profiles.runs import durable, journal, parts
from profiles.runs.durable import Disk
from profiles.runs.journal import Journal, Tail
from profiles.runs.lines import MAX_LINE_BYTES, decode, encode
from profiles.runs.records.evaluation import Answer, AnswerFailed
from profiles.runs.records.metrics import Loss, Step
from profiles.runs.records.worker import Guard, Rotated, Unpaused
from tui import source as source_of
from tui.source import Source

SOME = Unpaused(step=1)


def written(path, num=5):
    """A journal with a few records."""
    file = Journal(path, attempt=1)
    for number in range(num):
        file.append(Guard(step=number, fault="loss_spike", what="naïve\u2028line"))
    file.close()


def test_records_come_back_in_order(tmp_path):
    """What was appended is read, with sequence numbers from 1."""
    written(tmp_path / "j")

    found = list(journal.read_all(tmp_path / "j"))

    assert [(r.seq, r.step) for r in found] == [(n + 1, n) for n in range(5)]


def test_lines_are_plain_json(tmp_path):
    """Any tool can read the file."""
    written(tmp_path / "j", 1)

    record = json.loads((tmp_path / "j").read_text())

    assert record["kind"] == "guard"


def test_numbers_that_json_cannot_say_become_null_and_are_named(tmp_path):
    """A NaN loss must not look like a number, nor break the line."""
    file = Journal(tmp_path / "j", attempt=1)
    file.append(example(Step, seconds=math.nan, phases={"data": math.inf}))

    (record,) = on_disk.read_all(tmp_path / "j")

    assert (record["seconds"], record["nonfinite"]) == (None, ["seconds", "phases.data"])


def test_a_new_writer_continues_the_sequence(tmp_path):
    """A resumed run has no gap and no repeated number."""
    written(tmp_path / "j", 3)

    Journal(tmp_path / "j", attempt=2).append(SOME)

    assert [r.seq for r in journal.read_all(tmp_path / "j")] == [1, 2, 3, 4]


def test_a_tail_waits_for_the_newline(tmp_path):
    """Half a line is not there yet; once whole, it is read exactly once."""
    path = tmp_path / "j"
    written(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    tail = Tail(path)

    first = [r.seq for r in tail.poll()]
    path.write_bytes(whole)
    second = [r.seq for r in tail.poll()]

    assert (first, second, tail.poll(), tail.num_damaged) == ([1], [2], [], 0)


def test_long_text_is_cut_and_marked(tmp_path):
    """A record stays within one write."""
    Journal(tmp_path / "j", attempt=1).append(AnswerFailed(moment="after", error="x" * 50_000))

    (record,) = on_disk.read_all(tmp_path / "j")

    assert (record["cut"], len(record["error"])) == (True, 4000)


@pytest.mark.parametrize(
    "record",
    [
        example(Answer, prompt="漢" * 9000, wanted="漢" * 9000, answer="漢" * 9000),
        Rotated(steps=tuple(range(20_000))),
    ],
    ids=lambda r: r.kind,
)
def test_a_record_of_any_size_is_written_within_the_limit(tmp_path, record):
    """What writes it is the training process: it must not raise."""
    Journal(tmp_path / "j", attempt=1).append(record)

    (found,) = on_disk.read_all(tmp_path / "j")

    assert (found["kind"], found["cut"]) == (record.kind, True)
    assert (tmp_path / "j").stat().st_size < MAX_LINE_BYTES + 100


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The bytes of a small journal."""
    path = tmp_path_factory.mktemp("journal") / "j"
    written(path, 4)
    return path.read_bytes()


def read(data):
    """What a reader makes of these bytes: sequence numbers, and how many lines it passed over."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "j")
        path.write_bytes(data)
        tail = Tail(path)
        return [record.seq for record in tail.poll()], tail.num_damaged


def test_a_flipped_byte_costs_its_own_record_alone(lines):
    """At every byte; a flipped newline joins two records, and both are lost."""
    for place in range(len(lines)):
        flipped = lines[:place] + bytes([lines[place] ^ 1]) + lines[place + 1 :]
        hit = lines[:place].count(b"\n") + 1
        lost = {hit, hit + 1} if lines[place] == ord("\n") else {hit}

        assert read(flipped)[0] == [n for n in range(1, 5) if n not in lost], place


def test_a_cut_at_any_byte_leaves_all_whole_lines(lines):
    """What is not complete is not there yet, and is no damage."""
    for length in range(len(lines)):
        num_whole = lines[:length].count(b"\n")

        assert read(lines[:length]) == (list(range(1, num_whole + 1)), 0), length


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b), min_size=5, max_size=5))
def test_garbage_between_the_lines_costs_no_record(lines, garbage):
    """Any bytes as lines of their own, before, between and after."""
    whole = [*lines.splitlines(), b""]
    mixed = b"".join(a + b"\n" + b + b"\n" for a, b in zip(garbage, whole, strict=True))

    assert read(mixed) == ([1, 2, 3, 4], sum(map(bool, garbage)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_makes_a_reader_raise_or_a_record_up(lines, data):
    """Cuts, flips, doubled and moved pieces."""
    number = st.integers(0, len(lines))
    begin, end, target = (data.draw(number) for _ in range(3))
    damaged = lines[:target] + lines[begin:end] + data.draw(st.binary(max_size=9)) + lines[target:]

    assert set(read(damaged)[0]) <= {1, 2, 3, 4}


def test_a_line_without_an_end_does_not_hide_what_follows(tmp_path):
    """Two megabytes without a newline are passed over, in constant memory."""
    path = tmp_path / "j"
    written(path, 1)
    record = path.read_bytes()
    path.write_bytes(record + b"x" * (2 << 20) + b"\n" + record)

    assert [r.seq for r in journal.read_all(path)] == [1, 1]


def test_records_of_a_later_version_are_counted_apart(tmp_path):
    """They are not damage: somebody newer wrote them."""
    line = encode({"v": 2, "seq": 1, "t": 1.0, "kind": "step"})
    (tmp_path / "j").write_bytes(line + b"\n")
    tail = Tail(tmp_path / "j")

    assert (tail.poll(), tail.num_newer, tail.num_damaged) == ([], 1, 0)


def test_a_sound_line_without_what_readers_rely_on_is_passed_over(tmp_path):
    """Sequence number, time and kind are read without asking."""
    sound = {"v": 1, "seq": 1, "t": 1, "m": 1, "a": 1, "kind": "unpaused", "step": 1}
    lines = [sound | {"seq": "x"}, {k: v for k, v in sound.items() if k != "t"}, {"v": "x"}]
    (tmp_path / "j").write_bytes(b"".join(encode(line) + b"\n" for line in lines))
    tail = Tail(tmp_path / "j")

    assert (tail.poll(), tail.num_damaged) == ([], 3)


@pytest.mark.parametrize("seq", [2**62, 10**400, -1, 0, "7", None])
def test_an_impossible_number_is_not_counted_on_from(tmp_path, seq):
    """What comes after it could be read by nobody."""
    path = tmp_path / "j"
    written(path, 2)
    on_disk.write(path, SOME.kind, **SOME.content(), seq=seq)
    Journal(path, attempt=2).append(SOME)

    assert [r.seq for r in journal.read_all(path) if r.attempt == 2] == [3]


def refuse(monkeypatch, folder, number=errno.ENOSPC, at=1):
    """From here on the disk refuses."""
    fault = Fault(at=at, kind="error", number=number, lasts=True)
    monkeypatch.setattr(durable, "disk", FaultyDisk(folder, fault))


def accept(monkeypatch):
    """There is room again."""
    monkeypatch.setattr(durable, "disk", Disk())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_what_the_disk_refuses_waits_and_is_written_in_order(tmp_path, monkeypatch, number):
    """A full disk does not stop training, and costs no record; every try leaves half a line."""
    file = Journal(tmp_path / "j", attempt=1)
    file.append(SOME)
    refuse(monkeypatch, tmp_path, number)
    file.append(SOME)
    file.append(SOME, sync=False)
    waiting = file.num_waiting
    accept(monkeypatch)
    file.append(SOME)

    assert (waiting, file.num_waiting) == (2, 0)
    assert [r.seq for r in journal.read_all(tmp_path / "j")] == [1, 2, 3, 4]


def test_syncing_writes_what_waits(tmp_path, monkeypatch):
    """The last records of a run do not wait for one more."""
    file = Journal(tmp_path / "j", attempt=1)
    refuse(monkeypatch, tmp_path)
    file.append(SOME)
    accept(monkeypatch)
    file.sync()

    assert [r.kind for r in journal.read_all(tmp_path / "j")] == [SOME.kind]


def test_closing_writes_what_waits(tmp_path, monkeypatch):
    """Nor for a sync."""
    file = Journal(tmp_path / "j", attempt=1)
    refuse(monkeypatch, tmp_path)
    file.append(SOME, sync=False)
    accept(monkeypatch)
    file.close()

    assert [r.kind for r in journal.read_all(tmp_path / "j")] == [SOME.kind]


def test_of_more_than_can_wait_the_oldest_are_dropped_and_counted(tmp_path, monkeypatch):
    """The gap is visible, and a record says how many are missing."""
    monkeypatch.setattr(journal, "MAX_WAITING", 3)
    file = Journal(tmp_path / "j", attempt=1)
    file.append(SOME)
    refuse(monkeypatch, tmp_path)
    for _ in range(5):
        file.append(SOME)
    waiting = file.num_waiting
    accept(monkeypatch)
    file.append(SOME)

    found = list(journal.read_all(tmp_path / "j"))
    assert (waiting, file.num_dropped) == (3, 2)
    assert [r.seq for r in found] == [1, 4, 5, 6, 7, 8]
    assert (found[-1].kind, found[-1].count) == ("dropped", 2)


class AllButTheNewline(Disk):
    """Refuses the last byte of a write."""

    def write(self, fd, data):
        super().write(fd, data[:-1])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_that_lacks_its_newline_alone_is_not_there_twice(tmp_path, monkeypatch):
    """It is written again, so what stands there must not become a record."""
    file = Journal(tmp_path / "j", attempt=1)
    monkeypatch.setattr(durable, "disk", AllButTheNewline())
    file.append(SOME)
    accept(monkeypatch)
    file.append(SOME)

    assert [r.seq for r in journal.read_all(tmp_path / "j")] == [1, 2]


def test_a_failed_sync_is_counted_and_writing_goes_on(tmp_path, monkeypatch):
    """Through a file that is opened anew: the old one would not tell again."""
    file = Journal(tmp_path / "j", attempt=1)
    refuse(monkeypatch, tmp_path, errno.EIO, at=2)  # the write goes through, its sync does not
    file.append(SOME)
    accept(monkeypatch)
    file.append(SOME)

    assert (file.num_failed_syncs, file.num_waiting) == (1, 0)
    assert [r.seq for r in journal.read_all(tmp_path / "j")] == [1, 2]


def test_threads_may_share_a_journal(tmp_path):
    """The watchdog reports while training does: every record once, in order."""
    file = Journal(tmp_path / "j", attempt=1)

    def work():
        for _ in range(200):
            file.append(SOME, sync=False)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [r.seq for r in journal.read_all(tmp_path / "j")] == list(range(1, 801))


def in_parts(path, num, max_bytes=2000):
    """A journal of so many records in many parts."""
    file = Journal(path, attempt=1, max_bytes=max_bytes)
    for number in range(num):
        file.append(Loss(step=number, loss=1.0), sync=False)
    return file


def test_a_long_file_goes_on_in_parts_that_read_as_one(tmp_path):
    """No part grows beyond its limit by more than a record."""
    path = tmp_path / "metrics.jsonl"
    in_parts(path, 200)

    names = [p.name for p in parts.existing(path)]
    assert names[:2] == ["metrics.jsonl", "metrics.00001.jsonl"]
    assert len(names) > 5
    assert max(size for _, size in parts.sizes(path)) < 2200
    assert [r.seq for r in journal.read_all(path)] == list(range(1, 201))


def test_other_files_are_no_parts(tmp_path):
    """Neither of another journal, nor a copy that somebody made."""
    for name in ("events.sup.jsonl", "events.jsonl", "events.00001.jsonl", "events.00001.jsonl~"):
        (tmp_path / name).touch()

    names = [p.name for p in parts.existing(tmp_path / "events.jsonl")]

    assert names == ["events.jsonl", "events.00001.jsonl"]


def test_parts_behind_a_gap_are_none(tmp_path):
    """A file that somebody put there moves no writer away from the last part."""
    path = tmp_path / "events.jsonl"
    for name in (path.name, "events.00001.jsonl", "events.99999.jsonl"):
        (tmp_path / name).touch()

    assert parts.newest(path).name == "events.00001.jsonl"


def test_a_tail_follows_from_part_to_part(tmp_path):
    """Everything exactly once, however little is read at a time."""
    path = tmp_path / "metrics.jsonl"
    tail, found = Tail(path), []
    file = in_parts(path, 0)
    for number in range(300):
        file.append(Loss(step=number, loss=1.0), sync=False)
        if number % 7 == 0:
            found += tail.poll(500)
    while more := tail.poll(500):
        found += more

    assert [r.seq for r in found] == list(range(1, 301))
    assert tail.num_damaged == 0


def test_a_poll_reads_what_is_new_and_no_more(tmp_path, monkeypatch):
    """However long the run has been."""
    path = tmp_path / "metrics.jsonl"
    file, tail = in_parts(path, 2000), Tail(path)
    tail.poll()
    read_bytes = []
    original = journal._read
    monkeypatch.setattr(
        journal, "_read", lambda *a: read_bytes.append(data := original(*a)) or data
    )
    file.append(SOME)
    records = tail.poll()

    assert len(records) == 1
    assert sum(map(len, read_bytes)) < 500


def test_going_on_after_a_long_run_reads_its_end_alone(tmp_path, monkeypatch):
    """A resume does not read what millions of steps left."""
    path = tmp_path / "metrics.jsonl"
    in_parts(path, 3000, max_bytes=1 << 20).close()
    with path.open("ab") as file:
        file.write(b"damaged\n" * 3 + b"torn")
    read_bytes = []
    original = journal._read
    monkeypatch.setattr(
        journal, "_read", lambda *a: read_bytes.append(data := original(*a)) or data
    )
    again = Journal(path, attempt=2)
    again.append(SOME)

    assert [r.seq for r in journal.read_all(path)][-1] == 3001
    assert sum(map(len, read_bytes[:1])) <= 64 << 10


def test_the_sequence_is_found_behind_much_damage(tmp_path):
    """Even if the whole newest part is garbage."""
    path = tmp_path / "metrics.jsonl"
    file = in_parts(path, 40)
    newest = parts.newest(path)
    newest.write_bytes(os.urandom(300_000))
    last = max(r.seq for r in journal.read_all(path))

    assert 0 < last < 40
    assert journal.last_seq(path) == last
    file.close()


def test_the_screen_samples_a_past_in_parts_and_reads_its_whole_end(tmp_path, monkeypatch):
    """As of one file: an even sample, then everything, each once."""
    for name, value in (("_WHOLE_BYTES", 50_000), ("_END_BYTES", 20_000), ("_NUM_EXCERPTS", 8)):
        monkeypatch.setattr(source_of, name, value)
    monkeypatch.setattr(source_of, "_EXCERPT_BYTES", 2000)
    path = tmp_path / "metrics.jsonl"
    file, source = in_parts(path, 1000, max_bytes=9000), Source(path)
    first = [record.step for record in source.poll()]
    file.append(Loss(step=1000, loss=1.0))
    later = [record.step for record in source.poll()]

    assert sorted(set(first)) == first
    assert first[0] < 5
    assert first[-100:] == list(range(900, 1000))
    assert len(first) < 400
    assert (later, source.num_damaged) == ([1000], 0)


def test_errors_at_random_moments_cost_no_record(tmp_path, monkeypatch):
    """Refused writes and syncs in any order, over the change of parts."""
    chance = random.Random(3)  # noqa: S311  # no secret
    path = tmp_path / "metrics.jsonl"
    file = Journal(path, attempt=1, max_bytes=1500)
    for _ in range(300):
        if chance.random() < 0.4:
            refuse(monkeypatch, tmp_path, chance.choice([errno.ENOSPC, errno.EIO]), at=2)
        else:
            accept(monkeypatch)
        file.append(SOME, sync=chance.random() < 0.5)
    accept(monkeypatch)
    file.close()

    assert [r.seq for r in journal.read_all(path)] == list(range(1, 301))


@given(st.binary(max_size=200))
def test_garbage_is_no_record(garbage):
    """Arbitrary bytes are refused without an exception."""
    assert decode(garbage) is None


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
        st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.none(),
        min_size=1,
        max_size=5,
    )
)
def test_encoding_round_trips(record):
    """Any flat record comes back as it was."""
    back = decode(encode(record))

    assert back is not None
    assert {k: v for k, v in back.items() if k != "crc"} == {
        k: v for k, v in record.items() if k != "crc"
    }
