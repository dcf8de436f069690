"""What a description of an optimizer or of a schedule of its learning rate consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from advisor.registry.spec import Named, Rate


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OptimizerSpec(Named):
    """How weights are updated, and what is kept for it."""

    name: str
    title: str
    optim: str = ""
    """Value of transformers' TrainingArguments.optim; the Trainer makes it without a `module`."""
    module: str = ""
    """Module of `runner.optimizers` that makes it. With neither: not yet."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the library's class that are not as transformers has them."""
    needs: tuple[str, ...] = ()
    rehearsed: bool = False
    """The rehearsal can make its states."""
    rate_factor: float = 1.0
    """Its learning rate to start from, in those of AdamW."""
    rate_reason: str = ""

    # What is kept
    states: int = 2
    """Values kept for each trained weight."""
    matrix_states: int | None = None
    """Of the layers' matrices, which are updated as a whole, where it is another number."""
    bits: Literal[32, 8] = 32
    """Of a state; 32 stands for the type of the weight."""
    fp32_states: bool = False
    """They are fp32 whatever the type of the weight."""
    paged: bool = False
    """States are in managed memory and on the device only for the step."""
    factored: bool = False
    """One value for each row and column of a matrix instead."""
    projected_rank: int = 0
    """Rank of the states, where they are those of projected gradients."""
    keeps_projection: bool = False
    extra_accesses: int = 0
    """Passes over the weights beside reading weight, gradient and states and writing them."""

    # What it does to training
    steps_in_backward: bool = False
    """Each weight is updated as soon as its gradient is there, which is then let go."""
    own_schedule: bool = False
    """It averages the weights instead of lowering the rate: the schedule is to be constant."""

    @property
    def builder(self) -> str:
        """What runs it; empty: not yet."""
        return self.module or self.optim

    @property
    def needs_gpu(self) -> bool:
        """It has no kernels for a CPU that are worth their while."""
        return self.bits == 8

    def bytes_for(self, shape: tuple[int, ...], width: int, *, in_layer: bool) -> int:
        """What it keeps for one tensor of weights of `width` bytes, without 8-bit states' scales.

        `in_layer`: the tensor is the matrix of a layer's linear.
        """
        size, each = prod(shape), 1 if self.bits == 8 else 4 if self.fp32_states else width
        if self.factored and len(shape) >= 2:
            return 4 * (size // shape[-1] + size // shape[-2])
        if self.factored:
            return 4 * size
        if self.projected_rank and in_layer:
            short, long = sorted(shape)
            kept = self.states * long + (short if self.keeps_projection else 0)
            return each * min(self.projected_rank, short) * kept
        is_whole = in_layer and self.matrix_states is not None
        return each * size * (self.matrix_states or 0 if is_whole else self.states)

    def rate(self, of_adamw: Rate) -> Rate:
        """Where to start, given where AdamW does; never above 1, the most of a recipe."""
        if self.rate_factor == 1:
            return of_adamw
        value = min(1.0, float(f"{of_adamw.value * self.rate_factor:.6g}"))
        reason = f"{self.rate_factor:g} of AdamW's: {self.rate_reason}; {of_adamw.reason}"
        return Rate(value, reason)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ScheduleSpec(Named):
    """How the learning rate changes over the steps, after the warm-up."""

    name: str
    title: str
    kind: str = ""
    """transformers' name of it; empty for our own, which follows the evaluations."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that are not as transformers has them."""
    needs_evaluation: bool = False

    @property
    def builder(self) -> str:
        """Each of them runs."""
        return self.name
