"""One training attempt with torch in hand: load, evaluate, train, publish.

Reads from top to bottom as training goes: model, data, trainer, base evaluation, training, final
evaluation, artefact.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TrainerState
from transformers.utils import logging as transformers_logging
from trl import SFTConfig

from advisor.recipe import Recipe
from profiles import durable, model
from profiles.errors import ExitCode, UserError
from profiles.journal import Journal
from profiles.rundir import RunDir
from profiles.state import State
from runner import checkpoints, data, engines, methods
from runner.trainer import Progress, RunTrainer

_PERIODS = 5
"""Evaluations and checkpoints in a run, unless the recipe says otherwise."""
_NUM_SAMPLES = 3
_SAMPLE_TOKENS = 64
_SAMPLE_TEXT = 1000
_OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}
_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "bitsandbytes")


@dataclass
class Session:
    """One attempt of one run."""

    run: RunDir
    recipe: Recipe
    base_dir: Path
    events: Journal
    metrics: Journal
    progress: Progress
    is_main: bool = field(default_factory=lambda: int(os.environ.get("RANK", "0")) == 0)

    def run_to_end(self) -> int:
        """Train to the planned last step, or to where somebody stops it; returns the exit code."""
        started = time.perf_counter()
        transformers_logging.disable_progress_bar()  # bars would fill the console log
        reclaimed = checkpoints.clear_staging(self.run) if self.is_main else 0
        resume_from = self._checkpoint_to_resume()
        trainer, splits = self._build()
        self._write_lock()
        self.events.append(
            "prepared",
            seconds=round(time.perf_counter() - started, 3),
            num_train=len(trainer.train_dataset),
            num_dropped=len(splits.train) - len(trainer.train_dataset)
            if not self.recipe.data.packing
            else 0,
            num_at_max_length=self._num_at_max_length(trainer),
            num_trainable=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            reclaimed_bytes=reclaimed,
            device=str(trainer.args.device),
        )
        if resume_from is None:
            self._base_evaluation(trainer, splits)
        self._train(trainer, resume_from)
        if trainer.state.global_step < trainer.state.max_steps:
            self.events.append("end", state=State.STOPPED, step=trainer.state.global_step)
            return int(ExitCode.STOPPED)
        return self._finish(trainer, splits)

    def _train(self, trainer: RunTrainer, resume_from: Path | None) -> None:
        self.progress.phase = "training"
        if resume_from is not None and trainer.args.world_size == 1:
            saved = TrainerState.load_from_json(str(resume_from / "trainer_state.json"))
            if saved.global_step >= saved.max_steps > 0:
                # Killed after the last step: the Trainer would make one step more
                trainer._load_from_checkpoint(str(resume_from))  # noqa: SLF001  # no public way
                trainer.state = saved
                return
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        trainer.recorder.flush()

    def _checkpoint_to_resume(self) -> Path | None:
        if self.run.attempt() == 1:
            return None
        sound, faults = checkpoints.newest_sound(self.run)
        reasons = [f"step {checkpoint.step}: {fault}" for checkpoint, fault in faults.items()]
        if sound is None and faults:
            raise UserError(
                "no checkpoint can be resumed from",
                why="; ".join(reasons),
                do="start the recipe anew with `advisor run`",
                where=str(self.run.checkpoints),
                code=ExitCode.NO_CHECKPOINT,
            )
        if self.is_main:
            for checkpoint in faults:
                checkpoints.set_aside(checkpoint)
        step = 0 if sound is None else sound.step
        self.events.append("resumed", from_step=step, passed_over=reasons)
        return None if sound is None else sound.path

    def _build(self) -> tuple[RunTrainer, data.Splits]:
        self.progress.phase = "loading"
        model_dir = (self.base_dir / self.recipe.model.id).resolve()
        model.from_folder(model_dir)  # refuses configs that could run code, before transformers
        tokenizer = AutoTokenizer.from_pretrained(
            model_dir, trust_remote_code=False, local_files_only=True
        )
        splits = data.load(self.recipe, self.base_dir, tokenizer)
        arguments = self._arguments(splits)
        assert arguments.device  # chooses this rank's GPU, before anything is loaded onto one
        torch.manual_seed(self.recipe.train.seed)
        prepared = methods.prepare(self.recipe, model_dir)
        self.progress.phase = "tokenising"
        trainer = RunTrainer(
            run=self.run,
            events=self.events,
            metrics=self.metrics,
            full_logits=self.recipe.train.loss == "full",
            keep=self.recipe.train.keep_checkpoints,
            progress=self.progress,
            model=prepared.model,
            peft_config=prepared.peft_config,
            processing_class=tokenizer,
            args=arguments,
            train_dataset=splits.train,
            eval_dataset=splits.eval,
        )
        if self.recipe.train.precision == "bf16_pure":
            _narrow_trained(trainer.model)
        if len(trainer.train_dataset) == 0:
            raise _nothing_to_learn(self.recipe, self.base_dir)
        self._space_evaluations(trainer)
        return trainer, splits

    def _num_at_max_length(self, trainer: RunTrainer) -> int:
        """Rows that fill max_length, so were probably cut; packing fills every row."""
        if self.recipe.data.packing:
            return 0
        rows = trainer.train_dataset["input_ids"]
        return sum(len(ids) >= self.recipe.data.max_length for ids in rows)

    def _space_evaluations(self, trainer: RunTrainer) -> None:
        """Once it is known how many rows are left: packing and dropped rows make fewer steps."""
        train = self.recipe.train
        every = max(1, _planned_steps(self.recipe, len(trainer.train_dataset)) // _PERIODS)
        trainer.args.eval_steps = train.eval_every or every
        trainer.args.save_steps = train.save_every or every

    def _arguments(self, splits: data.Splits) -> SFTConfig:
        train, hardware = self.recipe.train, self.recipe.hardware
        on_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
        return SFTConfig(
            output_dir=str(self.run.path / ".trainer"),
            max_length=self.recipe.data.max_length,
            packing=self.recipe.data.packing,
            eval_packing=False,
            assistant_only_loss=splits.assistant_only,
            num_train_epochs=train.epochs,
            max_steps=train.max_steps or -1,
            learning_rate=self.recipe.learning_rate,
            lr_scheduler_type=train.scheduler,
            warmup_steps=train.warmup,
            optim="adamw_torch"
            if train.optimizer == "adamw" and on_cpu
            else _OPTIMIZERS[train.optimizer],
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            per_device_train_batch_size=train.micro_batch,
            per_device_eval_batch_size=train.micro_batch,
            gradient_accumulation_steps=train.accumulation,
            gradient_checkpointing=train.checkpointing,
            bf16=train.precision == "bf16",
            fp16=train.precision == "fp16",
            use_cpu=on_cpu,
            ddp_backend="gloo" if on_cpu and hardware.gpus > 1 else None,
            dataloader_num_workers=train.workers,
            dataloader_pin_memory=not on_cpu,
            eval_strategy="steps" if splits.eval is not None else "no",
            eval_steps=1,  # spaced when the number of rows is known
            prediction_loss_only=True,
            save_strategy="steps",
            logging_steps=train.log_every,
            logging_nan_inf_filter=False,  # it would show a diverged run as converged, and sync
            seed=train.seed,
            data_seed=train.seed,
            report_to="none",
            disable_tqdm=True,
            push_to_hub=False,
            **engines.sharding_arguments(hardware.strategy),
        )

    def _base_evaluation(self, trainer: RunTrainer, splits: data.Splits) -> None:
        """What the base model can do, so that the gain can be told."""
        self.progress.phase = "evaluating"
        if splits.eval is not None:
            trainer.evaluate()
        self._sample(trainer, splits, "before")

    def _finish(self, trainer: RunTrainer, splits: data.Splits) -> int:
        self.progress.phase = "finishing"
        step = trainer.state.global_step
        evaluated = {e["step"] for e in trainer.state.log_history if "eval_loss" in e}
        if splits.eval is not None and step not in evaluated:
            trainer.evaluate()
        self._publish(trainer)
        self._sample(trainer, splits, "after")
        self.events.append("end", state=State.FINISHED, step=step)
        return int(ExitCode.FINISHED)

    def _publish(self, trainer: RunTrainer) -> None:
        """Write the adapter or the model under its final name, complete or not at all."""
        staging = self.run.path / f"{durable.STAGING_PREFIX}model"
        if self.is_main:
            shutil.rmtree(staging, ignore_errors=True)
        trainer.save_model(str(staging))  # every rank takes part in gathering shards
        if not self.is_main:
            return
        (staging / "training_args.bin").unlink(missing_ok=True)
        checkpoints.seal(staging, step=trainer.state.global_step)
        checkpoints.discard(self.run.model)  # of an attempt that was killed after publishing
        durable.publish_dir(staging, self.run.model)
        shutil.rmtree(self.run.path / ".trainer", ignore_errors=True)

    def _sample(self, trainer: RunTrainer, splits: data.Splits, moment: str) -> None:
        """Greedy answers to a few held-out prompts; sharded models are left out."""
        rows = splits.test if splits.test is not None else splits.eval
        if rows is None or trainer.args.world_size > 1:
            return
        try:
            for row in rows.select(range(min(_NUM_SAMPLES, len(rows)))):
                self._sample_row(trainer, row, moment)
        except (RuntimeError, IndexError, ValueError) as error:
            # an example is no reason to lose a run
            self.events.append("sample_failed", moment=moment, error=str(error)[:_SAMPLE_TEXT])

    def _sample_row(self, trainer: RunTrainer, row: dict[str, Any], moment: str) -> None:
        prompt, wanted = _prompt_of(row)
        if wanted is None:
            return
        answer = _generate(trainer, prompt, self.recipe.data.max_length)
        self.events.append(
            "sample",
            moment=moment,
            step=trainer.state.global_step,
            prompt=_shown(prompt)[:_SAMPLE_TEXT],
            wanted=wanted[:_SAMPLE_TEXT],
            answer=answer[:_SAMPLE_TEXT],
        )

    def _write_lock(self) -> None:
        """What the recipe resolved to, for replays to compare with."""
        if not self.is_main:
            return
        files = {}
        for part in ("train", "eval"):
            name = getattr(self.recipe.data, part)
            if name is not None:
                files[f"data.{part}"] = checkpoints.hash_file(self.base_dir / name)
        model_dir = self.base_dir / self.recipe.model.id
        for path in sorted(model_dir.glob("*")):
            if path.suffix in (".safetensors", ".json", ".jinja"):
                files[f"model/{path.name}"] = checkpoints.hash_file(path)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        durable.write_json(
            self.run.recipe_lock,
            {
                "schema": 1,
                "sha256": files,
                "packages": {p: importlib.metadata.version(p) for p in _PACKAGES},
                "python": platform.python_version(),
                "gpu": gpu,
                "num_threads": torch.get_num_threads(),
                "seed": self.recipe.train.seed,
            },
        )


def _narrow_trained(model: torch.nn.Module) -> None:
    """Adapters in bf16 too: PEFT makes those of a 16-bit base fp32."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)


def _planned_steps(recipe: Recipe, num_rows: int) -> int:
    """Optimizer steps the Trainer will make, for spacing evaluations (packing makes it fewer)."""
    if recipe.train.max_steps is not None:
        return recipe.train.max_steps
    batch = recipe.train.micro_batch * recipe.train.accumulation * recipe.hardware.gpus
    return max(1, int(-(-num_rows // batch) * recipe.train.epochs))


def _nothing_to_learn(recipe: Recipe, base_dir: Path) -> UserError:
    return UserError(
        "no example has a token to learn from",
        why=f"the prompts alone fill data.max_length = {recipe.data.max_length}",
        do="raise data.max_length; `advisor data check` shows the lengths",
        where=str(base_dir / recipe.data.train),
        code=ExitCode.BAD_DATA,
    )


def _prompt_of(row: dict[str, Any]) -> tuple[Any, str | None]:
    if "messages" in row:
        return row["messages"][:-1], row["messages"][-1]["content"]
    if isinstance(row.get("prompt"), list):
        return row["prompt"], row["completion"][-1]["content"]
    return row.get("prompt"), row.get("completion")


def _shown(prompt: Any) -> str:
    return str(prompt) if isinstance(prompt, str) else str(prompt[-1]["content"])


def _generate(trainer: RunTrainer, prompt: Any, max_length: int) -> str:
    """The greedy answer to a prompt; of a long one the end is kept, as much as training sees."""
    tokenizer: PreTrainedTokenizerBase = trainer.processing_class
    if isinstance(prompt, str):
        inputs = tokenizer(prompt, return_tensors="pt")
    else:
        inputs = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
    room = max(1, max_length - _SAMPLE_TOKENS)
    inputs = {k: v[:, -room:].to(trainer.args.device) for k, v in inputs.items()}
    network, was_training = trainer.model, trainer.model.training
    network.eval()
    with torch.no_grad():
        output = network.generate(
            **inputs, max_new_tokens=_SAMPLE_TOKENS, do_sample=False, use_cache=True
        )
    network.train(was_training)
    return str(
        tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    )
