"""From a recipe to the objects that the libraries are handed, up to the first step of training.

A real attempt of a run is begun in this process and ended where transformers' Trainer says that
training begins: model, optimizer, schedule and data loaders are made, and no step was. Nothing of
the runner's own structure is known here but how an attempt is started.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import real_runs
import tomli_w
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import AutoModelForCausalLM, Trainer
from transformers.trainer_callback import CallbackHandler
from trl import SFTTrainer

from advisor import recipe as recipes
from advisor.recipe import Recipe
from profiles.runs import durable, rundir
from runner import checkpoints

FIRST_WORDS = ("plain", "alpaca", "messages", "held")
"""Of the rows of each file, as each format reads them."""

ONE_EACH = ("lora_B", "vera_lambda_b", "hada_w1_a", "lokr_w1", "oft_R", "shira_weight")
"""Weights of which an adapted linear has one, by PEFT's names."""


class Reached(BaseException):
    """All that was wanted is made; no `except Exception` may take it for a failure."""


@dataclass(kw_only=True)
class Built:
    """What the libraries were handed for a recipe."""

    recipe: Recipe
    loading: object = None
    """Keywords of from_pretrained, and the folder as `path`."""
    handed: object = None
    """Keywords of TRL's trainer: model, args, train_dataset, processing_class."""
    trainer: object = None
    """From here on only where training began."""
    optimizer: object = None
    loader: object = None
    random_seed: int = 0
    """Of torch's generator as training began."""
    autocast: str = ""
    """Accelerate's mixed precision as training began: it is the same for a whole process."""
    rates: list[float] = field(default_factory=list)
    """Learning rate of each planned step, as the schedule gives it when it is stepped."""

    @property
    def args(self):
        """The SFTConfig."""
        return self.handed.args

    @property
    def tokenizer(self):
        return self.handed.processing_class

    @property
    def num_rows(self):
        """Rows to learn and rows to evaluate."""
        return len(self.handed.train_dataset), len(self.handed.eval_dataset)

    @property
    def learnt(self):
        """First word of the rows to learn."""
        return self._first_word(self.handed.train_dataset)

    @property
    def evaluated(self):
        """First word of the rows to evaluate."""
        return self._first_word(self.handed.eval_dataset)

    def _first_word(self, rows):
        """Of what is asked in the first row."""
        text = self.tokenizer.decode(rows[0]["input_ids"])
        return next(word for word in text.replace(":", " ").split() if word in FIRST_WORDS)

    @property
    def fills_length(self):
        """The longest row, as it is learnt, has as many tokens as a row may have."""
        longest = max(map(len, self.trainer.train_dataset["input_ids"]))
        return longest == self.args.max_length

    @property
    def template(self):
        """Which chat template: the model's, or one of ours."""
        marks = {"chatml": "<|im_start|>", "plain": "### Answer:"}
        text = self.tokenizer.chat_template
        return next((name for name, mark in marks.items() if mark in text), "model")

    @property
    def sharding(self):
        """What FSDP is told beside transformers' own defaults; None without it."""
        if not self.args.fsdp:
            return None
        defaults = {"min_num_params", "xla", "xla_fsdp_v2", "xla_fsdp_grad_ckpt"}
        told = {key: value for key, value in self.args.fsdp_config.items() if key not in defaults}
        return told | self.args.accelerator_config.gradient_accumulation_kwargs

    @property
    def trust(self):
        """Whether code, pickles and downloads may come with the model."""
        loading = self.loading
        return loading.trust_remote_code, not loading.use_safetensors, not loading.local_files_only

    @property
    def rope(self):
        """Kind, factor and base of the rotations."""
        told = self.trainer.model.config.rope_parameters
        return told["rope_type"], told.get("factor"), told["rope_theta"]

    @property
    def quantization(self):
        """Of the BitsAndBytesConfig, all that decides how weights are kept and multiplied."""
        config = getattr(self.loading, "quantization_config", None)
        names = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type")
        names += ("bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype", "bnb_4bit_quant_storage")
        return config and tuple(getattr(config, name) for name in names)

    @property
    def noise(self):
        """What the embedding's hook multiplies its noise by; None without the hook."""
        embedding = self.trainer.model.get_input_embeddings()
        hooks = [getattr(hook, "__name__", "") for hook in embedding._forward_hooks.values()]
        is_noisy = "neftune_post_forward_hook" in hooks
        return embedding.neftune_noise_alpha if is_noisy else None

    @property
    def adapter(self):
        """The LoraConfig of the model as it trains."""
        return getattr(self.trainer.model, "peft_config", {}).get("default")

    @property
    def trained(self):
        """Name -> weight of what trains."""
        return {n: p for n, p in self.trainer.model.named_parameters() if p.requires_grad}

    @property
    def trained_types(self):
        return {p.dtype for p in self.trained.values()}

    @property
    def trained_parts(self):
        """The matrices of adapters that train; `all` where every weight of the model does."""
        if len(self.trained) == len(list(self.trainer.model.parameters())):
            return {"all"}
        return {part for name in self.trained for part in name.split(".") if "lora_" in part}

    @property
    def bottleneck(self):
        """What the bottlenecks in the layers are made of."""
        named = self.trainer.model.named_modules()
        found = {n.split(".")[-2]: m for n, m in named if n.endswith(".bottleneck")}
        return SimpleNamespace(
            widths={m.down.out_features for m in found.values()},
            places={(name, m.is_parallel) for name, m in found.items()},
            activations={type(m.activation).__name__ for m in found.values()},
        )

    @property
    def mixture(self):
        """What the LoRA experts beside linears are made of."""
        named = self.trainer.model.named_modules()
        found = {n.split(".")[-2]: m for n, m in named if n.endswith(".lora_experts")}
        every = found.values()
        return SimpleNamespace(
            counts={m.router.out_features for m in every},
            ranks={m.up.in_features // m.experts for m in every},
            scalings={m.scaling for m in every},
            dropouts={getattr(m.dropout, "p", 0.0) for m in every},
            linears=set(found),
        )

    @property
    def trained_layers(self):
        """Numbers of the layers with a weight that trains."""
        behind = [name.partition(".layers.")[2] for name in self.trained]
        return {int(name.split(".")[0]) for name in behind if name}

    @property
    def adapted(self):
        """Last names of the linears that have an adapter."""
        found = (n.partition(f".{part}.") for n in self.trained for part in ONE_EACH)
        return {module.rpartition(".")[2] for module, part, _ in found if part}

    @property
    def adapted_layers(self):
        """Numbers of the layers that have an adapter."""
        return {int(n.split(".layers.")[1].split(".")[0]) for n in self.trained}

    @property
    def widths(self):
        """Of the adapters."""
        return {p.shape[1] for n, p in self.trained.items() if ".lora_B." in n}

    @property
    def scalings(self):
        """How many times the adapters count."""
        modules = [m for m in self.trainer.model.modules() if hasattr(m, "lora_A")]
        return {scaling for module in modules for scaling in module.scaling.values()}

    @property
    def dropouts(self):
        """The share that the adapters drop while they train."""
        found = [d for n, d in self.trainer.model.named_modules() if ".lora_dropout." in n]
        return {getattr(d, "p", 0.0) for d in found}

    @property
    def decays(self):
        """Weight decay -> numbers of dimensions of the weights that have it."""
        found = {}
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                found.setdefault(group["weight_decay"], set()).add(weight.ndim)
        return found

    @property
    def updated(self):
        """How many weights the optimizer has."""
        return sum(len(group["params"]) for group in self.optimizer.param_groups)

    @property
    def initial_rates(self):
        groups = self.optimizer.param_groups
        return {group["initial_lr"] for group in groups if group["params"]}

    @property
    def optimizer_kind(self):
        """Whose class it is, bits of its states, and whether they are paged."""
        bits = getattr(getattr(self.optimizer, "args", None), "optim_bits", 32)
        kind = type(self.optimizer)
        paged = getattr(self.optimizer, "is_paged", False)
        return kind.__module__.split(".")[0], kind.__name__, bits, paged


def build(content, home, *, begin=True):
    """Start a run of a recipe with absolute paths, up to where training begins.

    Without `begin` only up to TRL's trainer: for what cannot go on on this machine.
    """
    built = Built(recipe=recipes.validate(content, where="test"))
    alone = contextlib.nullcontext() if begin else _group_of_one()
    with alone, pytest.MonkeyPatch.context() as patch:
        _watch_loading(patch, built)
        _watch_trainer(patch, built, begin=begin)
        with pytest.raises(Reached):
            real_runs.attempt(_new_run(content, home, patch))
    return built


@contextlib.contextmanager
def _group_of_one():
    """What Accelerate asks for where several processes are to train."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)


def _new_run(content, home, patch):
    patch.setenv("TUNEDECK_HOME", str(home))
    run = rundir.create("tiny")
    durable.write_json(run.manifest, {"schema": 1, "created": 0.0, "base_dir": "/"})
    durable.write_atomic(run.recipe, tomli_w.dumps(content).encode())
    durable.write_atomic(run.attempt_file, b"1\n")
    return run


def _watch_loading(patch, built):
    load = AutoModelForCausalLM.from_pretrained.__func__

    def loading(cls, path, *args, **keywords):
        built.loading = SimpleNamespace(path=path, **keywords)
        return load(cls, path, *args, **keywords)

    patch.setattr(AutoModelForCausalLM, "from_pretrained", classmethod(loading))


def _watch_trainer(patch, built, *, begin):
    make, train = SFTTrainer.__init__, Trainer.train

    def making(trainer, **keywords):
        built.handed = SimpleNamespace(**keywords)
        if not begin:
            raise Reached
        make(trainer, **keywords)

    def training(trainer, **keywords):
        built.trainer = trainer
        return train(trainer, **keywords)

    def beginning(handler, *_):
        built.random_seed = torch.initial_seed()
        built.autocast = built.trainer.accelerator.mixed_precision
        built.optimizer = handler.optimizer.optimizer  # inside of Accelerate's
        built.loader = handler.train_dataloader
        built.rates = _rates(handler.lr_scheduler, built.trainer.state.max_steps)
        raise Reached

    patch.setattr(SFTTrainer, "__init__", making)
    patch.setattr(Trainer, "train", training)
    patch.setattr(CallbackHandler, "on_train_begin", beginning)


def _rates(schedule, num_steps):
    found = []
    with warnings.catch_warnings(action="ignore"):  # the optimizer makes no step
        for _ in range(num_steps):
            found.append(schedule.get_last_lr()[0])
            schedule.step()
    return found


@dataclass
class Trained:
    """What a whole run asked of the libraries, in order."""

    forwards: list[tuple[int, bool]] = field(default_factory=list)
    """Rows of a batch, and whether the logits were to be made and multiplied in one go."""
    clips: list[tuple[float, int]] = field(default_factory=list)
    """The largest norm that was allowed, and the number of forward passes before."""
    kept: list[int] = field(default_factory=list)
    """Steps of the checkpoints that are left, newest first."""


def train(content, home):
    """Run a recipe to its end."""
    trained = Trained()
    begin, clip = Trainer.train, Accelerator.clip_grad_norm_

    def beginning(trainer, **keywords):
        trainer.model.register_forward_pre_hook(passing, with_kwargs=True)
        return begin(trainer, **keywords)

    def passing(_model, _args, keywords):
        rows, fused = len(keywords["input_ids"]), keywords.get("fused_lm_head", False)
        trained.forwards.append((rows, fused))

    def clipping(accelerator, parameters, max_norm, *args, **keywords):
        trained.clips.append((max_norm, len(trained.forwards)))
        return clip(accelerator, parameters, max_norm, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", beginning)
        patch.setattr(Accelerator, "clip_grad_norm_", clipping)
        run = _new_run(content, home, patch)
        assert real_runs.attempt(run) == 0
        trained.kept = [checkpoint.step for checkpoint in checkpoints.committed(run)]
    return trained
