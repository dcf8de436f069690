"""The recommendation: the tree's leaf, checked against the machine, with every alternative.

A leaf that does not fit is never recommended; the next rung of the ladder is taken, with the
reason. What the tree recommends may be something that the runner cannot run yet: then the nearest
that it runs stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

from advisor.choice import defaults, hyperparameters, tree
from advisor.choice.alternatives import Alternative, alternatives
from advisor.choice.answers import Answers
from advisor.choice.cautions import cautions
from advisor.choice.checks import check
from advisor.choice.choose import Choice, choose, runnable
from advisor.choice.devices import framework_on
from advisor.choice.duration import Duration
from advisor.choice.evidence import gather
from advisor.choice.fallback import fall_back, smallest, why_not_above
from advisor.choice.fit import Fit
from advisor.choice.options import Options
from advisor.choice.tree import Leaf, Step
from advisor.plan import Plan
from advisor.registry.spec import Hyperparameter
from profiles.facts import Dataset, Machine, Model

__all__ = ["Alternative", "Choice", "Hyperparameter", "Recommendation", "recommend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What to do on this machine with this model and data, and why."""

    model: Model
    machine: Machine
    dataset: Dataset | None
    answers: Answers
    """With the complexity that the data proposed, if the user named none."""
    path: tuple[Step, ...]
    leaf: Leaf
    rung: str | None
    """The rung taken; None if nothing fits."""
    fit: Fit
    """Of the rung taken, or of the one that comes nearest to fitting."""
    detour: str
    """Why the rung is not the leaf itself; empty if it is."""
    above: str
    """Why not the next rung above, and what would unlock it; empty if that one fits too."""
    runnable: Choice | None
    """The same where our runner can run it, else the nearest that it runs; None if none fits."""
    alternatives: tuple[Alternative, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    learning_rate: float
    epochs: float
    duration: Duration | None
    """Of the rung taken; None where the data's tokens or the device's rate are not known."""
    disk_bytes: int
    """Checkpoints kept, the final artefact, the base model's download, a mixture made of it."""
    warnings: tuple[str, ...]

    @property
    def hours(self) -> float | None:
        """Of the whole run; None if that is not known."""
        return self.duration.hours if self.duration else None

    @property
    def runs(self) -> bool:
        """What is recommended is what our runner runs."""
        return self.runnable is not None and not self.runnable.why


def recommend(
    model: Model, machine: Machine, dataset: Dataset | None, answers: Answers
) -> Recommendation:
    """Walk the tree on predicted facts and take the nearest plan that fits.

    UserError (USAGE) for inputs that cannot be true.
    """
    check(model, machine, dataset, answers)
    answers = defaults.with_complexity(answers, dataset)
    dataset = defaults.as_trained(model, dataset, answers)
    options = _options(model, machine, dataset, answers)
    path, leaf = _way(options, dataset, answers)
    rung, detour = fall_back(leaf, options)
    above = why_not_above(rung, options)
    chosen = choose(rung or smallest(options), options, dataset, leaf)
    can_run = runnable(chosen, options, dataset, leaf) if rung else None
    return Recommendation(
        model=model,
        machine=machine,
        dataset=dataset,
        answers=answers,
        path=path,
        leaf=leaf,
        rung=rung,
        fit=chosen.fit,
        detour=detour,
        above=above,
        runnable=can_run,
        alternatives=alternatives(options, rung, leaf, chosen.fit.plan, dataset),
        hyperparameters=chosen.hyperparameters,
        learning_rate=chosen.learning_rate,
        epochs=defaults.epochs(dataset),
        duration=chosen.duration,
        disk_bytes=chosen.disk_bytes,
        warnings=cautions(options, dataset, chosen),
    )


def _way(
    options: Options, dataset: Dataset | None, answers: Answers
) -> tuple[tuple[Step, ...], Leaf]:
    """Through the tree, or to what the documents take for the use that the user named."""
    if answers.domain is None:
        return tree.walk(answers, gather(options, dataset, answers))
    path, leaf = tree.of_domain(answers.domain, has_experts=options.model.experts is not None)
    wanted = hyperparameters.of_domain(leaf, options.model, dataset)
    options.start_from(wanted, leaf.methods[0])
    return path, leaf


def _options(model: Model, machine: Machine, dataset: Dataset | None, answers: Answers) -> Options:
    """All rungs from one base plan, 16-bit LoRA, with the ranks that their leaves would have."""
    base = Plan.of(
        "lora",
        task=answers.task.value,
        seq_len=defaults.seq_len(model, dataset, answers),
        rank=1,
        targets="attention" if model.experts else "all",
        precision=precision(machine),
        framework=framework_on(machine),
    )
    batch = defaults.batch(dataset, answers, base.seq_len)
    options = Options(model, machine, base, batch, num_tasks=dataset.num_tasks if dataset else 1)
    rich = not options.obstacle("full")
    leaf = tree.LORA_VALUE if rich else tree.by_complexity(answers)
    options.expect_ranks(
        hyperparameters.rank(leaf, model, dataset),
        quantized=hyperparameters.rank(tree.QLORA, model, dataset),
    )
    return options


def precision(machine: Machine) -> str:
    """bf16 where every GPU has it, fp16 on older ones, fp32 without a GPU."""
    if not machine.gpus:
        return "fp32"
    return "bf16" if all(gpu.has_bf16 is not False for gpu in machine.gpus) else "fp16"
