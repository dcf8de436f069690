"""Facts of a run as its worker would have measured them: nothing stands out."""

from __future__ import annotations

from dataclasses import replace

from profiles.run_facts import Run

GIB = 2**30
QUIET = Run(
    id="2026-01-01_0000_a_run",
    device="cuda:0",
    compute_capability="8.0",
    num_steps=100,
    num_steady_steps=90,
    step_seconds=1.0,
    phase_seconds={
        "data": 0.01,
        "forward": 0.3,
        "backward": 0.6,
        "optimizer": 0.05,
        "other": 0.04,
    },
    longest_data_share=1.2,
    wall_seconds=110.0,
    setup_seconds=8.0,
    eval_seconds=1.0,
    num_evals=2,
    checkpoint_seconds=1.0,
    num_checkpoints=2,
    checkpoint_bytes=8_000_000,
    tokens=99_000,
    padded_tokens=100_000,
    label_tokens=50_000,
    longest=512,
    tokens_per_second=990.0,
    wall_tokens_per_second=900.0,
    peak_bytes=20 * GIB,
    reserved_peak_bytes=21 * GIB,
    device_peak_bytes=22 * GIB,
    capacity_bytes=24 * GIB,
    base_loss=3.0,
    eval_loss=2.0,
    first_loss=3.1,
    last_loss=2.0,
    num_alloc_retries=0,
    throttle_shares={},
)


def measured(**changes: object) -> Run:
    """Such a run with these facts changed."""
    return replace(QUIET, **changes)
