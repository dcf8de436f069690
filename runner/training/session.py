"""One training attempt with torch in hand: load, evaluate, train, publish.

Reads from top to bottom as training goes: model, data, trainer, base evaluation, training, final
evaluation, artefact.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from advisor.choice import lighter
from advisor.choice.duration import interval
from advisor.framework import OURS
from advisor.recipe import Recipe
from profiles.errors import ExitCode
from profiles.models import model
from profiles.runs import devices, durable, parents
from profiles.runs.journal import read_all
from profiles.runs.records.evaluation import Published
from profiles.runs.records.inputs import BegunWith, Drift, InputsTouched
from profiles.runs.records.worker import Changed, End, Prepared, Resumed
from profiles.runs.state import State
from runner import checkpoints, methods, resume
from runner.checks import replay
from runner.engines import engine_of, loading
from runner.resume import Start
from runner.tasks import task_of
from runner.training import (
    arguments,
    data,
    endings,
    examples,
    finite,
    isolation,
    merging,
    recipe_lock,
    some,
)
from runner.training.attempt import Attempt
from runner.training.counting import counted
from runner.training.division import DURING
from runner.training.saving import weights_bytes
from runner.training.stopping import NoStepLeft, StopEarly
from runner.training.trainer import RunProtocol


@dataclass
class Session:
    """One attempt of one run."""

    attempt: Attempt
    recipe: Recipe
    base_dir: Path

    def __post_init__(self) -> None:
        self.run, self.events = self.attempt.run, self.attempt.events
        self.progress = self.attempt.progress
        self.plan = self.recipe.to_plan(OURS)
        self._stamps: dict[str, Any] = {}
        """Of the files of data and model, as the lock saw them; the first rank's."""
        self.is_main = int(os.environ.get("RANK", "0")) == 0

    def run_to_end(self) -> int:
        """Train to the planned last step, or to where somebody stops it; returns the exit code."""
        started = time.perf_counter()
        transformers_logging.disable_progress_bar()  # bars would fill the console log
        reclaimed = checkpoints.clear_staging(self.run) if self.is_main else 0
        trainer, splits = self._build()
        start = trainer.ranks.from_main(self._start() if self.is_main else None) or Start()
        some.make_from_rows(trainer, start)
        self._write_lock(trainer)
        prepared = Prepared(
            seconds=round(time.perf_counter() - started, 3),
            num_train=len(trainer.train_dataset),
            num_dropped=splits.train.num_dropped,
            num_at_max_length=splits.train.num_cut,
            num_tokens=splits.train.num_tokens,
            num_learnt=splits.train.num_learnt,
            file=splits.of_train_file,
            of_template=tuple(splits.told) or None,
            num_trainable=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
            reclaimed_bytes=reclaimed,
            device=str(trainer.args.device),
            compute_capability=arguments.compute_capability(trainer.args.device),
        )
        self.events.append(prepared)
        earlier = list(read_all(self.run.worker_events))
        trainer.selection.recall(earlier, trainer.eval_names[0], start.step)
        trainer.changes += [e for e in earlier if isinstance(e, Changed) and e.step <= start.step]
        trainer.after_saving = partial(self._look_at_inputs, trainer)
        trainer.after_evaluation = partial(self._examples, trainer, splits, "during")
        if start.path is None:
            trainer.before_steps = partial(self._base_evaluation, trainer, splits)
        elif splits.eval_rows:
            trainer.before_steps = partial(self._missed_evaluation, trainer)
        self._train(trainer, start)
        if trainer.state.global_step < trainer.state.max_steps and not trainer.selection.is_over:
            self.events.append(End(state=State.STOPPED, step=trainer.state.global_step))
            return int(ExitCode.STOPPED)
        return self._finish(trainer, splits)

    def _train(self, trainer: RunProtocol, start: Start) -> None:
        for during in DURING:
            if (pieces := resume.pieces(self.run, during)) > 1:
                reason = "an earlier attempt ran out of memory"
                trainer.division.set(during, pieces, reason, step=start.step)
        if start.path is not None and start.weights_only:
            trainer.before_steps = partial(trainer.load_weights, start.path)
        go_on = None if start.weights_only or start.path is None else str(start.path)
        before_steps = trainer.before_steps
        with (
            contextlib.suppress(NoStepLeft),
            self.progress.during("training"),
            contextlib.ExitStack() as preparing,
        ):

            def prepared() -> None:
                preparing.close()
                before_steps()

            preparing.enter_context(self.attempt.during("preparing"))
            trainer.before_steps = prepared
            trainer.train(resume_from_checkpoint=go_on)
        trainer.recorder.flush()

    def _start(self) -> Start:
        """Where this attempt begins; the first rank looks, and the others are told."""
        if self.run.attempt() == 1:
            return Start()
        start = resume.choose(self.run, self._facts())
        for checkpoint in start.faulty:
            checkpoints.set_aside(checkpoint)
        if start.weights_only:
            start = resume.set_foreign_aside(self.run, start)
        self.events.append(
            Resumed(from_step=start.step, passed_over=start.passed_over, what=start.what)
        )
        return start

    def _facts(self) -> dict[str, Any]:
        return resume.facts(self.recipe, int(os.environ.get("WORLD_SIZE", "1")))

    def _build(self) -> tuple[RunProtocol, data.Splits]:
        task = task_of(self.plan.task)
        folders = replay.folders_of(self.recipe, self.base_dir)
        model_dir = folders["model.id"].resolve()
        model.from_folder(model_dir)  # refuses configs that could run code, before transformers
        tokenizer, splits = self._rows(task, model_dir)
        common = self._arguments(evaluates=bool(splits.eval_rows))
        settings = task.arguments(self.recipe.data, **common)
        assert settings.device  # chooses this rank's GPU, before anything is loaded onto one
        if self.recipe.model.merges:
            model_dir = merging.merged(self.attempt, model_dir, folders["model.adapter"])
        with self.attempt.during("loading"):
            head = task.TRAINER.head(splits)
            seed = self.recipe.train.seed
            tokens = self.encoder.added.pieces if self.encoder.added else {}
            rope = self.recipe.model.rope
            prepared = methods.prepare(self.plan, model_dir, seed, tokens=tokens, rope=rope, **head)
            methods.weigh_router(prepared, self.recipe.train.router_aux_loss_coef)
        with self.attempt.during("checking"):
            finite.refuse_base(prepared, model_dir)  # before weights of adapters are in it
            self._begin(prepared, folders)
            packs = self.recipe.data.packing and isolation.decide(
                self.attempt, self.plan, prepared, splits.train.rows, settings
            )
            if packs != self.recipe.data.packing:
                unpacked = self.recipe.data.model_copy(update={"packing": False})
                settings = task.arguments(unpacked, **common)
        packing = self.attempt.during("packing") if packs else contextlib.nullcontext()
        with packing, counted(self.progress):
            trainer: RunProtocol = task.TRAINER(
                self.attempt,
                self.plan,
                facts=self._facts(),
                lighter=lighter.changes(self.plan),
                train=self.recipe.train,
                goal=self.recipe.goal,
                model=prepared,
                processing_class=tokenizer,
                args=settings,
                train_dataset=splits.train.rows,
                eval_dataset=splits.eval_rows.get("", splits.eval_rows) or None,
            )
        self._space_evaluations(trainer)
        return trainer, splits

    def _begin(self, prepared: Any, folders: dict[str, Path]) -> None:
        """With the weights of adapters that are there; UserError where they do not do."""
        for folder in (folders[key] for key in folders if key != "model.id"):
            finite.refuse_adapter(folder)
        if self.recipe.model.continues and (own := self.plan.method.continued):
            loading.begin_with(prepared, folders["model.adapter"], own.weights)
        methods.begin_as(prepared, self.plan, replay.experts_in(folders))

    def _rows(self, task: Any, model_dir: Path) -> tuple[PreTrainedTokenizerBase, data.Splits]:
        """The tokenizer, and the rows in its tokens; UserError if none is left to train on."""
        with self.attempt.during("reading"):
            tokenizer = AutoTokenizer.from_pretrained(
                model_dir, trust_remote_code=False, local_files_only=True
            )
            self.encoder = data.encoder_of(self.recipe, model_dir, tokenizer, self.base_dir)
            reading = data.Reading(
                recipe=self.recipe,
                base_dir=self.base_dir,
                encoder=self.encoder,
                columns=task.columns,
            )
            uses = reading.draw() if self.is_main else None
        folder = self.run.path / ".trainer" / f"{data.ROWS_PREFIX}{self.run.attempt()}"
        with self.attempt.during("tokenising", len(uses or ())):
            splits = reading.load(folder, uses, self.progress)
        if splits.train.rows is None:
            raise endings.nothing_to_learn(self.recipe, self.base_dir)
        if chats := self.encoder.renderer.chats:
            tokenizer.chat_template = chats.source  # it is saved with the result
        return tokenizer, splits

    def _arguments(self, *, evaluates: bool) -> dict[str, Any]:
        """UserError if the GPUs are gone that the run was started for."""
        if arguments.is_on_cpu() and devices.of(self.run):
            raise endings.gpus_gone(self.run)
        return arguments.common(
            self.recipe,
            self.plan,
            engine_of(self.plan.engine),
            output_dir=self.run.path / ".trainer",
            evaluates=evaluates,
        )

    def _space_evaluations(self, trainer: RunProtocol) -> None:
        """Once it is known how many rows are left: packing and dropped rows make fewer steps."""
        train = self.recipe.train
        every = interval(arguments.planned_steps(self.recipe, len(trainer.train_dataset)))
        trainer.args.eval_steps = train.eval_every or every
        trainer.args.save_steps = train.save_every or every

    def _base_evaluation(self, trainer: RunProtocol, splits: data.Splits) -> None:
        """What the base model can do, so that the gain can be told.

        Measured on the model as it is wrapped for training: Accelerate would take one that it has
        wrapped for evaluation alone as ready, and never put the processes together.
        """
        if sets := splits.eval_rows:
            with self.attempt.during("evaluating", sum(map(len, sets.values()))):
                if self.recipe.model.continues and self.plan.method.has_switch:
                    trainer.evaluate_base()
                trainer.evaluate()
        self._examples(trainer, splits, "before")

    def _missed_evaluation(self, trainer: RunProtocol) -> None:
        """That of the step which the attempt before was stopped at, so that none is left out."""
        step, every = trainer.state.global_step, int(trainer.state.eval_steps)
        if step and step % every == 0 and step not in trainer.selection.losses:
            trainer.evaluate()

    def _finish(self, trainer: RunProtocol, splits: data.Splits) -> int:
        self.attempt.stop.is_late = True
        step = trainer.state.global_step
        if splits.eval_rows and step not in trainer.selection.losses:
            trainer.evaluate()
        with self.progress.during("finishing"):
            published = self._take_best(trainer)
            self._publish(trainer, published.step)
        self.events.append(published)
        if ranks := methods.ranks(trainer.model, self.plan, published.step):
            self.events.append(ranks)
        self._look_at_inputs(trainer)
        self._examples(trainer, splits, "after")
        self.events.append(End(state=State.FINISHED, step=step))
        return int(ExitCode.FINISHED)

    def _take_best(self, trainer: RunProtocol) -> Published:
        """Load the weights that are to be published, where they are not those of the last step."""
        last, best = trainer.state.global_step, trainer.selection.best
        if not trainer.keeps_best or best is None or best == last:
            return Published(step=last, last_step=last)
        path = checkpoints.of_step(self.run, best).path
        fault = trainer.ranks.from_main(checkpoints.verify(path) if self.is_main else None)
        if fault:
            what = f"step {best} was the best, but its checkpoint cannot be used: {fault}"
            return Published(step=last, last_step=last, what=what)
        trainer.load_weights(path)
        return Published(step=best, last_step=last)

    def _publish(self, trainer: RunProtocol, step: int) -> None:
        """Write the adapter or the model under its final name, complete or not at all."""
        self._wait_for_room(trainer)
        staging = self.run.path / f"{durable.STAGING_PREFIX}model"
        if self.is_main:
            checkpoints.discard(staging)
        trainer.save_model(str(staging))  # every rank takes part in gathering shards
        if not self.is_main:
            return
        (staging / "training_args.bin").unlink(missing_ok=True)
        checkpoints.seal(staging, step=step)
        durable.publish_dir(staging, self.run.model)
        if not parents.is_adapter(self.run.model):
            checkpoints.discard(self.run.base)  # what is published needs it no more
        checkpoints.discard(self.run.path / ".trainer")

    def _wait_for_room(self, trainer: RunProtocol) -> None:
        """The last checkpoint has the weights, so a stop that gives up waiting loses nothing."""
        needed = weights_bytes(trainer.model)
        while lacking := trainer.ranks.from_main(trainer.saver.shortfall(needed)):
            if not trainer.protocol.wait_for_room(trainer.state, lacking, needed):
                raise StopEarly

    def _examples(self, trainer: RunProtocol, splits: data.Splits, moment: str) -> None:
        can_answer = self.plan.task.head == "lm" and trainer.args.world_size == 1  # none sharded
        if not (rows := splits.asked) or not can_answer:
            return
        with self.attempt.during("answering", len(rows)):
            examples.write(
                trainer,
                rows,
                self.attempt,
                encoder=self.encoder,
                moment=moment,
                max_length=self.recipe.data.max_length,
            )

    def _write_lock(self, trainer: RunProtocol) -> None:
        """What the recipe resolved to; what changed since the first attempt is told."""
        if not self.is_main:
            return
        with self.attempt.during("hashing"):
            lock = recipe_lock.resolve(self.recipe, self.run)
        self._stamps = lock["stamps"]
        if told := parents.of_lock(lock):
            self.events.append(BegunWith(parents=told))
        trainer.begun_with = recipe_lock.begun_with(self.recipe, told)
        if drifted := recipe_lock.keep(self.run, lock):
            self.events.append(Drift(changed=tuple(drifted[:50])))

    def _look_at_inputs(self, trainer: RunProtocol) -> None:
        """Somebody may write over the model or the data while the run works with what it read."""
        if touched := recipe_lock.touched(self.recipe, self.run, self._stamps):
            self._stamps = self._stamps | touched
            names, step = tuple(sorted(touched)), trainer.state.global_step
            self.events.append(InputsTouched(step=step, names=names))
