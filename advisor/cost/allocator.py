"""What torch's caching allocator counts, and what it takes from the device beyond that.

Decides the intervals of both. Blocks that are free but cannot be used again are fragmentation: with
expandable segments a few percent of everything, without them a share of what comes and goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from advisor.tape import NOTHING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from advisor.cost.moments import Moment
    from advisor.plan import Plan

CUBLAS_BYTES: Final = 2 * 8_519_680
"""Workspaces that cuBLAS takes through torch, one for each of the threads of the two passes
(CUBLAS_WORKSPACE_CONFIG=:4096:2:16:8)."""
COUNTED: Final = (0.97, 1.08)
"""Low and high over expected. What lies above are buffers of kernels that no tape knows. Of 287
published peaks that torch counted, 282 are within 3 % (tests/bench/memory_accuracy.py)."""
EXPANDABLE: Final = {False: (0.05, 0.10), True: (0.10, 0.15)}
"""Expected and worst share of everything: rows of one length, or another in each batch (§3.6)."""
BY_BATCH: Final = (1.3, 1.6)
"""Without expandable segments, the device's bytes over those of tensors that a batch decides, where
all rows have one length: the median and nine tenths of fitcheck's 37 measured steps are 1.30 and
1.47, and of 176 runs of fms-acceleration, by nvidia-smi less the context, 1.3 and 1.7."""
BY_WEIGHTS: Final = (1.1, 1.3)
"""The same for gradients and temporaries of the step, whose sizes never change (11 of those runs
whose peak is the step: 1.06 to 1.28)."""
GATHERED: Final = (1.4, 2.0)
"""The same where layers are gathered and reduced beside them (18 of those runs: 1.1 to 2.3)."""
MANY_LENGTHS: Final = (3.25, 5.0)
"""The same for tensors that grow with a batch of random length: every new longest one needs new
segments, and the old ones fit nothing else. A simulated allocator gives 2.3 to 4.4 times, 3.25 in
the mean; the LoRA runs of ms-swift lie from 1.5 to 4.9."""
STATIC: Final = frozenset({"weights", "adapters", "optimizer"})


def counted(moments: Sequence[Moment]) -> tuple[int, int, int]:
    """torch.cuda.max_memory_allocated: low, expected, high. Paged states are not torch's."""
    peak = max([m.total_bytes - _paged(m) for m in moments])
    low, high = COUNTED
    return int(low * peak), peak + CUBLAS_BYTES, int(high * peak) + CUBLAS_BYTES


def fragments(plan: Plan, moments: Sequence[Moment]) -> tuple[int, int]:
    """What the allocator holds of the device beyond the peak of what is allocated: usual, worst."""
    allocated = max([moment.total_bytes for moment in moments])
    if plan.framework.expandable_segments:
        usual, worst = EXPANDABLE[plan.sequences > 1 and not plan.packing]
        return int(usual * allocated), int(worst * allocated)
    by_weights = GATHERED if plan.shards_weights else BY_WEIGHTS
    by_batch = BY_BATCH if plan.packing else MANY_LENGTHS
    usual, worst = (
        int(max([_taken(moment, *factors) for moment in moments])) - allocated
        for factors in zip(by_weights, by_batch, strict=True)
    )
    return usual, worst


def _taken(moment: Moment, by_weights: float, by_batch: float) -> float:
    """Static tensors as they are, the others times what the device holds for them."""
    shares, once = moment.candidate.shares, moment.candidate.total.once
    static = sum([shares[name].once for name in STATIC if name in shares])
    return static + by_weights * (once - static) + by_batch * (moment.total_bytes - once)


def _paged(moment: Moment) -> int:
    return int(moment.candidate.shares.get("paged_states", NOTHING).once)
