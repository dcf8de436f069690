"""The table of a recipe's keys and of the libraries' fields that they set.

`wanted` says what a value should become where it is not the same. A key without a field is in
`ELSEWHERE`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import wanted
from built import Built

LOW_RANK = ("lora", "qlora")
PROMPTS = ("prompt_tuning", "prefix_tuning", "p_tuning", "p_tuning_v2")
ADAPTIVE = ("adalora",)
PRODUCTS = ("loha", "lokr")
RANKED = ("vera", "shira", *PRODUCTS)
ON_LINEARS = (*RANKED, "oft")
FROM_ROWS = ("eva",)
MIXTURES = ("lora_experts",)
SHARED = (*LOW_RANK, "full")
"""Methods with which the keys that all methods have are looked at."""


@dataclass(frozen=True)
class Wire:
    """A key of the recipe, and where a library has its value."""

    key: str
    field: str
    """From `Built` on."""
    values: tuple[Any, ...] = ()
    """Other than the default, one a session; None leaves the key out; the last is repeated."""
    by: dict[Any, Any] | None = None
    """Value in the recipe -> value there."""
    of: Callable[[Built], Any] | None = None
    """The value there, where it takes more to tell; with neither it is the same."""
    methods: tuple[str, ...] = SHARED
    early: bool = False
    """Also known where training cannot begin."""

    def expected(self, built: Built) -> Any:
        """What the field should be."""
        if self.of is not None:
            return self.of(built)
        value = attrgetter(self.key)(built.recipe)
        return value if self.by is None else self.by[value]


WIRES = (
    Wire("model.id", "loading.path", ("other",), of=lambda b: Path(b.recipe.model.id)),
    Wire("model.id", "tokenizer.name_or_path"),
    Wire("model.rope_type", "rope", ("yarn", "linear", None), of=wanted.rope),
    Wire("model.rope_factor", "rope", (2.0, 3.0, None), of=wanted.rope),
    Wire("model.rope_theta", "rope", (5e4, None), of=wanted.rope),
    Wire("model.id", "trust", of=lambda _: (False, False, False)),
    Wire("data.train", "learnt", ("mixed.jsonl",), of=wanted.learnt),
    Wire("data.eval", "evaluated", ("held.jsonl", None), of=wanted.evaluated),
    Wire("data.format", "learnt", ("alpaca",), of=wanted.learnt),
    Wire("data.max_length", "args.max_length", (96,)),
    Wire("data.max_length", "fills_length", by={1024: False, 96: True}),
    Wire("data.packing", "args.packing", (False, True)),
    Wire("data.packing", "args.eval_packing", of=lambda _: False),
    Wire("data.split", "num_rows", ("6:3:1",), of=wanted.num_rows),
    Wire("data.on_bad", "num_rows", ("skip",), of=wanted.num_rows),
    Wire("data.chat_template", "template", ("chatml", "plain")),
    Wire("method.name", "trained_parts", of=wanted.trained_parts),
    Wire("method.name", "quantization", of=wanted.quantization, early=True),
    Wire("method.rank", "adapter.r", (4,), methods=LOW_RANK),
    Wire("method.rank", "widths", of=wanted.widths, methods=LOW_RANK),
    Wire("method.ranks", "widths", ({"q_proj": 6}, {}), of=wanted.widths, methods=LOW_RANK),
    Wire("method.alpha", "adapter.lora_alpha", (20,), methods=LOW_RANK),
    Wire("method.alpha", "scalings", of=wanted.scalings, methods=LOW_RANK),
    Wire("method.rslora", "adapter.use_rslora", (False, True), methods=LOW_RANK),
    Wire("method.rslora", "scalings", of=wanted.scalings, methods=LOW_RANK),
    Wire(
        "method.init",
        "adapter.init_lora_weights",
        ("pissa", "gaussian", "olora"),
        by=wanted.INITS,
        methods=("lora",),
    ),
    Wire(
        "method.init",
        "adapter.init_lora_weights",
        ("gaussian",),
        by=wanted.INITS,
        methods=("qlora",),
    ),
    Wire(
        "method.freeze_a", "trained_parts", (False, True), of=wanted.trained_parts, methods=LOW_RANK
    ),
    Wire("method.dora", "adapter.use_dora", (True, False), methods=LOW_RANK),
    Wire("method.dora", "trained_parts", of=wanted.trained_parts, methods=LOW_RANK),
    Wire("method.b_rate", "initial_rates", (4.0, 1.0), of=wanted.initial_rates, methods=LOW_RANK),
    Wire("method.dropout", "adapter.lora_dropout", (0.25,), methods=LOW_RANK),
    Wire("method.dropout", "dropouts", by={0.0: {0.0}, 0.25: {0.25}}, methods=LOW_RANK),
    Wire(
        "method.targets",
        "adapted",
        ("attention", ("q_proj", "up_proj")),
        of=wanted.adapted,
        methods=LOW_RANK,
    ),
    Wire("method.exclude", "adapted", (("v_proj",), ()), of=wanted.adapted, methods=LOW_RANK),
    Wire("method.layers", "adapted_layers", ("last 1", (0,)), of=wanted.layers, methods=LOW_RANK),
    Wire(
        "method.bits",
        "quantization",
        (4, 8, 4),
        of=wanted.quantization,
        methods=("qlora",),
        early=True,
    ),
    Wire("method.init_rank", "adapter.init_r", (9,), methods=ADAPTIVE),
    Wire("method.target_rank", "adapter.target_r", (3,), methods=ADAPTIVE),
    Wire("method.rank", "adapter.r", (4,), methods=RANKED),
    Wire("method.block", "adapter.oft_block_size", (16,), methods=("oft",)),
    Wire("method.alpha", "adapter.alpha", (20,), methods=PRODUCTS),
    Wire("method.rank", "adapter.r", (4,), methods=FROM_ROWS),
    Wire("method.rho", "adapter.eva_config.rho", (1.0, 1.5), methods=FROM_ROWS),
    Wire("method.alpha", "adapter.lora_alpha", (20,), methods=ADAPTIVE + FROM_ROWS),
    Wire("method.dropout", "adapter.lora_dropout", (0.25,), methods=ADAPTIVE + FROM_ROWS),
    Wire(
        "method.targets",
        "adapted",
        ("attention", ("q_proj", "up_proj")),
        of=wanted.some_adapted,
        methods=FROM_ROWS,
    ),
    Wire(
        "method.targets",
        "adapted",
        ("attention", ("q_proj", "up_proj")),
        by=wanted.TARGETS,
        methods=(*ADAPTIVE, *ON_LINEARS),
    ),
    Wire("method.bits", "quantization", (4,), of=wanted.quantization, methods=PROMPTS, early=True),
    Wire("method.virtual_tokens", "adapter.num_virtual_tokens", (5,), methods=PROMPTS),
    Wire("method.encoder_width", "adapter.encoder_hidden_size", (24,), methods=("p_tuning_v2",)),
    Wire("method.prompts", "adapter.adapter_len", (4,), methods=("llama_adapter",)),
    Wire(
        "method.skipped_layers",
        "adapter.adapter_layers",
        (1,),
        of=wanted.prompted_layers,
        methods=("llama_adapter",),
    ),
    Wire("method.experts", "mixture.counts", (3,), by={4: {4}, 3: {3}}, methods=MIXTURES),
    Wire("method.rank", "mixture.ranks", (5,), by={8: {8}, 5: {5}}, methods=MIXTURES),
    Wire("method.alpha", "mixture.scalings", (20,), of=wanted.expert_scalings, methods=MIXTURES),
    Wire(
        "method.dropout",
        "mixture.dropouts",
        (0.25,),
        by={0.0: {0.0}, 0.25: {0.25}},
        methods=MIXTURES,
    ),
    Wire(
        "method.targets",
        "mixture.linears",
        ("attention", ("q_proj", "up_proj")),
        by=wanted.TARGETS,
        methods=MIXTURES,
    ),
    Wire("method.reduction", "bottleneck.widths", (4,), of=wanted.inner, methods=("adapter",)),
    Wire(
        "method.placement",
        "bottleneck.places",
        ("pfeiffer", "parallel"),
        by=wanted.PLACES,
        methods=("adapter",),
    ),
    Wire(
        "method.activation",
        "bottleneck.activations",
        ("relu", "silu"),
        by={"gelu": {"GELU"}, "relu": {"ReLU"}, "silu": {"SiLU"}},
        methods=("adapter",),
    ),
    Wire(
        "method.frozen_layers",
        "trained_layers",
        (None, None, 2),
        of=wanted.trained_layers,
        methods=("freeze",),
    ),
    Wire(
        "method.layers",
        "trained_layers",
        ((0,), "last 1", None),
        of=wanted.trained_layers,
        methods=("freeze",),
    ),
    Wire("train.epochs", "args.num_train_epochs", (2.5,)),
    Wire("train.epochs", "trainer.state.max_steps", of=wanted.num_steps),
    Wire("train.max_steps", "args.max_steps", (20, None), by={None: -1, 20: 20}),
    Wire("train.max_steps", "trainer.state.max_steps", of=wanted.num_steps),
    Wire("train.learning_rate", "args.learning_rate", (3e-3,), of=wanted.rate),
    Wire("train.learning_rate", "initial_rates", of=wanted.initial_rates),
    Wire(
        "train.scheduler",
        "args.lr_scheduler_type",
        ("linear", "constant"),
        by=wanted.SCHEDULERS,
    ),
    Wire("train.scheduler", "args.lr_scheduler_kwargs", of=lambda _: {}),
    Wire("train.scheduler", "rates", of=wanted.rates),
    Wire("train.warmup", "args.warmup_steps", (0.25,)),
    Wire("train.warmup", "rates", of=wanted.rates),
    Wire(
        "train.optimizer",
        "args.optim",
        ("adamw_8bit", "paged_adamw_8bit", "adamw"),
        by=wanted.OPTIM,
    ),
    Wire("train.optimizer", "optimizer_kind", by=wanted.OPTIMIZERS),
    Wire("train.optimizer", "updated", of=lambda b: len(b.trained)),
    Wire("train.weight_decay", "args.weight_decay", (0.03,)),
    Wire("train.weight_decay", "decays", of=wanted.decays),
    Wire("train.max_grad_norm", "args.max_grad_norm", (0.3,)),
    Wire("train.neftune_noise_alpha", "args.neftune_noise_alpha", (5.0, None)),
    Wire("train.neftune_noise_alpha", "noise"),
    Wire("train.micro_batch", "args.per_device_train_batch_size", (3,)),
    Wire("train.micro_batch", "args.per_device_eval_batch_size"),
    Wire("train.micro_batch", "loader.batch_sampler.batch_size"),
    Wire("train.accumulation", "args.gradient_accumulation_steps", (2,)),
    Wire(
        "train.precision",
        "loading.dtype",
        ("fp32", "bf16_pure", "fp16", "bf16"),
        of=wanted.base_type,
        early=True,
    ),
    Wire(
        "train.precision", "args.bf16", of=lambda b: b.recipe.train.precision == "bf16", early=True
    ),
    Wire(
        "train.precision", "args.fp16", of=lambda b: b.recipe.train.precision == "fp16", early=True
    ),
    Wire(
        "train.precision",
        "autocast",
        by={"bf16": "bf16", "fp32": "no", "bf16_pure": "no"},
    ),
    Wire("train.precision", "trained_types", of=wanted.trained_types),
    Wire("train.checkpointing", "args.gradient_checkpointing", (True,)),
    Wire("train.checkpointing", "trainer.model.is_gradient_checkpointing"),
    Wire("train.workers", "args.dataloader_num_workers", (2,)),
    Wire("train.workers", "loader.num_workers"),
    Wire("train.eval_every", "args.eval_steps", (3, None), of=wanted.eval_steps),
    Wire("train.eval_every", "args.eval_strategy", of=lambda _: "steps"),
    Wire("train.save_every", "args.save_steps", (5, None), of=wanted.save_steps),
    Wire("train.save_every", "args.save_strategy", of=lambda _: "steps"),
    Wire("train.log_every", "args.logging_steps", (7,)),
    Wire("train.log_every", "args.logging_strategy", of=lambda _: "steps"),
    Wire("train.seed", "args.seed", (11,)),
    Wire("train.seed", "args.data_seed"),
    Wire("train.seed", "random_seed"),
    Wire(
        "hardware.strategy",
        "sharding",
        ("single", "single", "ddp", "fsdp"),
        by={"single": None, "ddp": None, "fsdp": wanted.SHARDING},
        early=True,
    ),
    Wire("hardware.strategy", "args.ddp_backend", by=wanted.BACKENDS, early=True),
)


@dataclass(frozen=True)
class Elsewhere:
    """A key that has no field of a library: why, and the test that sees what it does."""

    why: str
    test: str
    methods: tuple[str, ...] = ()
    """Those whose key it is; none: all that have it."""


HERE = "test_wiring.py::"
FOR_PEOPLE = Elsewhere(
    "read by people and reports", HERE + "test_names_and_predictions_change_nothing_of_the_training"
)
WHEN_RANKS_FALL = Elsewhere(
    "counted in the steps of the run, which training tells as it begins",
    "test_adalora.py::test_the_library_is_told_when_ranks_fall",
)
ELSEWHERE = {
    "model.new_tokens": Elsewhere(
        "ids follow from the tokenizer",
        "test_new_tokens.py::test_the_library_is_handed_the_rows_of_the_new_tokens",
    ),
    "model.adapter": Elsewhere(
        "there is no adapter here",
        "test_training_on.py::test_each_begins_where_the_one_before_ended",
    ),
    "model.adapter_use": Elsewhere(
        "there is no adapter here",
        "test_training_on.py::test_each_begins_where_the_one_before_ended",
    ),
    "model.adapters": Elsewhere(
        "there is no adapter here",
        "test_expert_adapters.py::test_an_expert_computes_what_its_adapter_does",
    ),
    "method.freeze_experts": Elsewhere(
        "experts that are frozen are adapters, of which there are none here",
        "test_expert_adapters.py::test_a_run_begins_with_adapters_of_runs_and_of_folders",
    ),
    "method.layers": Elsewhere(
        "trained weights have it in their names",
        "test_layers_that_train.py::test_only_in_the_layers_named_something_trains",
        methods=("ia3", "ln_tuning", "bitfit"),
    ),
    "train.router_aux_loss_coef": Elsewhere(
        "the model has no experts here",
        "test_router_loss.py::test_the_recipe_weighs_the_routers_loss",
    ),
    "method.router": Elsewhere(
        "the model has no experts here",
        "test_expert_targets.py::test_all_means_every_linear_and_the_experts_and_no_router",
    ),
    "method.init_text": Elsewhere(
        "PEFT's config is written without it",
        "test_prompt_words.py::test_a_prompt_starts_as_its_words",
    ),
    "schema": Elsewhere(
        "says how to read the file",
        "test_recipe.py::test_a_recipe_of_a_newer_schema_is_refused_with_advice",
    ),
    "data.columns": Elsewhere(
        "columns are parts here", "test_columns_of_rows.py::test_a_run_trains_on_the_parts"
    ),
    "data.encoding": Elsewhere(
        "files are UTF-8 here", "test_charsets.py::test_both_ways_out_of_another_encoding_work"
    ),
    "data.split_by": Elsewhere(
        "rows have no such column here",
        "test_split_by.py::test_training_draws_what_was_told",
    ),
    "data.clean": Elsewhere(
        "rows are clean here",
        "test_cleaning.py::test_check_preview_and_training_read_the_same",
    ),
    "data.mask": Elsewhere(
        "rows hold nothing to mask here",
        "test_cleaning.py::test_check_preview_and_training_read_the_same",
    ),
    "data.learn": Elsewhere(
        "a row has one reply here",
        "test_splits.py::test_every_reply_is_learnt_or_the_last_of_each_row",
    ),
    "task": Elsewhere(
        "each has a trainer and rows of its own",
        "test_task_training.py::test_a_task_learns_and_goes_on_to_equality_where_it_was_killed",
    ),
    "objective.label_smoothing": Elsewhere(
        "the loss is made by us",
        "test_smoothing.py::test_the_gradients_are_those_of_torch_s_cross_entropy",
    ),
    "objective.beta": Elsewhere(
        "a task has it that reads other rows",
        "test_task_losses.py::test_the_loss_is_trl_s",
    ),
    "method.modules_to_save": Elsewhere(
        "whole modules are no adapters",
        "test_beside.py::test_the_library_is_handed_what_trains_whole",
    ),
    "method.bias": Elsewhere(
        "the tiny Llama has none", "test_beside.py::test_biases_train_as_they_lie_in_the_model"
    ),
    "method.tinit": WHEN_RANKS_FALL,
    "method.tfinal": WHEN_RANKS_FALL,
    "method.delta_t": WHEN_RANKS_FALL,
    "method.orthogonality": Elsewhere(
        "added to the loss by us", "test_adalora.py::test_the_penalty_is_peft_s"
    ),
    "name": FOR_PEOPLE,
    "plan.machine": FOR_PEOPLE,
    "plan.peak_bytes": FOR_PEOPLE,
    "plan.peak_low_bytes": FOR_PEOPLE,
    "plan.peak_high_bytes": FOR_PEOPLE,
    "plan.tokens_per_second": FOR_PEOPLE,
    "plan.hours": FOR_PEOPLE,
    "plan.advisor_version": FOR_PEOPLE,
    "plan.path": FOR_PEOPLE,
    "train.shifted_attention": Elsewhere(
        "refused for rows of any length",
        "test_shifted.py::test_in_training_it_is_its_authors_and_else_full",
    ),
    "train.loss": Elsewhere(
        "chosen at each forward pass", HERE + "test_a_run_makes_its_steps_as_the_recipe_says"
    ),
    "train.keep_checkpoints": Elsewhere(
        "checkpoints are rotated by us", HERE + "test_a_run_makes_its_steps_as_the_recipe_says"
    ),
    "train.stats_every": Elsewhere(
        "layers are looked at by us", "test_routing.py::test_a_run_tells_what_its_steps_read"
    ),
    "hardware.gpus": Elsewhere(
        "a number of processes",
        "test_worker_command.py::test_several_devices_are_started_by_torchrun",
    ),
    "train.samples": Elsewhere(
        "prompts are answered by us",
        "test_startup.py::test_held_out_prompts_are_answered_before_at_evaluations_and_after",
    ),
    "train.keep": Elsewhere(
        "checkpoints are chosen by us",
        "test_best_step.py::test_the_weights_of_the_named_step_are_published",
    ),
    "train.early_stopping": Elsewhere(
        "evaluations are judged by us",
        "test_best_step.py::test_a_run_without_gain_stops_early",
    ),
    "train.on_spike": Elsewhere(
        "losses are judged by us",
        "test_faulty_training.py::test_a_spike_stops_the_run_where_the_recipe_says_so",
    ),
}
