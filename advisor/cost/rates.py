"""How fast a GPU does the work of a micro-batch: a roofline for each shape of matmul.

Rates are the data sheet's, times the share that the part's best matmul reaches, times what a few
measured constants say about kernels in training. Every constant here is a share of a physical rate
or a time per kernel; none belongs to a model, a framework or a source of benchmarks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from advisor.cost.traffic import Attention, Work
    from advisor.plan import Plan
    from profiles.facts import Gpu, Model

DEFAULT_SHARES: Final = {"nvidia": 0.78, "amd": 0.60, "apple": 0.70}
"""Best matmul rate over the data sheet, where not measured on the part: middle of 70-87 % and
51-68 % (§0.5); Apple's is an assumption."""
THROTTLED_RATIO: Final = 3.6
"""Up to this many times the fp32 rate, tensor cores are cut by the vendor (GeForce 2, H20 3.4):
neither power nor memory then keeps matmuls from their rate."""
THROTTLED_SHARE: Final = 0.97
THROTTLED_FLASH_SHARE: Final = 0.75
"""Of the best matmul rate, then: what else limits the attention kernel was not cut. Assumed."""
MATMUL_SHARE: Final = 0.85
"""Of the best matmul rate, reached by the shapes of a training step (§3.1)."""
GROUPED_SHARE: Final = 0.5
"""Of the same, where one kernel serves the slices of many experts; assumed."""
BANDWIDTH_SHARE: Final = 0.75
"""Of the data sheet's bandwidth, reached by elementwise kernels. Fitted with T4's share."""
FLASH_SHARES: Final = {"8": 0.50, "9": 0.34, "10": 0.34}
"""FlashAttention-2, forward and backward, over the data sheet, by generation: the lower end of the
50-73 % of an A100, and 335 TFLOP/s of an H100 (Dao 2023, arXiv 2307.08691)."""
EFFICIENT_SHARE: Final = 0.30
"""Of the best matmul rate, reached by torch's memory-efficient kernel: with a mask, in fp32, or
before Ampere. Fitted with T4's share."""
BACKWARD_ATTENTION: Final = 2.5
"""Five products instead of two (§3.1)."""
DEQUANTIZE_SHARE: Final = 0.27
"""Of the bandwidth, reached by bitsandbytes' kernels that restore weights. Fitted with T4's share;
lit-gpt's pairs of runs with and without NF4 say the same of an A100 and an A10G."""
LAUNCH_SECONDS: Final = 40e-6
"""Host time per kernel in the forward pass, Python included. Published runs of 2023 and 2024 want
between 35 and 100 microseconds."""
BACKWARD_LAUNCH_SECONDS: Final = 20e-6
"""The same in the backward pass, which runs in C++; assumed to be half."""


class Rates(NamedTuple):
    """What one device reaches."""

    sheet: float
    """Data-sheet FLOP/s of the plan's precision."""
    narrow: float
    """FLOP/s of matmuls in 16 bits at their best in training."""
    wide: float
    """The same in 32 bits."""
    bandwidth: float
    """Data-sheet bytes per second."""
    flash: float
    """FLOP/s of fused attention without a mask, in 16 bits."""
    efficient: float
    """The same of the kernel that serves all other cases, in 16 bits."""
    efficient_wide: float
    """And in 32 bits."""
    is_measured: bool
    """The part's own matmuls were timed; else its share is that of its kind."""


class Seconds(NamedTuple):
    """Of one micro-batch, by cause."""

    matmul: float
    attention: float
    memory: float
    dequantize: float
    launch: float

    @property
    def device(self) -> float:
        """All but the launches, which go on beside it."""
        return self.matmul + self.attention + self.memory + self.dequantize


def rates_of(gpu: Gpu, plan: Plan) -> Rates | None:
    """The rates of a GPU, or None where one that the plan needs is not known."""
    sheet = _sheet_rate(gpu, plan)
    bandwidth = gpu.memory_bytes_per_second
    if not sheet or not bandwidth:
        return None
    wide = gpu.fp32_flops or sheet / 8
    throttled = sheet <= THROTTLED_RATIO * wide and plan.precision != "fp32"
    best = sheet * (gpu.achievable_share or _usual_share(gpu, throttled=throttled))
    # Shares that were measured are those of 16-bit matmuls.
    best_wide = wide * DEFAULT_SHARES.get(gpu.vendor, 0.6)
    generation = (gpu.compute_capability or "").partition(".")[0]
    flash = FLASH_SHARES.get(generation, FLASH_SHARES["8"]) * sheet
    flash = THROTTLED_FLASH_SHARE * best if throttled else flash
    efficient = EFFICIENT_SHARE * best
    return Rates(
        sheet=sheet,
        narrow=best * MATMUL_SHARE,
        wide=best_wide * MATMUL_SHARE,
        bandwidth=bandwidth,
        flash=efficient if generation in {"6", "7"} else flash,
        efficient=efficient,
        efficient_wide=EFFICIENT_SHARE * best_wide,
        is_measured=gpu.achievable_share is not None,
    )


def _usual_share(gpu: Gpu, *, throttled: bool) -> float:
    return THROTTLED_SHARE if throttled else DEFAULT_SHARES.get(gpu.vendor, 0.6)


def _sheet_rate(gpu: Gpu, plan: Plan) -> float | None:
    if plan.precision == "fp32":
        return gpu.fp32_flops
    if plan.precision == "fp16":
        return gpu.fp16_flops
    return None if gpu.has_bf16 is False else gpu.bf16_flops


def seconds_of(work: Work, rates: Rates, model: Model, tokens: int, row: int) -> Seconds:
    """Time of one micro-batch of `tokens` in rows of `row`, communication left out."""
    attention = sum([_attention_seconds(a, rates, model, tokens, row) for a in work.attention])
    memory = work.moved.at(tokens, row) / (BANDWIDTH_SHARE * rates.bandwidth)
    restore = work.dequantized / (DEQUANTIZE_SHARE * rates.bandwidth)
    launch = LAUNCH_SECONDS * work.forward_kernels + BACKWARD_LAUNCH_SECONDS * work.backward_kernels
    return Seconds(_matmul_seconds(work, rates, tokens, row), attention, memory, restore, launch)


def _matmul_seconds(work: Work, rates: Rates, tokens: int, row: int) -> float:
    """Each shape is bound by arithmetic or by its operands' bytes, whichever takes longer."""
    narrow, wide = tokens / rates.narrow, tokens / rates.wide
    bandwidth = BANDWIDTH_SHARE * rates.bandwidth
    seconds = 0.0
    for (flops, pair_flops, (once, each, pairs), width, grouped), times in work.products:
        arithmetic = (flops + pair_flops * row) * (narrow if width == 2 else wide)
        arithmetic = arithmetic / GROUPED_SHARE if grouped else arithmetic
        moving = (once + (each + pairs * row) * tokens) / bandwidth
        seconds += times * max(arithmetic, moving)
    return seconds


def _attention_seconds(
    attention: Attention, rates: Rates, model: Model, tokens: int, row: int
) -> float:
    """A causal kernel skips half the square, and what lies beyond a window."""
    window = min(row, model.sliding_window or row) if attention.sliding else row
    attended = window - window * window / (2 * row)
    if attention.masked:
        attended, rate = float(row), rates.efficient
    elif attention.width == 4:
        rate = rates.efficient_wide
    else:
        rate = rates.flash
    flops = attention.forward + BACKWARD_ATTENTION * attention.backward
    return flops * attended * tokens / rate
