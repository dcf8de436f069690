"""The method-selection decision tree of the documents, walked on facts.

Every node visited keeps its question, its answer, where the answer came from and the number behind
it. The tree decides what would be right; whether it fits is settled by the facts it is given, and
what to do when a leaf does not fit or cannot be run yet is `recommend.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.wishes import Wishes
from profiles.facts import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What the documents recommend at an end of the tree."""

    name: str
    methods: tuple[str, ...]
    """In the order to try them."""
    ranks: tuple[int, int] | None = None
    """The documents' range of LoRA ranks."""


FULL = Leaf(name="full fine-tuning", methods=("full",))
LORA_VALUE = Leaf(name="LoRA, rank 32-64", methods=("lora",), ranks=(32, 64))
LORA_HIGH = Leaf(name="LoRA, rank 16-32", methods=("lora",), ranks=(16, 32))
LORA_MEDIUM = Leaf(name="LoRA, rank 8-16, or adapter", methods=("lora", "adapter"), ranks=(8, 16))
ADAPTER = Leaf(name="adapter or P-tuning", methods=("adapter", "p_tuning"))
QLORA = Leaf(name="QLoRA", methods=("qlora",), ranks=(16, 64))
BITFIT = Leaf(name="BitFit or prompt tuning", methods=("bitfit", "prompt_tuning"))
PROMPT = Leaf(name="prompt tuning", methods=("prompt_tuning",))
UPCYCLED = Leaf(name="mixture of experts by sparse upcycling", methods=("moe_upcycling",))
LORA_EXPERTS = Leaf(name="mixture of LoRA experts", methods=("lora_experts",))
LEAVES = (
    *(FULL, LORA_VALUE, LORA_HIGH, LORA_MEDIUM, ADAPTER),
    *(QLORA, BITFIT, PROMPT, UPCYCLED, LORA_EXPERTS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One node as visited."""

    question: str
    answer: str
    origin: Origin
    evidence: str
    """The number or the word behind the answer."""

    def __str__(self) -> str:
        return f"{self.question} {self.answer} ({self.origin}: {self.evidence})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the fit search found out, in the form the tree asks for it."""

    full_fits: bool
    full_words: str
    """For example "needs 141 GiB of 23.6 GiB free"."""
    lora_fits: bool
    """16-bit LoRA at micro-batch 1."""
    lora_words: str
    num_tasks: int = 1


def walk(wishes: Wishes, found: Evidence) -> tuple[tuple[Step, ...], Leaf]:
    """The path from the root and the leaf it ends at."""
    steps: list[Step] = []
    if found.num_tasks > 1:
        return _many_tasks(steps, found)
    if _plentiful(steps, found):
        return _rich(steps, wishes)
    limited = not found.lora_fits
    _ask(
        steps,
        "Is usable memory extremely limited?",
        limited,
        Origin.PREDICTED,
        f"16-bit LoRA at micro-batch 1 {found.lora_words}",
    )
    return _scarce(steps, wishes) if limited else _by_complexity(steps, wishes)


def _many_tasks(steps: list[Step], found: Evidence) -> tuple[tuple[Step, ...], Leaf]:
    words = f"{found.num_tasks} values in the column `task`"
    _ask(steps, "Does the data hold several distinct tasks?", True, Origin.MEASURED, words)
    leaf = UPCYCLED if _plentiful(steps, found) else LORA_EXPERTS
    return tuple(steps), leaf


def _plentiful(steps: list[Step], found: Evidence) -> bool:
    words = f"full fine-tuning {found.full_words}"
    return _ask(steps, "Is compute plentiful?", found.full_fits, Origin.PREDICTED, words)


def _rich(steps: list[Step], wishes: Wishes) -> tuple[tuple[Step, ...], Leaf]:
    critical, value = wishes.critical, wishes.value
    question = "Is the task critical and are resources no concern?"
    if _ask(steps, question, critical.value, critical.origin, _word(critical.value)):
        return tuple(steps), FULL
    question = "Is best value for money wanted?"
    if _ask(steps, question, value.value, value.origin, _word(value.value)):
        return tuple(steps), LORA_VALUE
    return tuple(steps), FULL


def _scarce(steps: list[Step], wishes: Wishes) -> tuple[tuple[Step, ...], Leaf]:
    quality, task = wishes.quality, wishes.task
    question = "Is quality near full fine-tuning needed?"
    if _ask(steps, question, quality.value, quality.origin, _word(quality.value)):
        return tuple(steps), QLORA
    is_classification = task.value == "classify"
    question = "Is it a classification task?"
    if _ask(steps, question, is_classification, task.origin, f"task is {task.value}"):
        return tuple(steps), BITFIT
    return tuple(steps), PROMPT


def _by_complexity(steps: list[Step], wishes: Wishes) -> tuple[tuple[Step, ...], Leaf]:
    complexity = wishes.complexity
    steps.append(
        Step(
            question="How complex is the task?",
            answer=complexity.value,
            origin=complexity.origin,
            evidence=f"complexity is {complexity.value}",
        )
    )
    leaves = {"high": LORA_HIGH, "medium": LORA_MEDIUM, "low": ADAPTER}
    return tuple(steps), leaves[complexity.value]


def _ask(steps: list[Step], question: str, yes: bool, origin: Origin, evidence: str) -> bool:
    answer = _word(yes)
    steps.append(Step(question=question, answer=answer, origin=origin, evidence=evidence))
    return yes


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
