"""Tasks: what is learnt from which rows."""

from __future__ import annotations

from typing import Final

from advisor.registry.spec import TaskSpec

SFT: Final = TaskSpec(name="sft", title="supervised fine-tuning", builder="sft")
CLASSIFY: Final = TaskSpec(
    name="classify",
    title="classification",
    learns_from=("label",),
    head="score",
)
TASKS: Final = (SFT, CLASSIFY)
