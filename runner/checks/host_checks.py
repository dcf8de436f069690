"""Whether RAM and disk of this machine hold what a run is predicted to need of them.

By the numbers that a recommendation rests on (advisor/choice/storage.py). Each raises a UserError
(exit code 71) that says what would do.
"""

from __future__ import annotations

from dataclasses import replace

from advisor.choice import words
from advisor.choice.fit import Fit
from advisor.choice.unlock import unlocks
from profiles.errors import ExitCode, UserError
from profiles.facts import Machine, Model


def check_ram(base: Model, here: Machine, found: Fit) -> None:
    """Processes that are killed while they load take others' with them."""
    if not found.short_ram_bytes:
        return
    room = max(found.budget_bytes, found.memory.high_bytes)
    alone = replace(found, budget_bytes=room, disk_bytes=0)
    ways = [way.words for way in unlocks(base, here, alone, on_more=False)]
    raise UserError(
        "the RAM is too small for this run",
        why=f"it {words.host_need(alone)}, while the weights are loaded, trained or saved",
        do=f"it would fit with {', or '.join(ways)}; --share starts it all the same",
        where="hardware.gpus",
        code=ExitCode.DRIVER,
    )


def check_disk(found: Fit) -> None:
    """Room for the fewest checkpoints that a run keeps, and for its result."""
    if not found.short_disk_bytes:
        return
    alone = replace(found, budget_bytes=found.memory.high_bytes, host_bytes=0)
    raise UserError(
        "the disk is too small for this run",
        why=f"it {words.host_need(alone)}",
        do=f"free {words.gib(found.short_disk_bytes)} there, or name a folder on a larger disk in "
        "TUNEDECK_HOME",
        where="TUNEDECK_HOME",
        code=ExitCode.DRIVER,
    )
