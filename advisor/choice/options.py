"""What each rung comes to on one machine: its best fit, or what stands in its way.

A rung is searched when it is first asked for and remembered; nothing is chosen here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from advisor.choice import fit, ladder, storage, words
from advisor.choice.devices import Batch
from advisor.choice.fit import Fit
from advisor.choice.unlock import Unlock, unlocks
from advisor.plan import Plan
from advisor.registry.lookup import OPTIMIZERS, preset_of
from advisor.registry.spec import keys_of
from profiles.facts import Machine, Model

_LEAST_RANK: Final = 8


class Options:
    """The rungs for one model, machine, row length and batch."""

    def __init__(
        self,
        model: Model,
        machine: Machine,
        base: Plan,
        batch: Batch,
        *,
        num_tasks: int = 1,
    ) -> None:
        self.model, self.machine = model, machine
        self.base = self._quantized = base
        self._settings: Mapping[str, Any] = {}
        self.batch = batch
        self.num_tasks = num_tasks
        self.rungs = tuple(
            rung
            for rung in ladder.rungs(model, num_tasks)
            if not ladder.unsupported(preset_of(rung), model, machine)
        )
        self._fits: dict[str, Fit] = {}
        self._leasts: dict[str, Fit] = {}
        self._mixture: Model | None = None

    def expect_ranks(self, rank: int, *, quantized: int) -> None:
        """Search with the ranks that the leaf will probably have, of 16-bit and quantized bases."""
        self.base = self.base.with_settings(rank=rank, alpha=2 * rank)
        self._quantized = self.base.with_settings(rank=quantized, alpha=2 * quantized)

    def start_from(self, settings: Mapping[str, Any], rung: str) -> None:
        """Search with these settings, of a rank as small as may be where `rung` needs it to fit."""
        self._settings = {name: value for name, value in settings.items() if name != "rank"}
        rank = settings.get("rank")
        if rank is None:
            return
        for tried in (rank, min(rank, _LEAST_RANK)):
            self._fits.clear()
            self.expect_ranks(tried, quantized=tried)
            if not self.obstacle(rung):
                return

    def model_of(self, rung: str) -> Model:
        """The model that the rung trains: upcycling makes another one."""
        if not preset_of(rung).upcycles:
            return self.model
        self._mixture = self._mixture or ladder.trained_model(rung, self.model)
        return self._mixture

    def fit(self, rung: str) -> Fit:
        """The rung's first variant that fits, or the one nearest to fitting."""
        if rung not in self._fits:
            self._fits[rung] = self._search(rung)
        return self._fits[rung]

    def plans(self, rung: str) -> tuple[Plan, ...]:
        """The rung's plans, in the order to try them; quantized bases have a rank of their own."""
        preset = preset_of(rung)
        base = self._quantized if "bits" in preset.changes else self.base
        plans = ladder.plans(preset, self.model_of(rung), base, num_tasks=self.num_tasks)
        return tuple(self._as_wanted(plan) for plan in plans) if self._settings else plans

    def _as_wanted(self, plan: Plan) -> Plan:
        keys = keys_of(type(plan.settings))
        return plan.with_settings(**{k: v for k, v in self._settings.items() if k in keys})

    def _search(self, rung: str) -> Fit:
        model, tried = self.model_of(rung), []
        for plan in self.plans(rung):
            found = self._fetching(rung, fit.best(model, self.machine, plan, self.batch))
            if found.fits:
                return found
            tried.append(found)
        return min(tried, key=lambda found: found.missing_bytes)

    def least(self, rung: str) -> Fit:
        """The rung with the least memory, over the devices of its best fit when first asked for.

        The tree asks before a leaf has its own rank and dropout; the table tells the same number.
        """
        if rung not in self._leasts:
            found, model = self.fit(rung), self.model_of(rung)
            plan = found.plan
            least = fit.smallest(plan, plan.micro_batch * plan.accumulation)
            smallest = found
            if least != plan:
                smallest = self._fetching(rung, fit.judge(model, self.machine, least))
            # Gradients that wait for further micro-batches can take more than rows do
            both = (smallest, found)
            self._leasts[rung] = min(both, key=lambda one: one.memory.high_bytes)
        return self._leasts[rung]

    def fit_like(self, rung: str, like: Plan) -> Fit:
        """The batch of another plan, where a whole search would tell no more worth waiting for."""
        if rung in self._fits:
            return self._fits[rung]
        model = self.model_of(rung)
        spread = ladder.spread(self.plans(rung)[0], like.num_gpus)
        same = [plan for plan in spread if plan.engine is like.engine]
        plan = replace(
            (same or spread)[-1],
            micro_batch=like.micro_batch,
            accumulation=like.accumulation,
            checkpointing=like.checkpointing and spread[0].method.recomputes,
        )
        least = fit.smallest(plan, plan.micro_batch * plan.accumulation)
        # Wider weights leave less room than the other plan had: only the least may fit
        narrower = like.base_bits < plan.base_bits
        lengths = self.batch.lengths
        found = fit.judge(model, self.machine, least if narrower else plan, lengths)
        if not found.fits and not narrower:
            found = fit.judge(model, self.machine, least, lengths)
        self._fits[rung] = self._fetching(rung, found)
        return self._fits[rung]

    def fit_that_runs(self, rung: str) -> Fit | None:
        """The rung's best fit among the plans that our runner can run."""
        if (found := self.fit(rung)).runs:
            return found
        for plan in self.plans(rung):
            model = self.model_of(rung)
            found = fit.best(model, self.machine, plan, self.batch, runs_only=True)
            found = self._fetching(rung, found)
            if found.runs and found.fits:
                return found
        return None

    def set_rank(self, rung: str, rank: int, dropout: float) -> None:
        """Give the rung the wanted rank and dropout, or the nearest below that still fits."""
        least = min(rank, _LEAST_RANK)
        plan = self.plans(rung)[0]
        while True:
            for share in dict.fromkeys((dropout, 0.0)):
                wanted = self._as_wanted(
                    plan.with_settings(rank=rank, alpha=2 * rank, dropout=share)
                )
                if wanted == plan:
                    return
                found = fit.best(self.model, self.machine, wanted, self.batch)
                if found.fits:
                    self._fits[rung] = found
                    return
            if rank <= least:
                return
            rank = max(least, rank // 2)

    def obstacle(self, rung: str) -> str:
        """What stands in the way of a rung, or empty if nothing does."""
        if reason := ladder.unsupported(preset_of(rung), self.model, self.machine):
            return reason
        found = self.fit(rung)
        return "" if found.fits else words.need(found)

    def unlocks(self, rung: str, *, on_more: bool = True) -> tuple[Unlock, ...]:
        """What would make a rung that was judged fit; smaller optimizer states come first."""
        found = self.fit(rung)
        ways = unlocks(self.model_of(rung), self.machine, found, on_more=on_more)
        lighter = preset_of(rung).lighter
        if not ways or lighter not in self.rungs or not self.fit(lighter).fits:
            return ways
        optimizer = OPTIMIZERS[preset_of(lighter).optimizer]
        return (Unlock(kind="optimizer", value=optimizer.bits, words=optimizer.title), *ways)

    def disk(self, rung: str, plan: Plan) -> storage.Disk:
        """What is written until a run of `plan` has ended; a mixture is made of a base first."""
        found = storage.disk(self.model_of(rung), plan)
        return replace(found, download_bytes=found.download_bytes + self._fetched(rung))

    def _fetched(self, rung: str) -> int:
        """Bytes of the dense model that a mixture is made of, where it is not here yet."""
        is_made = self.model_of(rung) is not self.model and not self.model.path
        return storage.weight_bytes(self.model) if is_made else 0

    def _fetching(self, rung: str, found: Fit) -> Fit:
        """With what is fetched before the model is made that the fit is of."""
        more = self._fetched(rung)
        return replace(found, disk_bytes=found.disk_bytes + more) if more else found
