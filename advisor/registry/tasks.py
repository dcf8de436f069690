"""Tasks: what is learnt from which rows.

Scores of pairs are per token, so that a longer reply is not worse for being longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from advisor.registry.spec import key
from advisor.registry.task_spec import Objective, Score, TaskSpec

MARGIN: Final = Score("margin", "by how much likelier a token of the chosen reply is, in nats")
PREFERRED: Final = Score("accuracy", "share of pairs whose chosen reply is the likelier one")


@dataclass(frozen=True, slots=True)
class Beta(Objective):
    """How strongly the preference counts."""

    beta: float = key(
        0.1,
        "how strongly the trained model is held to the reference (DPO, KTO); weight of the "
        "preference beside the loss of the chosen reply (ORPO)",
        ge=0.001,
        le=10,
    )


SFT: Final = TaskSpec(
    name="sft",
    title="supervised fine-tuning",
    builder="sft",
    proposed_by=("replies", "text"),
)
DPO: Final = TaskSpec(
    name="dpo",
    title="preference training (DPO)",
    builder="dpo",
    objective=Beta,
    learns_from=("preference",),
    proposed_by=("preference",),
    chooses_replies=False,
    packs=False,
    sequences_per_row=2,
    extra_forwards=2,
    reference=True,
    scores=(MARGIN, PREFERRED),
    rate_factor=0.1,
    drops_out=False,
)
KTO: Final = TaskSpec(
    name="kto",
    title="training on good and bad replies (KTO)",
    objective=Beta,
    learns_from=("rated",),
    proposed_by=("rated",),
    chooses_replies=False,
    packs=False,
    least_micro_batch=2,
    extra_forwards=3,
    reference=True,
    rate_factor=0.1,
    drops_out=False,
)
CLASSIFY: Final = TaskSpec(
    name="classify",
    title="classification",
    learns_from=("label",),
    proposed_by=("label",),
    chooses_replies=False,
    packs=False,
    head="score",
)
TASKS: Final = (SFT, DPO, KTO, CLASSIFY)
