"""`advisor probe`."""

from __future__ import annotations

from profiles.machines import machine
from profiles.runs import rundir
from tui import plain
from tui.pages import machine as page


def probe(*, as_json: bool) -> int:
    """Print the machine."""
    found = machine.probe(rundir.home())
    if as_json:
        plain.show_json(found)
    else:
        plain.show(page.lines(found, plain.page_width()))
    return 0
