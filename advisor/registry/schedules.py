"""Schedules of the learning rate: each rises in a line for as long as the warm-up, then differs.

transformers' own words are handed on, with two arguments without which its cosine with restarts is
a cosine and its polynomial a line. Restarts are those of arXiv 1608.03983.
"""

from __future__ import annotations

from typing import Final

from advisor.registry.optimizer_spec import ScheduleSpec

PLATEAU_FACTOR: Final = 0.5
"""What the rate is multiplied by on a plateau."""
PLATEAU_PATIENCE: Final = 2
"""Evaluations in a row without a lower loss that are a plateau."""
RESTARTS: Final = 3
POWER: Final = 2.0

COSINE: Final = ScheduleSpec(name="cosine", title="half a cosine", kind="cosine")
# transformers' "constant" has no warm-up, whatever it is told.
CONSTANT: Final = ScheduleSpec(
    name="constant", title="as high to the end", kind="constant_with_warmup"
)
SCHEDULES: Final = (
    COSINE,
    ScheduleSpec(name="linear", title="a line", kind="linear"),
    CONSTANT,
    ScheduleSpec(
        name="cosine_restarts",
        title=f"half a cosine, {RESTARTS} times",
        kind="cosine_with_restarts",
        options={"num_cycles": RESTARTS},
    ),
    ScheduleSpec(
        name="polynomial",
        title="the square of what is left",
        kind="polynomial",
        options={"power": POWER, "lr_end": 0.0},
    ),
    ScheduleSpec(
        name="inverse_sqrt",
        title="by the root of the steps",
        kind="inverse_sqrt",
    ),
    ScheduleSpec(
        name="plateau",
        title=f"halved after {PLATEAU_PATIENCE} evaluations without gain",
        needs_evaluation=True,
    ),
)
