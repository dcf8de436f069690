"""AdaLoRA: adapters that lose the directions that matter least while they are trained (PEFT).

PEFT's own checkpoints of it hold pruned adapters and nothing of what the pruning goes by, and
cannot be gone on with: every direction and its importance are kept beside them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from peft import AdaLoraConfig, get_peft_model
from peft.tuners.adalora import AdaLoraLayer

from advisor.plan import Plan
from advisor.registry.adaptive import AdaptiveRank
from advisor.registry.low_rank import LORA, LowRank
from profiles.errors import ExitCode, UserError
from profiles.rank_facts import AdapterRanks, LinearRanks
from profiles.runs.records.ranks import Ranks
from runner.methods import low_rank, new_tokens
from runner.methods.products import Product, undivided, weight_of

_ADAPTER = "default"
_SINGULAR = f".lora_E.{_ADAPTER}"
_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""PEFT's names of the importance of weights: newest, its mean, and the mean of how it varies."""
_PATTERN = "rank_pattern"
_PER_RANK = 1e-5
"""That PEFT adds to the number of directions as it divides by it."""
_UNKNOWN_STEPS = 10**9
_LAYER = re.compile(r"^.*?\.\d+\.")


def load_options(plan: Plan) -> dict[str, Any]:
    """As beside other low-rank adapters."""
    return low_rank.load_options(plan)


def adapt(model: Any, plan: Plan) -> Any:
    """The model with its adapters, in fp32 unless all is to be in 16 bits.

    How many steps there are is told by `begin`: until then nothing would ever be pruned.
    """
    settings = _settings(plan)
    fixed = LowRank(alpha=settings.alpha, dropout=settings.dropout, targets=settings.targets)
    usual = low_rank.peft_config(replace(plan, method=LORA, settings=fixed), model)
    config = AdaLoraConfig(
        init_r=settings.init_rank,
        target_r=settings.target_rank,
        lora_alpha=usual.lora_alpha,
        lora_dropout=usual.lora_dropout,
        target_modules=usual.target_modules,
        modules_to_save=usual.modules_to_save,
        trainable_token_indices=usual.trainable_token_indices,
        task_type=usual.task_type,
        # It is added to the task's own loss (`penalty`): the fused head makes none for PEFT
        orth_reg_weight=0.0,
        total_step=_UNKNOWN_STEPS,
    )
    # PEFT takes adapters that have lost all directions for shards that nobody gathered
    warnings.filterwarnings("ignore", message=r"Adapter '.*invalid shape")
    adapted = get_peft_model(model, config)
    new_tokens.finish(adapted)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            is_narrow = plan.precision == "bf16_pure"
            parameter.data = parameter.data.to(torch.bfloat16 if is_narrow else torch.float32)
    return adapted


def begin(model: Any, plan: Plan, num_steps: int) -> None:
    """Set when the ranks fall; UserError if a run of so many steps has no room for it."""
    settings, config = _settings(plan), _config(model)
    if why := settings.too_short(num_steps):
        raise UserError(
            f"the run is too short for {plan.method.title}",
            why=why,
            do="set them in the recipe, each a share of the steps or their number",
            where="method.tfinal",
            code=ExitCode.BAD_RECIPE,
        )
    schedule = settings.schedule(num_steps)
    config.total_step = num_steps
    config.tinit, config.deltaT = schedule.begin, schedule.every
    config.tfinal = num_steps - schedule.end


def after_step(model: Any, step: int, *, was_skipped: bool) -> Ranks | None:
    """Judge all directions by the gradients of this step, and prune; the ranks once they are final.

    `step`: as many are made, this one included. `was_skipped`: its gradients were not finite.
    """
    config, allocator = _config(model), model.base_model.rankallocator
    end = config.total_step - config.tfinal
    if was_skipped:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
    is_open = step <= end or bool(allocator.ipt)  # scores are let go when the ranks are final
    # of a run that was cut short, the end may have been passed unnoticed
    model.base_model.update_and_allocate(min(step, end) if is_open else step)
    if not is_open or step < end:
        return None
    return ranks(model, step)


def penalty(model: Any, plan: Plan) -> torch.Tensor | None:
    """What is minimised beside a task's loss: directions of an adapter are to be orthonormal.

    The mean over A and B of all adapters of |P P^T - 1| in Frobenius' norm, as PEFT has it; the
    paper has the norm's square (arXiv 2303.10512, eq. 4). Weighted by `orthogonality`; None at 0.
    """
    weight = _settings(plan).orthogonality
    if not weight:
        return None
    norms = []
    with torch.autocast(model.device.type, enabled=False):
        for name, matrix in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                rows = (matrix if ".lora_A." in name else matrix.T).float()
                one = torch.eye(len(rows), device=rows.device)
                norms.append(torch.linalg.matrix_norm(rows @ rows.T - one))
    return weight * torch.stack(norms).mean()


def updates(model: Any) -> Iterator[Product]:
    """What each adapter adds to its weight: B diag(E) A, by the directions that are left."""
    for name, module in model.named_modules():
        if isinstance(module, AdaLoraLayer):
            low, singular, high = (
                undivided(part[_ADAPTER]) for part in (module.lora_A, module.lora_E, module.lora_B)
            )
            number = float(undivided(module.ranknum[_ADAPTER]))
            yield Product(
                name=name,
                left=high,
                right=low * singular,
                scale=module.scaling[_ADAPTER] / (number + _PER_RANK),
                weight=partial(weight_of, module.get_base_layer()),
            )


def before_saving(model: Any) -> None:
    """PEFT leaves out of a file what its last pattern does, and since then it may have grown."""
    if model.base_model.rankallocator.ipt:
        pattern = {n: (e != 0).view(-1).tolist() for n, e in _singular(model).items()}
        _config(model).rank_pattern = pattern


def ranks(model: Any, step: int) -> Ranks:
    """How many directions each adapter has after this step."""
    config = _config(model)
    begin, end = config.tinit, config.total_step - config.tfinal
    found: dict[str, list[int]] = {}
    for name, values in _singular(model).items():
        linear = _LAYER.sub("", name.removesuffix(_SINGULAR))
        found.setdefault(linear, []).append(int(values.count_nonzero()))
    what = f"gradients times weights, smoothed over the steps up to {min(step, end)}"
    if step < end:
        what += f"; they were to fall from step {begin} to {end}, and are those of step {step}"
    linears = tuple(LinearRanks(name=n, ranks=tuple(r)) for n, r in found.items())
    adapters = AdapterRanks(full=config.init_r, linears=linears, rests_on=what)
    return Ranks(step=step, adapters=adapters)


def state(model: Any) -> dict[str, torch.Tensor]:
    """What the pruning goes by, beside the weights."""
    allocator = model.base_model.rankallocator
    scores = {
        f"{kind}/{name}": tensor.detach().cpu()
        for kind in _SCORES
        for name, tensor in getattr(allocator, kind).items()
    }
    pattern = _config(model).rank_pattern or {}
    kept = {f"{_PATTERN}/{name}": torch.tensor(mask) for name, mask in pattern.items()}
    return scores | kept


def restore(model: Any, found: dict[str, torch.Tensor]) -> str:
    """Why the pruning cannot go on from it; empty if it does."""
    allocator = model.base_model.rankallocator
    weights = dict(model.base_model.model.named_parameters())
    sorted_out: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in (*_SCORES, _PATTERN)}
    for path, tensor in found.items():
        kind, _, name = path.partition("/")
        full = name if name.endswith(_ADAPTER) else f"{name}.{_ADAPTER}"
        if kind not in sorted_out or full not in weights:
            return f"it has {path}, which says nothing of the adapters here"
        sorted_out[kind][full] = tensor
    for kind in _SCORES:
        on_device = {n: t.to(weights[n].device) for n, t in sorted_out[kind].items()}
        setattr(allocator, kind, on_device)
    pattern = {name: mask.tolist() for name, mask in sorted_out[_PATTERN].items()}
    _config(model).rank_pattern = pattern or None
    return ""


def _settings(plan: Plan) -> AdaptiveRank:
    assert isinstance(plan.settings, AdaptiveRank)
    return plan.settings


def _config(model: Any) -> Any:
    return model.peft_config[_ADAPTER]


def _singular(model: Any) -> dict[str, torch.Tensor]:
    """Name of each adapter's E, as PEFT's patterns have it -> the weight."""
    named = model.base_model.model.named_parameters()
    return {name: values.detach() for name, values in named if name.endswith(_SINGULAR)}
