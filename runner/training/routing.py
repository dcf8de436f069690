"""Where a mixture's tokens go: counted on the device by hooks, read when a record is due.

transformers says of each family which of its modules are routers. Counted is what a step learns
from: forward passes with gradients in training mode, without what is padding, without what
checkpointing computes again in the backward pass, and without what was thrown away when memory ran
out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from advisor.registry.low_rank import OWN_EXPERTS
from profiles.layer_facts import ExpertUse
from profiles.models.mixture import RouterScores, router_scores

_LOGITS = "router_logits"
"""transformers' key of what routers give."""
_LAYER = re.compile(r"\.(\d+)\.")


class _Use:
    """Of one layer, on its device."""

    def __init__(self, num_experts: int, device: torch.device) -> None:
        self.counts = torch.zeros(num_experts, dtype=torch.int64, device=device)
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.entropy = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, other: _Use) -> None:
        """Both together."""
        self.counts += other.counts
        self.tokens += other.tokens
        self.entropy += other.entropy


class RouterHooks:
    """Counts what goes through the routers of a model from here on."""

    def __init__(self, model: Any) -> None:
        self._steps: dict[int, _Use] = {}
        """Of the steps that are done since it was last read, by layer."""
        self._step: dict[int, _Use] = {}
        """Of the step that is made."""
        self._counts = False
        """A forward pass is under way that a step learns from."""
        self._mask: torch.Tensor | None = None
        """Where its tokens are no padding, of shape (tokens,); None where all are."""
        backbone, routers = _routers(model)
        self.num_layers = len({layer for layer, _, _ in routers})
        if backbone is None:
            return
        self._scores = router_scores(backbone.config.get_text_config().model_type)
        backbone.register_forward_pre_hook(self._begin, with_kwargs=True)
        backbone.register_forward_hook(self._end, always_call=True)
        for layer, router, index in routers:
            router.register_forward_hook(partial(self._count, layer, index))

    def _begin(self, backbone: Any, _given: Any, named: dict[str, Any]) -> None:
        self._counts = backbone.training and torch.is_grad_enabled()
        mask = named.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() == 2:  # (rows, tokens)
            self._mask = mask.reshape(-1).bool()

    def _end(self, *_: Any) -> None:
        self._counts, self._mask = False, None

    def _count(self, layer: int, index: int, router: Any, _given: Any, found: Any) -> None:
        if self._counts:
            with torch.no_grad():
                use = self._use(index, router, found if isinstance(found, tuple) else (found,))
            if use is not None:
                _add(self._step, layer, use)

    def _use(self, index: int, router: Any, found: tuple[Any, ...]) -> _Use | None:
        """Of one pass; None, rather than something wrong, where a family does not tell."""
        logits, real = found[index].detach(), self._mask
        if logits.dim() != 2:  # (tokens, experts)
            return None
        picked = _picked(found, logits, router)
        if picked is None or (real is not None and len(real) != len(logits)):
            return None
        if real is None:
            real = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        use = _Use(logits.shape[-1], logits.device)
        weights = real.to(torch.int64)[:, None].expand_as(picked)
        use.counts.scatter_add_(0, picked.flatten(), weights.flatten())
        use.tokens += real.sum()
        if self._scores is not None:
            use.entropy += (_entropies(logits, self._scores) * real).sum()
        return use

    def forget(self) -> None:
        """What was counted of the step that is being made: it is made again."""
        self._step = {}

    def end_step(self) -> None:
        """The step is made."""
        for layer, use in self._step.items():
            _add(self._steps, layer, use)
        self._step = {}

    def take(self) -> list[ExpertUse]:
        """What was counted since the last call, of this rank; waits for the device."""
        found, self._steps = self._steps, {}
        return [
            ExpertUse(
                layer=layer,
                tokens=int(use.tokens),
                counts=tuple(use.counts.tolist()),
                entropy=self._mean_entropy(use),
            )
            for layer, use in sorted(found.items())
        ]

    def _mean_entropy(self, use: _Use) -> float | None:
        mean = float(use.entropy) / max(1, int(use.tokens))
        return mean if self._scores is not None and math.isfinite(mean) else None


def _add(uses: dict[int, _Use], layer: int, use: _Use) -> None:
    if layer in uses:
        uses[layer].add(use)
    else:
        uses[layer] = use


def _routers(model: Any) -> tuple[Any, list[tuple[int, Any, int]]]:
    """The model that calls its routers, and these: layer, module, place of the logits in a tuple.

    None and nothing for a dense model, and for a family with several choices in a layer.
    """
    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    known = [part for part in parts if _LOGITS in part.can_record_outputs]
    if not known:
        return None, []
    backbone = known[-1]  # outer ones come first
    if backbone.config.get_text_config().model_type in OWN_EXPERTS:
        return None, []
    asked = backbone.can_record_outputs[_LOGITS]
    return backbone, list(_matching(backbone, asked if isinstance(asked, list) else [asked]))


def _matching(backbone: Any, asked: list[Any]) -> Iterator[tuple[int, Any, int]]:
    for name, module in backbone.named_modules(prefix="model"):
        for one in asked:
            kind, path = getattr(one, "target_class", None), getattr(one, "layer_name", None)
            is_there = not path or f".{path.strip('.')}." in f"{name}."
            number = _LAYER.search(name)
            if kind is not None and isinstance(module, kind) and is_there and number:
                yield int(number[1]), module, one.index


def _picked(found: tuple[Any, ...], logits: torch.Tensor, router: Any) -> torch.Tensor | None:
    """The experts of each token, of shape (tokens, k); None where a family does not tell."""
    for part in found:
        is_whole = isinstance(part, torch.Tensor) and not part.is_floating_point()
        if is_whole and part.dim() == logits.dim() and len(part) == len(logits):
            return part
    top_k = getattr(router, "top_k", None)  # by the logits, as Llama 4 has it
    return None if top_k is None else logits.topk(top_k, dim=-1).indices


def _entropies(logits: torch.Tensor, scores: RouterScores) -> torch.Tensor:
    """Of the probabilities of each token, in nats, of shape (tokens,)."""
    logits = logits.float()
    if scores == "softmax":
        logs = logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)
    shares = logits.sigmoid() if scores == "sigmoid" else logits
    return torch.special.entr(shares / shares.sum(-1, keepdim=True)).sum(-1)
