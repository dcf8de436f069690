"""One training configuration, as far as memory and speed depend on it.

A `Plan` is what the fit search varies and what the estimates read. The recipe (`recipe.py`) is the
same choice written down for people, with everything else a run needs beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args

from advisor.framework import OURS, Framework
from advisor.registry.engine_spec import EngineSpec
from advisor.registry.engines import SINGLE
from advisor.registry.lookup import ENGINES, METHODS, OPTIMIZERS, TASKS
from advisor.registry.optimizer_spec import OptimizerSpec
from advisor.registry.optimizers import ADAMW
from advisor.registry.spec import (
    MethodSpec,
    Offload,
    Settings,
    keys_of,
)
from advisor.registry.task_spec import TaskSpec
from advisor.registry.tasks import SFT
from profiles.errors import ExitCode, UserError

Precision = Literal["bf16", "fp16", "bf16_pure", "fp32"]
Loss = Literal["chunked", "full", "liger", "fused", "listed"]
Attention = Literal["sdpa", "flash", "eager", "math"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A method with its settings, the batch, and how it is spread over devices.

    UserError (BAD_RECIPE) for a value outside of its set, and for what is no spec.
    """

    method: MethodSpec
    settings: Settings
    """Of the method's family."""
    seq_len: int
    """Tokens of the longest row in a micro-batch (after truncation), T."""
    task: TaskSpec = SFT
    micro_batch: int = 1
    """Rows per device and forward pass, B."""
    accumulation: int = 1
    """Forward passes per optimizer step."""
    optimizer: OptimizerSpec = ADAMW
    precision: Precision = "bf16"
    """"bf16" and "fp16": autocast; trained weights kept in fp32. "bf16_pure": trained weights,
    gradients and optimizer states in bf16. "fp32": no autocast, weights in fp32."""
    checkpointing: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""
    checkpointed_layers: int | None = None
    """How many of the layers are recomputed; None for all."""
    loss: Loss = "chunked"
    """"chunked": the LM head and the loss in tiles, logits never whole. "full": logits at once.
    "liger": Liger's fused linear cross-entropy. "fused": a kernel that writes the gradient over the
    logits. "listed": lit-gpt's list of chunks, all kept."""
    packing: bool = False
    engine: EngineSpec = SINGLE
    offload: Offload = ""
    """What lives in host memory: "", "optimizer" (states, and the step), "parameters" (both)."""
    num_gpus: int = 1
    """Devices that train together, over all nodes; 1 also for a CPU."""
    num_new_tokens: int = 0
    """Tokens that the model is to learn; it has rows for them by then."""
    attention: Attention = "sdpa"
    """"sdpa", "flash" (flash-attn 2, which needs no mask), "eager", or "math" (SDPA without a
    kernel)."""
    shifted_attention: bool = False
    """In training each layer attends within groups of a row, half of its heads to shifted ones."""
    label_smoothing: float = 0.0
    """Share of the target that all tokens of the vocabulary have alike."""
    framework: Framework = OURS

    @classmethod
    def of(
        cls,
        method: str,
        *,
        task: str = SFT.name,
        optimizer: str = ADAMW.name,
        strategy: str = SINGLE.name,
        **values: Any,
    ) -> Plan:
        """A plan by names; `values` are the method's settings and the plan's own.

        UserError (BAD_RECIPE) with the nearest name for one that is not known.
        """
        spec = METHODS[method]
        settings = {name: values.pop(name) for name in keys_of(spec.settings) if name in values}
        return cls(
            method=spec,
            settings=spec.settings(**settings),
            task=TASKS[task],
            optimizer=OPTIMIZERS[optimizer],
            engine=ENGINES[strategy],
            **values,
        )

    def as_names(self) -> dict[str, Any]:
        """What `of` takes to make the plan again; how a framework computes is left out."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _SPECS}
        settings = {name: getattr(self.settings, name) for name in keys_of(type(self.settings))}
        return (
            settings
            | own
            | {
                "method": self.method.name,
                "task": self.task.name,
                "optimizer": self.optimizer.name,
                "strategy": self.engine.name,
            }
        )

    def __post_init__(self) -> None:
        sound = (
            self.precision in _SETS["precision"]
            and self.loss in _SETS["loss"]
            and self.attention in _SETS["attention"]
            and self.offload in _SETS["offload"]
            and type(self.method) is MethodSpec
            and type(self.settings) is self.method.settings
            and type(self.optimizer) is OptimizerSpec
            and type(self.engine) is EngineSpec
            and type(self.task) is TaskSpec
        )
        if not sound:
            self._refuse()

    def _refuse(self) -> None:
        """Say which field it is; UserError always."""
        for name, kind in _KINDS.items():
            if type(getattr(self, name)) is not kind:
                raise _no_such(name, getattr(self, name), f"it is no {kind.__name__}")
        if type(self.settings) is not self.method.settings:
            what = f"{self.method.name} takes {self.method.settings.__name__}"
            raise _no_such("settings", self.settings, what)
        for name, values in _SETS.items():
            if getattr(self, name) not in values:
                raise _no_such(name, getattr(self, name), f"there are {', '.join(values)}")

    @property
    def updates_in_backward(self) -> bool:
        """Gradients are let go as soon as their weights are updated, layer by layer."""
        return self.framework.optimizer_in_backward or self.optimizer.steps_in_backward

    @property
    def learns_rows(self) -> bool:
        """Some rows of a frozen embedding train, and of the head."""
        return self.num_new_tokens > 0 and self.method.learns_tokens

    @property
    def base_bits(self) -> int:
        """Bits of the frozen linears."""
        return self.settings.base_bits

    @property
    def quantizes_experts(self) -> bool:
        """Routed experts have 4 bits too, unless they are divided; 8 bits are for linears alone."""
        able = self.framework.quantized_experts and not self.shards_weights
        return self.base_bits == 4 and able

    @property
    def shards_weights(self) -> bool:
        """Every device keeps a part of the weights and gathers the others' for a layer's time."""
        return self.num_gpus > 1 and "weights" in self.engine.divides

    @property
    def tokens_per_micro_batch(self) -> int:
        """Tokens one device holds activations for, padding included (M = B x T)."""
        return self.sequences * self.seq_len

    @property
    def sequences(self) -> int:
        """That go through the model at once on a device: two for a preference pair."""
        return self.micro_batch * self.task.sequences_per_row

    @property
    def effective_batch(self) -> int:
        """Rows per optimizer step over all devices."""
        return self.micro_batch * self.accumulation * self.num_gpus

    def with_settings(self, **changes: Any) -> Plan:
        """The plan with some of its method's settings changed."""
        settings: Any = self.settings
        return replace(self, settings=replace(settings, **changes))


_SPECS: Final = frozenset({"method", "settings", "task", "optimizer", "engine", "framework"})
_KINDS: Final = {
    "method": MethodSpec,
    "task": TaskSpec,
    "optimizer": OptimizerSpec,
    "engine": EngineSpec,
}
_SETS: Final = {
    "precision": frozenset(get_args(Precision)),
    "loss": frozenset(get_args(Loss)),
    "attention": frozenset(get_args(Attention)),
    "offload": frozenset(get_args(Offload)),
}


def _no_such(name: str, value: object, why: str) -> UserError:
    return UserError(
        f"a plan has no {name} {value!r}",
        why=why,
        do="`advisor methods` lists what there is",
        where=name,
        code=ExitCode.BAD_RECIPE,
    )
