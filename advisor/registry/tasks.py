"""Tasks: what is learnt from which rows.

Scores of pairs are per token, so that a longer reply is not worse for being longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from advisor.registry.spec import key
from advisor.registry.task_spec import Objective, Score, TaskSpec

MARGIN: Final = Score("margin", "by how much likelier a token of the chosen reply is, in nats")
COMMONEST: Final = "the commonest class alone"
"""Of the rows that are trained on: what a head that knows nothing of texts can learn."""
PREFERRED: Final = Score("accuracy", "share of pairs whose chosen reply is the likelier one")


@dataclass(frozen=True, slots=True)
class Smoothing(Objective):
    """Of a task that learns the next token."""

    label_smoothing: float = key(
        0.0, "share of the target that all tokens of the vocabulary have alike", ge=0, lt=1
    )


@dataclass(frozen=True, slots=True)
class Beta(Objective):
    """Of a task that compares with a reference."""

    beta: float = key(0.1, "how strongly the model is held to what it was before", ge=0.001, le=10)


@dataclass(frozen=True, slots=True)
class Weight(Objective):
    """Of a task that learns the chosen reply too."""

    beta: float = key(
        0.1, "weight of the preference beside the loss of the chosen reply", ge=0.001, le=10
    )


SFT: Final = TaskSpec(
    name="sft",
    title="supervised fine-tuning",
    builder="sft",
    objective=Smoothing,
    proposed_by=("replies", "text"),
)
PRETRAIN: Final = TaskSpec(
    name="pretrain",
    title="continued pretraining",
    builder="pretrain",
    objective=Smoothing,
    learns_from=("text",),
    chooses_replies=False,
    packs=False,
    joins=True,
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
ORPO: Final = TaskSpec(
    name="orpo",
    title="preference training without a reference (ORPO)",
    builder="orpo",
    objective=Weight,
    learns_from=("preference",),
    chooses_replies=False,
    packs=False,
    sequences_per_row=2,
    scores=(MARGIN, PREFERRED),
)
REWARD: Final = TaskSpec(
    name="reward",
    title="a reward model",
    builder="reward",
    learns_from=("preference",),
    chooses_replies=False,
    packs=False,
    sequences_per_row=2,
    head="score",
    scores=(
        Score("accuracy", "share of pairs whose chosen reply is rewarded more", chance=0.5),
        Score("margin", "by how much more the chosen reply is rewarded", chance=0.0),
    ),
)
KTO: Final = TaskSpec(
    name="kto",
    title="training on good and bad replies (KTO)",
    builder="kto",
    objective=Beta,
    learns_from=("rated",),
    proposed_by=("rated",),
    chooses_replies=False,
    packs=False,
    least_micro_batch=2,
    extra_forwards=3,
    reference=True,
    scores=(
        Score(
            "margin", "by how much a token of a good reply gained, of a bad one lost", chance=0.0
        ),
        Score("accuracy", "share of good replies that gained and bad ones that lost", chance=0.5),
    ),
    rate_factor=0.1,
    drops_out=False,
)
CLASSIFY: Final = TaskSpec(
    name="classify",
    title="classification",
    builder="classify",
    learns_from=("label",),
    proposed_by=("label",),
    chooses_replies=False,
    packs=False,
    head="score",
    scores=(Score("accuracy", "share of rows whose class is the likeliest one", than=COMMONEST),),
)
TASKS: Final = (SFT, PRETRAIN, DPO, ORPO, KTO, REWARD, CLASSIFY)
