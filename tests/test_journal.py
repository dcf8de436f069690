"""Records: checksummed lines, tolerant readers."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from profiles import journal
from profiles.journal import Journal, Tail


def written(path, num=5):
    """A journal with a few records."""
    file = Journal(path, attempt=1)
    for number in range(num):
        file.append("step", step=number, text="naïve\u2028line")
    file.close()


def test_records_come_back_in_order(tmp_path):
    """What was appended is read, with sequence numbers from 1."""
    written(tmp_path / "j")

    found = list(journal.read_all(tmp_path / "j"))

    assert [(r["seq"], r["step"]) for r in found] == [(n + 1, n) for n in range(5)]


def test_lines_are_plain_json(tmp_path):
    """Any tool can read the file."""
    written(tmp_path / "j", 1)

    record = json.loads((tmp_path / "j").read_text())

    assert record["kind"] == "step"


def test_numbers_that_json_cannot_say_become_null_and_are_named(tmp_path):
    """A NaN loss must not look like a number, nor break the line."""
    file = Journal(tmp_path / "j", attempt=1)
    file.append("loss", loss=math.nan, inner={"norm": math.inf})

    (record,) = journal.read_all(tmp_path / "j")

    assert (record["loss"], record["nonfinite"]) == (None, ["loss", "inner.norm"])


def test_a_new_writer_continues_the_sequence(tmp_path):
    """A resumed run has no gap and no repeated number."""
    written(tmp_path / "j", 3)

    Journal(tmp_path / "j", attempt=2).append("step")

    assert [r["seq"] for r in journal.read_all(tmp_path / "j")] == [1, 2, 3, 4]


def test_a_tail_waits_for_the_newline(tmp_path):
    """Half a line is not there yet; once whole, it is read exactly once."""
    path = tmp_path / "j"
    written(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    tail = Tail(path)

    first = [r["seq"] for r in tail.poll()]
    path.write_bytes(whole)
    second = [r["seq"] for r in tail.poll()]

    assert (first, second, tail.poll(), tail.num_damaged) == ([1], [2], [], 0)


def test_long_text_is_cut_and_marked(tmp_path):
    """A record stays within one write."""
    Journal(tmp_path / "j", attempt=1).append("error", text="x" * 50_000)

    (record,) = journal.read_all(tmp_path / "j")

    assert (record["cut"], len(record["text"])) == (True, 4000)


def test_a_flipped_or_cut_byte_costs_one_record_at_most(tmp_path):
    """At every byte: the reader never raises, and all other records survive."""
    path = tmp_path / "j"
    written(path, 4)
    whole = path.read_bytes()

    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + b"\x07" + whole[place + 1 :])
        assert len(list(journal.read_all(path))) >= 2, place  # a lost newline joins two lines
        path.write_bytes(whole[:place])
        assert len(list(journal.read_all(path))) == whole[:place].count(b"\n"), place


@given(st.binary(max_size=200))
def test_garbage_is_no_record(garbage):
    """Arbitrary bytes are refused without an exception."""
    assert journal.decode(garbage) is None


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
    back = journal.decode(journal.encode(record))

    assert back is not None
    assert {k: v for k, v in back.items() if k != "crc"} == {
        k: v for k, v in record.items() if k != "crc"
    }
