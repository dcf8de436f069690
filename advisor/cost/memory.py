"""Peak memory of one training process, from dimensions alone.

Decides which moment wins, and how far the device's use may lie from that. What is alive at each is
in moments.py, which adds up weights.py (all that parameters cause) and what the graph says that a
layer saves. Together they mirror TRL 1.16 SFTTrainer with PEFT 0.21, transformers 5.23 and
Accelerate. They do not know whether anything fits, what the machine is, or how long rows really
are.

Symbols as in reference/bottlenecks.md §3: h hidden, q and kv widths of queries and keys, f MLP
width, L layers, V vocabulary, r rank, M tokens of a micro-batch. "Checked" means: equal to the
byte in tests/test_memory.py against the real model on a CPU. Both hold in those files too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from advisor.cost.allocator import counted, fragments
from advisor.cost.moments import Moment, Term, candidates
from advisor.cost.standing import Candidate
from advisor.graph.head import tile_bytes
from profiles.facts import GIB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from advisor.plan import Plan
    from profiles.facts import Model

COMPONENTS: Final = (
    "weights",
    "adapters",
    "gradients",
    "optimizer",
    "paged_states",
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
class MemoryEstimate:
    """Predicted peak of one process on its device."""

    moments: tuple[Moment, ...]
    winner: str
    """Name of the moment with the most bytes."""
    allocated_bytes: int
    """Peak of torch allocations: the winner's total."""
    counted_bytes: tuple[int, int, int]
    """Low, expected and high of torch's own count on a GPU: with cuBLAS's workspaces, and without
    states in managed memory."""
    fragmentation_bytes: int
    reserved_bytes: int
    """What torch's allocator must take from the device: allocated and fragmentation."""
    reserved_high_bytes: int
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


def estimate(model: Model, plan: Plan) -> MemoryEstimate:
    """Peak memory of `plan` for `model`, per device, or of a process where it runs on a CPU."""
    on_cpu = plan.framework.on_cpu
    if on_cpu and plan.precision != "fp32":
        plan = replace(plan, precision="fp32")
    if longer := plan.settings.num_virtual_tokens:
        plan = replace(plan, seq_len=plan.seq_len + longer)
    tile = tile_bytes(model, plan, plan.tokens_per_micro_batch, on_cpu=on_cpu)
    moments = _moments(candidates(model, plan), plan, tile)
    peak = max(moments, key=lambda moment: moment.total_bytes)
    return _with_interval(plan, moments, peak, on_cpu=on_cpu)


def _moments(found: Iterable[Candidate], plan: Plan, tile: int) -> tuple[Moment, ...]:
    """The largest candidate of each name."""
    tokens = plan.tokens_per_micro_batch
    row = tokens if plan.packing else plan.seq_len  # TRL flattens a packed micro-batch to one row
    best: dict[str, tuple[float, Candidate]] = {}
    for candidate in found:
        once, per_token, per_pair = candidate.total
        total = once + (per_token + per_pair * row) * tokens + tile * candidate.has_tile
        if candidate.name not in best or total > best[candidate.name][0]:
            best[candidate.name] = (total, candidate)
    return tuple([Moment(won, tokens, row, tile, int(total)) for total, won in best.values()])


def _with_interval(
    plan: Plan, moments: tuple[Moment, ...], peak: Moment, *, on_cpu: bool
) -> MemoryEstimate:
    """Add what lies outside torch's count, as (low, expected, high).

    A CPU process has no caching allocator; malloc keeps a little.
    """
    variable = plan.sequences > 1 and not plan.packing
    allocated = peak.total_bytes
    fragmentation, worst = int(0.02 * allocated), int(0.05 * allocated)
    if not on_cpu:
        fragmentation, worst = fragments(plan, moments)
    context = PROCESS_BYTES if on_cpu else CONTEXT_BYTES
    nccl = NCCL_BYTES if plan.num_gpus > 1 and not on_cpu else (0, 0, 0)
    return MemoryEstimate(
        moments=moments,
        winner=peak.name,
        allocated_bytes=allocated,
        fragmentation_bytes=fragmentation,
        counted_bytes=counted(moments),
        reserved_bytes=allocated + fragmentation,
        reserved_high_bytes=allocated + worst,
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
