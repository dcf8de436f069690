"""Several machines beside each other."""

from __future__ import annotations

import pytest
from known import HOST, dataset, model

from advisor.choice.answers import Answers
from advisor.choice.compare import compare, machine_name, rows
from advisor.choice.recommend import recommend
from profiles.machines import planned
from tui.pages import comparison


def machines(*texts):
    return [planned.plan_machine(text) for text in texts]


def test_each_machine_gets_what_it_would_get_alone():
    """In their order."""
    boxes = machines("T4", "RTX 4090", "8x H100")

    found = compare(model(), boxes, dataset(), Answers())

    assert found == tuple(recommend(model(), box, dataset(), Answers()) for box in boxes)


def test_the_table_has_method_peak_speed_hours_and_cost():
    """Price times hours; unknown where no price is."""
    found = compare(model(), machines("RTX 4090", "8x H100"), dataset(), Answers())

    cheap, dear = rows(found, prices=(0.5, None))

    assert (cheap.machine, cheap.num_gpus, cheap.rung) == ("1x RTX 4090", 1, "lora")
    assert cheap.cost == pytest.approx(0.5 * cheap.hours)
    assert cheap.peak_bytes <= cheap.free_bytes
    assert dear.cost is None
    assert dear.hours < cheap.hours
    assert dear.tokens_per_second > cheap.tokens_per_second


def test_where_nothing_fits_nothing_is_promised():
    """Neither hours nor tokens per second."""
    (row,) = rows(compare(model("llama-3.1-70b"), machines("T4"), dataset(), Answers()), (1.0,))

    assert (row.rung, row.hours, row.tokens_per_second, row.cost) == (None, None, None, None)
    assert not row.runs


def test_machines_are_named_by_their_gpus():
    """Or by the processor."""
    mixed, none = machines("2x RTX 4090 + RTX 3070")[0], HOST

    assert machine_name(mixed) == "2x RTX 4090 + 1x RTX 3070"
    assert machine_name(none) == HOST.cpu_name


def test_how_a_machine_s_text_was_read_stands_below_its_row():
    """Where the text left nothing open, there is nothing to tell."""
    found = compare(model(), machines("RTX 3060", "RTX 4090"), None, Answers())
    told = comparison.lines(found, rows(found), 80)
    assert sum('write "RTX 3060 12GB"' in line for line in told) == 1
