"""A run whose rows were cut, left out or changed says so as long as nothing is more urgent."""

from __future__ import annotations

import pytest
from driven_app import drive, install, settle, until
from record_examples import example

from profiles.row_counts import RowCounts
from profiles.runs.journal import Journal
from profiles.runs.records.worker import Prepared
from tests.canned_run import canned_run
from tui.feed import Reader
from tui.live import LiveRun
from tui.screens.parts import Rows

LOST = RowCounts(num_rows=24, num_dropped=2, num_cut=3, num_tokens=900, num_learnt=300)
ENDLESS = "24 of 24 rows end with no mark"
TOLD = LOST.losses("data.max_length")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that works, prepared with such rows."""
    install(tmp_path, monkeypatch)
    found = canned_run()
    prepared = example(Prepared, file=LOST, of_template=(ENDLESS,))
    Journal(found.worker_events, attempt=1).append(prepared)
    return found


def test_each_is_a_line_of_its_own_and_is_kept(run):
    """Also when the next batch tells nothing of it."""
    reader, live = Reader(run), LiveRun(run)
    first, second = reader.poll(), reader.poll()

    assert [event.text for event in first.events[-2:]] == [f"! {TOLD}", f"! {ENDLESS}"]
    assert first.then(second).of_rows == first.of_rows == (TOLD, ENDLESS)
    live.apply(first)
    live.apply(second)
    assert live.of_rows == (TOLD, ENDLESS)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_live_screen_tells_it(run, size):
    """Above the keys, where it does not scroll away."""

    async def script(app, pilot):
        await settle(app, pilot)
        await until(app, pilot, "3 of 24 rows are cut at data.max_length")
        told = app.screen.query_one("#words", Rows).text
        assert " ".join(told.split()) == f"{TOLD}; {ENDLESS}"

    drive(script, size=size, run_id=run.id)
