"""`advisor probe`."""

from __future__ import annotations

from profiles import installation
from profiles.machines import machine
from tui import plain
from tui.pages import machine as page


def probe(*, as_json: bool) -> int:
    """Print the machine."""
    found = machine.probe(installation.home())
    if as_json:
        plain.show_json(found)
    else:
        plain.show(page.lines(found, plain.page_width()))
    return 0
