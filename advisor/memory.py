"""Peak memory of one training process, from dimensions alone.

Decides which of the three moments wins, and how far the device's use may lie from that. What is
alive at each is in moments.py, which adds up weights.py (all that parameters cause) and
activations.py (what a layer saves). Together they mirror TRL 1.16 SFTTrainer with PEFT 0.21,
transformers 5.23 and Accelerate. They do not know whether anything fits, what the machine is, or
the real lengths of rows.

Symbols as in reference/bottlenecks.md §3: h hidden, q and kv widths of queries and keys, f MLP
width, L layers, V vocabulary, r rank, M tokens of a micro-batch. "Checked" means: equal to the
byte in tests/test_memory.py against the real model on a CPU. Both hold in those files too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from advisor.moments import shares_at_moments
from profiles.facts import GIB

if TYPE_CHECKING:
    from advisor.plan import Plan
    from profiles.facts import Model

COMPONENTS: Final = (
    "weights",
    "adapters",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "workspace",
    "context",
    "fragmentation",
    "communication",
)

CONTEXT_BYTES: Final = (int(0.22 * GIB), GIB // 2, int(0.9 * GIB))
"""CUDA context: L4 with lazy loading; usual; eager loading of kernels (§3.6, vram_runs.md §4.7)."""
PROCESS_BYTES: Final = (int(0.4 * GIB), int(0.5 * GIB), int(0.8 * GIB))
"""A CPU process that has imported torch, transformers, peft and trl: 0.47 GiB resident."""
NCCL_BYTES: Final = (int(0.334 * GIB), int(0.8 * GIB), int(1.5 * GIB))
"""Two GPUs, defaults; one communicator with its buffers; several communicators (§3.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One share of a moment."""

    component: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is alive, in torch's own count, at one candidate for the peak."""

    name: str
    terms: tuple[Term, ...]
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Predicted peak of one process on its device."""

    moments: tuple[Moment, ...]
    winner: str
    """Name of the moment with the most bytes."""
    allocated_bytes: int
    """Peak of torch allocations: the winner's total."""
    fragmentation_bytes: int
    reserved_bytes: int
    """What torch's allocator must take from the device: allocated and fragmentation."""
    context_bytes: int
    communication_bytes: int
    """NCCL's own buffers, outside torch's count; gathered layers are in the moments."""
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    """Device memory in use at the peak; a plan fits where `high_bytes` does."""
    reasons: tuple[str, ...]
    """Why `high_bytes` lies above `expected_bytes`."""

    @property
    def peak(self) -> Moment:
        """The moment that wins."""
        return next(moment for moment in self.moments if moment.name == self.winner)

    @property
    def terms(self) -> tuple[Term, ...]:
        """The expected use of the device by component; sums to `expected_bytes`."""
        outside = (
            Term(component="context", num_bytes=self.context_bytes),
            Term(component="fragmentation", num_bytes=self.fragmentation_bytes),
            Term(component="communication", num_bytes=self.communication_bytes),
        )
        shares = dict.fromkeys(COMPONENTS, 0)
        for term in self.peak.terms + outside:
            shares[term.component] += term.num_bytes
        return tuple(Term(component=k, num_bytes=v) for k, v in shares.items() if v)


def estimate(model: Model, plan: Plan, *, backend: str = "cuda") -> MemoryEstimate:
    """Peak memory of `plan` for `model`, per device; `backend` "cpu" for a process without GPU.

    On a CPU the trainer keeps weights in fp32, for want of fast 16-bit arithmetic.
    """
    on_cpu = backend == "cpu"
    if on_cpu and plan.precision != "fp32":
        plan = replace(plan, precision="fp32")
    found = shares_at_moments(model, plan, on_cpu=on_cpu)
    moments = tuple(_moment(name, shares) for name, shares in found)
    peak = max(moments, key=lambda moment: moment.total_bytes)
    return _with_interval(plan, moments, peak, on_cpu=on_cpu)


def _moment(name: str, shares: dict[str, float]) -> Moment:
    terms = tuple([Term(component=k, num_bytes=int(v)) for k, v in shares.items() if v > 0])
    return Moment(name=name, terms=terms, total_bytes=sum([t.num_bytes for t in terms]))


def _with_interval(
    plan: Plan, moments: tuple[Moment, ...], peak: Moment, *, on_cpu: bool
) -> MemoryEstimate:
    """Add what lies outside torch's count, as (low, expected, high).

    Fragmentation (§3.6): 5 % with rows of one length, 10 % where every batch has another, up to
    10 % and 15 %. A CPU process has no caching allocator; malloc keeps a little.
    """
    variable = plan.micro_batch > 1 and not plan.packing
    shares = (0.02, 0.05) if on_cpu else ((0.10, 0.15) if variable else (0.05, 0.10))
    allocated = peak.total_bytes
    fragmentation, worst = int(shares[0] * allocated), int(shares[1] * allocated)
    context = PROCESS_BYTES if on_cpu else CONTEXT_BYTES
    nccl = NCCL_BYTES if plan.num_gpus > 1 and not on_cpu else (0, 0, 0)
    return MemoryEstimate(
        moments=moments,
        winner=peak.name,
        allocated_bytes=allocated,
        fragmentation_bytes=fragmentation,
        reserved_bytes=allocated + fragmentation,
        context_bytes=context[1],
        communication_bytes=nccl[1],
        low_bytes=allocated + context[0] + nccl[0],
        expected_bytes=allocated + fragmentation + context[1] + nccl[1],
        high_bytes=allocated + worst + context[2] + nccl[2],
        reasons=_reasons(variable=variable, on_cpu=on_cpu, distributed=plan.num_gpus > 1),
    )


def _reasons(*, variable: bool, on_cpu: bool, distributed: bool) -> tuple[str, ...]:
    if on_cpu:
        return ("freed memory that malloc keeps", "libraries loaded later")
    reasons = ["kernels loaded later enlarge the CUDA context"]
    if variable:
        reasons.append("batches of different padded lengths fragment the allocator's memory")
    else:
        reasons.append("the allocator rounds sizes up and splits its segments")
    if distributed:
        reasons.append("NCCL opens more communicators")
    return tuple(reasons)
