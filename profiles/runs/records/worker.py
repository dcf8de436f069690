"""Records of events.runner.jsonl: what happens in the training process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from profiles.quantities import count_text, duration_text
from profiles.row_counts import RowCounts
from profiles.runs.records.form import LEFT_OUT
from profiles.runs.records.record import LastingWarning, Record

_MOST_NAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Record):
    """The first training process lives."""

    kind: ClassVar[str] = "worker_started"

    pid: int
    start: int | None = None
    """Its start time in clock ticks since boot, which makes the pid an identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase(Record):
    """A part of the start or of the end begins; it lasts until the next record."""

    kind: ClassVar[str] = "phase"

    phase: str
    """One of `_PHASES`; those of a start in their order."""
    total: int
    """Rows, batches or answers; 0 if nobody knows."""

    @property
    def words(self) -> str:
        """Like "tokenising (999)"."""
        text = _PHASES.get(self.phase, self.phase)
        return f"{text} ({count_text(self.total)})" if self.total else text


_PHASES = {
    "importing": "importing torch and the libraries",
    "reading": "reading the data",
    "tokenising": "tokenising",
    "merging": "merging the adapter into the model",
    "loading": "loading the model",
    "checking": "checking the weights",
    "packing": "packing rows",
    "directions": "looking for the directions of the data",
    "hashing": "hashing the files of data and model",
    "preparing": "setting up the optimizer and the devices",
    "evaluating": "evaluating the model before training",
    "answering": "answering held-out prompts",
    "longest": "trying the longest batch",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared(Record):
    """Model and data are loaded."""

    kind: ClassVar[str] = "prepared"

    seconds: float
    num_train: int
    """Rows to train on."""
    num_dropped: int
    """Rows of which nothing is learnt, left out."""
    num_at_max_length: int = 0
    """Rows that are cut."""
    num_tokens: int | None = field(default=None, metadata=LEFT_OUT)
    """Of the rows to train on, as cut, and"""
    num_learnt: int | None = field(default=None, metadata=LEFT_OUT)
    """those among them that the loss is taken on."""
    file: RowCounts | None = field(default=None, metadata=LEFT_OUT)
    """Of the whole file that is trained on, held-out rows included, as a check counts it."""
    of_template: tuple[str, ...] | None = field(default=None, metadata=LEFT_OUT)
    """What the chat template does not write as the file says, and replies without an end mark."""
    num_trainable: int
    """Weights."""
    reclaimed_bytes: int
    """What a crash had left of unfinished checkpoints."""
    device: str
    compute_capability: str | None = None
    """Of a CUDA device."""

    @property
    def words(self) -> str:
        """Sizes, and where they are."""
        file = f"{count_text(self.file.num_rows)} rows of {self.file.words}, " if self.file else ""
        return (
            f"model and data are there: {file}{count_text(self.num_train)} rows to train on; "
            f"{count_text(self.num_trainable)} trained weights on {self.device}"
        )

    @property
    def warning(self) -> str:
        """Of rows that are cut, or left out."""
        rows = self.num_train + self.num_dropped
        mine = RowCounts(
            num_rows=rows, num_dropped=self.num_dropped, num_cut=self.num_at_max_length
        )
        return (self.file or mine).losses("data.max_length")

    @property
    def warnings(self) -> tuple[str, ...]:
        """And what the chat template changes."""
        return tuple(filter(None, (self.warning, *(self.of_template or ()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Record):
    """An attempt goes on from a checkpoint, or from the base model where none was saved."""

    kind: ClassVar[str] = "resumed"

    from_step: int
    passed_over: tuple[str, ...]
    """Newer checkpoints that do not verify, each with why."""
    what: str = ""

    @property
    def reached(self) -> int:
        """The checkpoint's step."""
        return self.from_step

    @property
    def words(self) -> str:
        """Where it goes on and why there."""
        return self.what or f"resumed from step {self.from_step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestTried(Record):
    """The longest batch went through forward and backward before the first step."""

    kind: ClassVar[str] = "longest_tried"

    rows: int
    longest: int
    """Tokens of its longest row."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBegun(Record):
    """The first step of the attempt comes next."""

    kind: ClassVar[str] = "train_begun"

    step: int
    """Steps done before."""
    num_steps: int
    """Planned in all."""
    seconds: float | None = field(default=None, metadata=LEFT_OUT)
    """Since the attempt was started."""

    @property
    def words(self) -> str:
        """How long it will be, and how long that took."""
        after = "" if self.seconds is None else f" after {duration_text(self.seconds)}"
        return f"training begins{after}, {self.num_steps} steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed(Record):
    """Somebody asked for other intervals; they hold for later attempts too."""

    kind: ClassVar[str] = "changed"

    step: int
    log_every: int | None = field(default=None, metadata=LEFT_OUT)
    eval_every: int | None = field(default=None, metadata=LEFT_OUT)

    @property
    def words(self) -> str:
        """Which, from when on."""
        told = {"logged": self.log_every, "evaluated": self.eval_every}
        parts = [f"{name} every {n} steps" for name, n in told.items() if n]
        return f"from step {self.step} on: {', '.join(parts)}" if parts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveBegun(Record):
    """A checkpoint is being written."""

    kind: ClassVar[str] = "save_begun"

    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveFailed(Record):
    """It was given up for lack of room."""

    kind: ClassVar[str] = "save_failed"

    step: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint(Record):
    """A checkpoint has its final name."""

    kind: ClassVar[str] = "checkpoint"

    step: int
    seconds: float
    bytes: int

    @property
    def words(self) -> str:
        """Which one."""
        return f"step {self.step}: checkpoint saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated(Record):
    """Old checkpoints were removed."""

    kind: ClassVar[str] = "rotated"

    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Record):
    """Training waits: for a person, or for room on the disk."""

    kind: ClassVar[str] = "paused"

    step: int
    reason: str = ""
    """asked, disk_full."""
    what: str = ""

    @property
    def words(self) -> str:
        """Where and why."""
        return f"paused at step {self.step}" + (f": {self.what}" if self.what else "")

    @property
    def notice(self) -> str:
        """Why, as long as it waits."""
        return self.what or self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaused(Record):
    """Training goes on, or a stop was asked for."""

    kind: ClassVar[str] = "unpaused"
    ends: ClassVar[str] = Paused.kind

    step: int

    @property
    def words(self) -> str:
        """That it does."""
        return "going on"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAccepted(Record):
    """Training ends at this step."""

    kind: ClassVar[str] = "stop_accepted"

    step: int
    verb: str
    """stop, stop_now."""

    @property
    def words(self) -> str:
        """Where."""
        return f"stopping at step {self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard(LastingWarning):
    """Something is wrong with the numbers of a step."""

    kind: ClassVar[str] = "guard"

    step: int
    fault: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory(LastingWarning):
    """Micro-batches are divided from here on."""

    kind: ClassVar[str] = "oom"

    step: int
    during: str
    """train, eval."""
    pieces: int
    """Into how many."""
    micro_batch: int
    """Rows of a piece."""
    accumulation: int
    error: str
    """First line of what the library raised."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalled(LastingWarning):
    """The process lives and makes no progress."""

    kind: ClassVar[str] = "stalled"

    step: int
    phase: str
    seconds: float
    """Since the last sign of progress."""
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progressing(Record):
    """A stall is over."""

    kind: ClassVar[str] = "progressing"
    ends: ClassVar[str] = Stalled.kind

    step: int

    @property
    def words(self) -> str:
        """That it is."""
        return "going on"


@dataclass(frozen=True, slots=True, kw_only=True)
class End(Record):
    """The worker came to its end by itself."""

    kind: ClassVar[str] = "end"

    state: str
    """finished, stopped."""
    step: int
