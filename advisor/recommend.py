"""The recommendation: the tree's leaf, checked against the machine, with every alternative.

A leaf that does not fit is never recommended; the next rung of the ladder is taken, with the
reason. Methods that the runner cannot run yet are named where the documents name them, and the
nearest that runs is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from advisor import fit, tree, words
from advisor.fit import Fit
from advisor.plan import ALL_TARGETS, LEARNING_RATES, Plan
from advisor.tree import Leaf, Step
from advisor.weights import adapter_params
from advisor.wishes import Wishes
from profiles.facts import Dataset, Machine, Model

RUNNABLE = ("full", "lora", "qlora")
"""Methods that the runner has; a test holds it against the runner's registry."""
LADDER = ("full", "full_8bit", "lora", "qlora")
"""Rungs from the most to the least memory."""
_LENGTH_STEP = 64
_TEMPLATE_MARGIN = 1.1
_TEMPLATE_TOKENS = 32
_DEFAULT_SEQ_LEN = 2048
_DEFAULT_BATCH = 16
_MIN_STEPS_AN_EPOCH = 20
_MANY_ROWS = 10_000
_VERY_MANY_ROWS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One rung of the ladder on this machine."""

    rung: str
    fit: Fit
    hours: float | None
    why_not: str
    """Why it was not chosen; empty for the chosen one."""
    unlock: str
    """What would make it possible; empty if it fits."""

    @property
    def fits(self) -> bool:
        """Its high estimate fits."""
        return self.fit.fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A proposed hyper-parameter and its reason."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to do on this machine with this model and data, and why."""

    model: Model
    machine: Machine
    dataset: Dataset | None
    wishes: Wishes
    path: tuple[Step, ...]
    leaf: Leaf
    rung: str | None
    """The rung taken; None if nothing fits."""
    fit: Fit
    """Of the rung taken, or of the one that comes nearest to fitting."""
    detour: str
    """Why the rung is not the leaf itself; empty if it is."""
    alternatives: tuple[Alternative, ...]
    settings: tuple[Setting, ...]
    learning_rate: float
    epochs: float
    hours: float | None
    disk_bytes: int
    """Checkpoints kept and the final artefact."""
    warnings: tuple[str, ...]


def recommend(
    model: Model, machine: Machine, dataset: Dataset | None, wishes: Wishes
) -> Recommendation:
    """Walk the tree on predicted facts and settle on the nearest plan that fits and runs."""
    seq_len = _seq_len(model, dataset, wishes)
    batch = _effective_batch(dataset, wishes)
    base = _base_plan(model, machine, seq_len)
    fits = {rung: fit.best(model, machine, _rung_plan(base, rung), batch) for rung in LADDER}
    # What decides in the tree is memory: full fine-tuning with AdamW, LoRA in 16 bits
    found = tree.Evidence(
        full_fits=fits["full"].fits,
        full_words=words.need(fits["full"]),
        lora_fits=fits["lora"].fits,
        lora_words=words.need(fits["lora"]),
        num_tasks=dataset.num_tasks if dataset else 1,
    )
    path, leaf = tree.walk(wishes, found)
    rung, detour = _settle(leaf, fits)
    if rung in ("lora", "qlora"):
        wanted = _rank(leaf, rung, model, dataset)
        fits[rung] = _best_rank(model, machine, _rung_plan(base, rung), wanted, batch)
    chosen = fits[rung] if rung else _nearest(fits)
    epochs = _epochs(dataset)
    method = chosen.plan.method
    alternatives = tuple(_alternative(r, fits[r], rung, leaf, dataset, epochs) for r in LADDER)
    return Recommendation(
        model=model,
        machine=machine,
        dataset=dataset,
        wishes=wishes,
        path=path,
        leaf=leaf,
        rung=rung,
        fit=chosen,
        detour=detour,
        alternatives=alternatives,
        settings=_settings(chosen.plan, leaf, epochs, dataset),
        learning_rate=LEARNING_RATES[method],
        epochs=epochs,
        hours=_hours(chosen, dataset, epochs),
        disk_bytes=_disk_bytes(model, chosen),
        warnings=_warnings(machine, dataset, chosen, seq_len),
    )


def _base_plan(model: Model, machine: Machine, seq_len: int) -> Plan:
    rank = min(16, model.hidden_size // 4)
    return Plan(
        method="lora",
        seq_len=seq_len,
        rank=rank,
        alpha=2 * rank,
        targets=ALL_TARGETS,
        precision=precision(machine),
    )


def precision(machine: Machine) -> str:
    """bf16 where every GPU has it, fp16 on older ones, fp32 without a GPU."""
    if not machine.gpus:
        return "fp32"
    return "bf16" if all(gpu.has_bf16 is not False for gpu in machine.gpus) else "fp16"


def _rung_plan(base: Plan, rung: str) -> Plan:
    if rung == "full":
        return replace(base, method="full", rank=0, alpha=0, targets=())
    if rung == "full_8bit":
        plan = replace(base, method="full", rank=0, alpha=0, targets=())
        return replace(plan, optimizer="adamw_8bit")
    return replace(base, method=rung)


def _best_rank(model: Model, machine: Machine, plan: Plan, wanted: int, batch: int) -> Fit:
    """The wanted rank, halved down to the one that was judged until it fits."""
    rank = wanted
    while True:
        found = fit.best(model, machine, _with_rank(plan, rank), batch)
        if found.fits or rank <= plan.rank:
            return found
        rank = max(plan.rank, rank // 2)


def _with_rank(plan: Plan, rank: int) -> Plan:
    return replace(plan, rank=rank, alpha=2 * rank)


def _settle(leaf: Leaf, fits: dict[str, Fit]) -> tuple[str | None, str]:
    """The rung to take for a leaf, and why it is another one if it is."""
    for method in leaf.methods:
        if method in fits and fits[method].fits:
            return method, ""
    runnable = [m for m in leaf.methods if m in RUNNABLE]
    wanted = runnable[0] if runnable else "lora"
    rungs = LADDER[LADDER.index(wanted) :]
    nearest = next((r for r in rungs if fits[r].fits), None)
    if not runnable:
        label = words.RUNGS[nearest] if nearest else "nothing"
        return nearest, words.not_runnable(leaf, label)
    if nearest is None:
        return None, words.nothing_fits(fits[_smallest(fits)])
    return nearest, words.does_not_fit(wanted, fits[wanted], nearest)


def _smallest(fits: dict[str, Fit]) -> str:
    return min(fits, key=lambda rung: fits[rung].memory.high_bytes)


def _nearest(fits: dict[str, Fit]) -> Fit:
    return fits[_smallest(fits)]


def _alternative(
    rung: str, found: Fit, chosen: str | None, leaf: Leaf, dataset: Dataset | None, epochs: float
) -> Alternative:
    return Alternative(
        rung=rung,
        fit=found,
        hours=_hours(found, dataset, epochs),
        why_not="" if rung == chosen else words.why_not(rung, found, chosen, leaf),
        unlock="" if found.fits else words.unlock(found),
    )


def _seq_len(model: Model, dataset: Dataset | None, wishes: Wishes) -> int:
    """Asked for, or the longest row rounded up, within what the model can read."""
    if wishes.seq_len is not None:
        return min(wishes.seq_len.value, model.max_positions)
    if dataset is None or dataset.tokens is None:
        return min(_DEFAULT_SEQ_LEN, model.max_positions)
    # The marks of the chat template are only estimated in the counts, and a cap that cuts the
    # replies costs far more than one that is too high
    longest = _TEMPLATE_MARGIN * dataset.tokens.max + _TEMPLATE_TOKENS
    return min(math.ceil(longest / _LENGTH_STEP) * _LENGTH_STEP, model.max_positions)


def _effective_batch(dataset: Dataset | None, wishes: Wishes) -> int:
    """16 rows, fewer for small data so that an epoch still has steps to learn in."""
    if wishes.effective_batch is not None:
        return wishes.effective_batch.value
    if dataset is None:
        return _DEFAULT_BATCH
    most = max(1, dataset.num_rows // _MIN_STEPS_AN_EPOCH)
    return min(_DEFAULT_BATCH, 1 << (most.bit_length() - 1))


def _rank(leaf: Leaf, rung: str | None, model: Model, dataset: Dataset | None) -> int:
    """The documents' range: its upper end for much data; never above a quarter of the width."""
    low, high = leaf.ranks or (8, 16)
    much = dataset is not None and dataset.num_rows >= _MANY_ROWS
    wanted = high if much or (rung == "qlora" and leaf.ranks is None) else low
    return max(1, min(wanted, model.hidden_size // 4))


def _epochs(dataset: Dataset | None) -> float:
    if dataset is None or dataset.num_rows < _MANY_ROWS:
        return 3.0
    return 2.0 if dataset.num_rows < _VERY_MANY_ROWS else 1.0


def _hours(found: Fit, dataset: Dataset | None, epochs: float) -> float | None:
    if dataset is None or dataset.tokens is None or found.speed is None:
        return None
    typical = dataset.tokens.mean if found.plan.micro_batch == 1 else dataset.tokens.p95
    tokens = dataset.num_rows * epochs * min(typical, found.plan.seq_len)
    return tokens / found.speed.tokens_per_second / 3600


def _disk_bytes(model: Model, found: Fit) -> int:
    """Three checkpoints with moments, and the artefact."""
    plan = found.plan
    trained = model.num_params if plan.method == "full" else adapter_params(model, plan)
    return trained * (3 * (4 + 8) + 4)


def _settings(
    plan: Plan, leaf: Leaf, epochs: float, dataset: Dataset | None
) -> tuple[Setting, ...]:
    rows = "the data's size is not known" if dataset is None else f"{dataset.num_rows} rows"
    found = [
        Setting(
            name="learning rate",
            value=f"{LEARNING_RATES[plan.method]:g}",
            reason=words.LEARNING_RATE[plan.method],
        )
    ]
    if plan.adapts:
        found += [
            Setting(name="rank", value=str(plan.rank), reason=words.rank(leaf)),
            Setting(name="alpha", value=str(plan.alpha), reason="twice the rank, the usual choice"),
            Setting(name="dropout", value="0", reason=words.DROPOUT),
            Setting(name="targets", value="all linears", reason=words.TARGETS),
        ]
    return (*found, Setting(name="epochs", value=f"{epochs:g}", reason=rows))


def _warnings(
    machine: Machine, dataset: Dataset | None, chosen: Fit, seq_len: int
) -> tuple[str, ...]:
    found = list(machine.notes) + list(dataset.warnings if dataset else ())
    if dataset and dataset.tokens and dataset.tokens.max > seq_len:
        found.append(words.truncation(dataset.tokens.max, seq_len))
    for gpu in machine.gpus:
        found += [words.holder(gpu, process) for process in gpu.holders]
    if chosen.speed is None:
        found.append(words.UNKNOWN_RATE)
    return tuple(found)
