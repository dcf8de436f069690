"""What a run did, as plain facts: measured by the worker, added up by `runs/run.py`.

Apart from facts.py, which a recommendation reads before there is any run. No I/O here either.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from profiles.class_facts import Classes
from profiles.intervals import Difference
from profiles.layer_facts import NO_LAYERS, Layers
from profiles.rank_facts import AdapterRanks
from profiles.row_counts import RowCounts


class Verdict(StrEnum):
    """Whether a run made the model better, on rows that were held out."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference"
    """None that so many rows could show."""
    NOT_COMPARED = "not compared"
    """The base model was not evaluated on the same rows, or there is but one."""
    NOT_FINITE = "not finite"
    """The loss is no number."""
    NOT_EVALUATED = "not evaluated"
    """Not after the first step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A run whose published result another one begins with."""

    key: str
    """Of the recipe, by which it is named."""
    run: str
    """Its id."""
    path: str
    """The folder of its result."""
    step: int
    """Whose weights that has."""
    fingerprint: str
    """One hash of all its files."""
    use: str = ""
    """Of an adapter: continue or merge."""
    ancestors: tuple[str, ...] = ()
    """Ids of the runs that it began with itself, the nearest first."""

    @property
    def words(self) -> str:
        """Like "the result of run 2026-11-22_0450_tiny_rwdxs"."""
        return f"the result of run {self.run}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreChange:
    """What a task judges by beside the loss: the higher, the better."""

    name: str
    before: float | None
    value: float | None
    against: str
    """What `before` is of: the base model, or chance."""
    gain: Difference | None
    """By how much it rose, with a 95 % interval over the rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From the base model to a step, on one evaluation set; losses in nats per token or row."""

    data: str
    """Name of the set; empty for one without."""
    base_loss: float | None
    loss: float | None
    gain: Difference | None
    """By how much the loss fell, with a 95 % interval over the rows."""
    scores: tuple[ScoreChange, ...] = ()

    @property
    def judged(self) -> Difference | None:
        """What says whether it is better: of the first score, or of the loss."""
        return self.scores[0].gain if self.scores else self.gain


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the evaluations of a run say of its model."""

    verdict: Verdict = Verdict.NOT_EVALUATED
    data: str = ""
    """Name of the evaluation set that decides; empty for one without."""
    before: str = "the base model"
    """What was trained: a base model, or the result of another run."""
    rows: int = 0
    """Of the set; 0 if they were not counted."""
    base_loss: float | None = None
    """Before training."""
    bare_loss: float | None = None
    """Of the base model without the adapter that was trained on, where there was one."""
    step: int | None = None
    """Whose weights are judged: those that were published, else the best so far."""
    loss: float | None = None
    gain: Difference | None = None
    """Of these weights over the base model; None where rows were not compared one by one."""
    scores: tuple[ScoreChange, ...] = ()
    """Of these weights; the first, if there is any, decides the verdict."""
    classes: Classes | None = None
    """How these weights sort the rows, where the task is to do so."""
    best_step: int | None = None
    best_loss: float | None = None
    last_step: int | None = None
    """The newest that was evaluated."""
    last_loss: float | None = None
    curve: tuple[tuple[int, float], ...] = ()
    """(step, loss) of the set that decides, the base model's at step 0; finite ones alone."""
    published_step: int | None = None
    worse_on: tuple[Change, ...] = ()
    """The other sets on which these weights are clearly worse: what was forgotten."""


NOT_EVALUATED: Final = Result()


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """How training went."""

    training: tuple[tuple[int, float], ...] = ()
    """(step, loss) as logged, in order; what was not finite is left out. Of more than 10 000 the
    means of as many neighbours each, at the first one's step."""
    num_steps: int = 0
    """Planned."""
    is_over: bool = False
    """No step will come."""


NO_CURVES: Final = Curves()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A held-out prompt, what the data answers, and what the model answered before and after."""

    prompt: str
    wanted: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run did, measured. Shares and rates are of steady steps unless they say "wall"."""

    id: str
    device: str
    """"cpu", "cuda:0"... as the trainer saw it."""
    compute_capability: str | None
    """CUDA's, of the GPU; None on a CPU, and where neither the run nor the table of GPUs says."""
    num_steps: int
    """Optimizer steps done."""
    num_steady_steps: int
    """Steps that the rates are taken from: warm-up, evaluation and saving left out."""
    step_seconds: float
    """Median of the steady steps."""
    phase_seconds: dict[str, float]
    """Mean seconds per steady step in data, forward, backward, optimizer and other."""
    longest_data_share: float
    """p99 of the data wait over its median; above 5 a few batches are the trouble."""
    wall_seconds: float
    """From the first to the last sign of training, all attempts added."""
    setup_seconds: float
    eval_seconds: float
    num_evals: int
    checkpoint_seconds: float
    num_checkpoints: int
    checkpoint_bytes: int
    """Size of the newest checkpoint."""
    tokens: int
    padded_tokens: int
    label_tokens: int
    longest: int
    """Tokens of the longest row seen."""
    tokens_per_second: float
    """Real tokens in steady steps."""
    wall_tokens_per_second: float
    peak_bytes: int
    """Allocated peak on a GPU, resident peak of the process on a CPU."""
    reserved_peak_bytes: int | None
    device_peak_bytes: int | None
    """Used memory of the fullest GPU as the driver saw it, other processes included."""
    capacity_bytes: int
    """Memory of that GPU, or of the host; 0 if the driver gave no sample."""
    num_alloc_retries: int
    throttle_shares: dict[str, float]
    """Share of busy samples with each throttle reason."""
    base_loss: float | None
    """Evaluation loss before training."""
    eval_loss: float | None
    """Newest evaluation loss."""
    first_loss: float | None
    last_loss: float | None
    unpacked: str = ""
    """Why rows were not packed though the recipe asks for it; empty if nothing was to be said."""
    rows: RowCounts | None = None
    """Of the whole file that is trained on; None in a run of an older version."""
    router_loss: float | None = None
    """Of a mixture's router at the last step that was logged, minimised beside the text's loss."""
    penalty_loss: float | None = None
    """Of the method on its weights, at that step, minimised beside the rows' loss."""
    smoothing_loss: float | None = None
    """What label smoothing adds at that step, minimised with the rows' loss."""
    ranks: AdapterRanks | None = None
    """Where they are not those of the recipe."""
    layers: Layers = NO_LAYERS
    """What they did in training, where that was recorded."""
    of_template: tuple[str, ...] = ()
    """What the chat template did not write as the file says."""
    parents: tuple[Parent, ...] = ()
    """Whose results it began with."""
    result: Result = NOT_EVALUATED
    curves: Curves = NO_CURVES
    samples: tuple[Sample, ...] = ()
