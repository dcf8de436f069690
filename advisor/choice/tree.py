"""The method-selection decision tree of the documents §1, walked on facts.

Every node visited keeps its question, its answer, where the answer came from and the number behind
it. The tree decides what would be right; whether a leaf's methods fit, and what to do when they do
not or cannot be run yet, is `fallback.py`'s business.

One node is not in the documents: where full fine-tuning with AdamW does not fit and the user said
that the task is critical, lighter forms of full fine-tuning are asked for before adapters are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from advisor.choice.answers import Answer, Answers
from advisor.registry.domains import DomainSpec
from advisor.registry.lookup import DOMAINS
from profiles.facts import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """What the documents recommend at an end of the tree."""

    name: str
    methods: tuple[str, ...]
    """Rungs of `ladder.py`, in the order to try them."""
    ranks: tuple[int, int] | None = None
    """The documents' range of LoRA ranks."""
    lighter: tuple[str, ...] = ()
    """Rungs that the documents name here and that a headline is not: what it stands for is the
    nearest of LoRA, QLoRA, full fine-tuning and mixtures."""
    domain: DomainSpec | None = None
    """Where the documents' settings for a use stand in the tree's place."""

    @property
    def reason(self) -> str:
        """Why what is recommended is just that."""
        if self.domain:
            return f"that is what the documents take for {self.domain.title}"
        instead = ", for which low-rank adapters of low rank are taken" if self.lighter else ""
        return f"the tree ends at: {self.name}{instead}"


FULL = Leaf(name="full fine-tuning", methods=("full",))
LIGHT_FULL = Leaf(
    name="full fine-tuning with lighter optimizer states, or of the last layers",
    methods=("full_8bit", "galore", "apollo", "freeze"),
)
LORA_VALUE = Leaf(name="LoRA, rank 32-64", methods=("lora",), ranks=(32, 64))
LORA_HIGH = Leaf(name="LoRA, rank 16-32", methods=("lora",), ranks=(16, 32))
LORA_MEDIUM = Leaf(name="LoRA, rank 8-16, or adapter", methods=("lora", "adapter"), ranks=(8, 16))
ADAPTER = Leaf(
    name="adapter or P-tuning", methods=("lora",), ranks=(4, 8), lighter=("adapter", "p_tuning")
)
QLORA = Leaf(name="QLoRA", methods=("qlora",), ranks=(16, 64))
BITFIT = Leaf(
    name="BitFit or prompt tuning",
    methods=("qlora",),
    ranks=(4, 8),
    lighter=("bitfit", "prompt_tuning"),
)
PROMPT = Leaf(name="prompt tuning", methods=("qlora",), ranks=(4, 8), lighter=("prompt_tuning",))
UPCYCLED = Leaf(
    name="mixture of experts by sparse upcycling", methods=("moe_upcycling", "moe_upcycling_8bit")
)
LORA_EXPERTS = Leaf(name="mixture of LoRA experts", methods=("lora_experts",), ranks=(8, 16))


def native(leaf: Leaf) -> Leaf:
    """The same end for a base that has experts; a complex task adapts them too, where it fits."""
    methods = ("lora_on_experts", *leaf.methods) if leaf == LORA_HIGH else leaf.methods
    return replace(leaf, name=f"native MoE: {leaf.name}", methods=methods)


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
    light_fits: bool = False
    """Some form of full fine-tuning between AdamW and adapters; read only for critical tasks."""
    light_words: str = ""
    has_experts: bool = False
    experts_words: str = "its config names no experts"
    num_tasks: int = 1
    tasks_words: str = "no data was given"
    tasks_origin: Origin = Origin.DEFAULT
    can_upcycle: bool = True
    upcycle_words: str = ""
    """The family that the base becomes, or why there is none."""


def of_domain(asked: Answer[str], *, has_experts: bool) -> tuple[tuple[Step, ...], Leaf]:
    """What the documents take for a use, in place of a walk; all targets of a mixture are experts.

    UserError (BAD_RECIPE) with the nearest name for one that is not known.
    """
    domain = DOMAINS[asked.value]
    words = f"documents: {domain.words}"
    step = Step(question="What is it for?", answer=domain.name, origin=asked.origin, evidence=words)
    experts = ("lora_on_experts",) if has_experts and "targets" in domain.settings else ()
    methods, ranks = (*experts, *domain.rungs), domain.ranges.get("rank")
    return (step,), Leaf(name=domain.words, methods=methods, ranks=ranks, domain=domain)


class _Path:
    """The nodes visited so far."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def ask(self, question: str, yes: bool, origin: Origin, evidence: str) -> bool:
        """Note a node with its answer, and give the answer back."""
        self.note(question, _word(yes), origin, evidence)
        return yes

    def note(self, question: str, answer: str, origin: Origin, evidence: str) -> None:
        """Note a node that has more answers than two."""
        step = Step(question=question, answer=answer, origin=origin, evidence=evidence)
        self.steps.append(step)


def walk(answers: Answers, found: Evidence) -> tuple[tuple[Step, ...], Leaf]:
    """The path from the root and the leaf it ends at."""
    path = _Path()
    question = "Is the base model a mixture of experts?"
    if path.ask(question, found.has_experts, Origin.MEASURED, found.experts_words):
        leaf = native(_one_task(path, answers, found))
    elif path.ask(
        question="Does the data hold several distinct tasks?",
        yes=found.num_tasks > 1,
        origin=found.tasks_origin,
        evidence=found.tasks_words,
    ):
        leaf = _many_tasks(path, found)
    else:
        leaf = _one_task(path, answers, found)
    return tuple(path.steps), leaf


def _many_tasks(path: _Path, found: Evidence) -> Leaf:
    if not _plentiful(path, found):
        return LORA_EXPERTS
    question = "Can the base be made a mixture of experts?"
    origin, words = Origin.MEASURED, found.upcycle_words
    return UPCYCLED if path.ask(question, found.can_upcycle, origin, words) else LORA_EXPERTS


def _one_task(path: _Path, answers: Answers, found: Evidence) -> Leaf:
    if _plentiful(path, found):
        return _rich(path, answers)
    if answers.critical.value and path.ask(
        question="The task is critical: does a lighter full fine-tuning fit?",
        yes=found.light_fits,
        origin=Origin.PREDICTED,
        evidence=found.light_words,
    ):
        return LIGHT_FULL
    words = f"16-bit LoRA at micro-batch 1 {found.lora_words}"
    question, limited = "Is usable memory extremely limited?", not found.lora_fits
    if path.ask(question, limited, Origin.PREDICTED, words):
        return _scarce(path, answers)
    complexity = answers.complexity
    words = answers.complexity_words or f"complexity is {complexity.value}"
    path.note("How complex is the task?", complexity.value, complexity.origin, words)
    return by_complexity(answers)


def _plentiful(path: _Path, found: Evidence) -> bool:
    words = f"full fine-tuning {found.full_words}"
    return path.ask("Is compute plentiful?", found.full_fits, Origin.PREDICTED, words)


def _rich(path: _Path, answers: Answers) -> Leaf:
    critical, value = answers.critical, answers.value
    question = "Is the task critical and are resources no concern?"
    if path.ask(question, critical.value, critical.origin, _word(critical.value)):
        return FULL
    question = "Is best value for money wanted?"
    return LORA_VALUE if path.ask(question, value.value, value.origin, _word(value.value)) else FULL


def _scarce(path: _Path, answers: Answers) -> Leaf:
    quality, task = answers.quality, answers.task
    question = "Is quality near full fine-tuning needed?"
    if path.ask(question, quality.value, quality.origin, _word(quality.value)):
        return QLORA
    is_classification = task.value == "classify"
    question = "Is it a classification task?"
    words = f"task is {task.value}"
    return BITFIT if path.ask(question, is_classification, task.origin, words) else PROMPT


def by_complexity(answers: Answers) -> Leaf:
    """Where the tree ends if compute is neither plentiful nor extremely limited."""
    return {"high": LORA_HIGH, "medium": LORA_MEDIUM, "low": ADAPTER}[answers.complexity.value]


def _word(yes: bool) -> str:
    return "yes" if yes else "no"
