"""The losses and scores of tasks, on batches: as TRL's trainers have them, and by hand."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import os
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from datasets import Dataset  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    MixtralConfig,
    MixtralForCausalLM,
)
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer  # noqa: E402
from trl.experimental.orpo import ORPOTrainer  # noqa: E402
from trl.trainer.utils import add_fused_lm_head  # noqa: E402

from advisor.plan import Plan  # noqa: E402
from advisor.registry.tasks import Beta, Weight  # noqa: E402
from runner.tasks import dpo, kto, orpo, reward  # noqa: E402
from runner.training import on_rows, pairs  # noqa: E402
from runner.training.batches import IGNORED_LABEL  # noqa: E402

ARGUMENTS = {"report_to": "none", "use_cpu": True, "bf16": False, "per_device_train_batch_size": 4}
PAIRS = [
    {"prompt": "Please send two red lamps", "chosen": " to Rome", "rejected": " nowhere at all"},
    {"prompt": "One chair", "chosen": " is one chair", "rejected": " two"},
    {"prompt": "What is it?", "chosen": " a blue table for Paris", "rejected": " no"},
]


@pytest.fixture(scope="module")
def models(tiny_model):
    """A model, and what it was before it was changed a little."""
    before = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    after = copy.deepcopy(before)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in after.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return after, before


def trainer(kind, models, *, loss="chunked", **goal):
    """As much of one of our trainers as its rows' losses need."""
    us = SimpleNamespace(goal=Beta(**goal), plan=Plan.of("full", seq_len=64, loss=loss))
    us._balance, us._imbalance, us.share = 0.0, None, 1.0
    us.log_probs = functools.partial(kind.log_probs, us)
    us.reference = lambda: contextlib.nullcontext(models[1])
    return us


def learnt(prompt, reply):
    """Ids and labels of a prompt and its reply."""
    return prompt + reply, [IGNORED_LABEL] * len(prompt) + reply


def pair(prompt, chosen, rejected):
    """A row as its columns are."""
    values = (*learnt(prompt, chosen), *learnt(prompt, rejected))
    names = ("input_ids", "labels", "rejected_ids", "rejected_labels")
    return dict(zip(names, values, strict=True))


@pytest.mark.parametrize("loss", ["chunked", "full"])
def test_the_loss_is_trl_s(models, tiny_model, tmp_path, loss):
    """Of DPO, with any beta, by logits whole or in tiles."""
    model, before = (copy.deepcopy(one) for one in models)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    theirs = DPOTrainer(
        model=model,
        ref_model=before,
        args=DPOConfig(str(tmp_path), beta=0.3, disable_dropout=False, **ARGUMENTS),
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )
    rows = list(theirs.train_dataset)
    ours = trainer(dpo.RunDpo, (model, before), loss=loss, beta=0.3)
    batch = pairs.Collator(pad=tokenizer.pad_token_id)(
        [pair(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in rows]
    )

    with torch.no_grad():
        wanted = theirs.compute_loss(model, theirs.data_collator(rows))
        found = dpo.RunDpo.row_losses(ours, model, batch)

    assert float(found.losses.mean()) == pytest.approx(float(wanted), abs=1e-6)
    assert abs(float(wanted) - 0.6931) > 1e-3


def test_the_loss_of_rated_replies_is_trl_s(models, tiny_model, tmp_path):
    """Of KTO: the reference point is that of the whole micro-batch, in pieces or not."""
    before, model = (copy.deepcopy(one) for one in models)  # so that replies have gained
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rated = [
        {"prompt": row["prompt"], "completion": row[key], "label": key == "chosen"}
        for row, key in zip(PAIRS, ("chosen", "rejected", "chosen"), strict=True)
    ]
    theirs = KTOTrainer(
        model=model,
        ref_model=before,
        args=KTOConfig(
            str(tmp_path),
            beta=0.3,
            disable_dropout=False,
            train_sampling_strategy="sequential",
            **ARGUMENTS,
        ),
        train_dataset=Dataset.from_list(rated),
        processing_class=tokenizer,
    )
    rows = list(theirs.train_dataset)
    ours = trainer(kto.RunKto, (model, before), beta=0.3)
    ours.batches, ours._prepare_inputs = kto.RunKto.batches, lambda batch: batch
    ours.args = SimpleNamespace(device="cpu")
    batch = kto.Collator(tokenizer.pad_token_id, 64)(
        [
            dict(
                zip(
                    ("input_ids", "labels"),
                    learnt(r["prompt_ids"], r["completion_ids"]),
                    strict=True,
                )
            )
            | {"is_good": r["label"]}
            for r in rows
        ]
    )

    with torch.no_grad():
        wanted = theirs.compute_loss(model, theirs.data_collator(rows))
        known = kto.RunKto.of_whole(ours, model, [batch])
        found = kto.RunKto.row_losses(ours, model, batch | known)
        parts = ours.batches.divided(batch, 3)
        again = kto.RunKto.of_whole(ours, model, parts)

    assert float(found.losses.mean()) == pytest.approx(float(wanted), abs=1e-6)
    assert float(known["gained"]) > 0
    assert len(parts) == 3
    assert float(again["gained"]) == pytest.approx(float(known["gained"]), abs=1e-5)


def test_a_row_alone_has_no_reference_point(models):
    """There is no reply to another prompt: nothing is taken off."""
    ours = SimpleNamespace(batches=kto.RunKto.batches, args=SimpleNamespace(device="cpu"))
    batch = kto.Collator(0, 64)([{"input_ids": [1, 2], "labels": [-100, 2], "is_good": True}])

    assert float(kto.RunKto.of_whole(ours, None, [batch])["gained"]) == 0


def test_a_rated_row_stands_beside_its_prompt_with_the_reply_before_it():
    """Cut to the length of a row; the first has the last one's."""
    rows = [
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "is_good": True},
        {"input_ids": [4, 5, 6], "labels": [-100, -100, 6], "is_good": False},
    ]

    batch = kto.Collator(pad=0, max_length=3)(rows)

    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 6], [1, 6, 0], [4, 5, 2]]
    assert batch["labels"][2:].tolist() == [[-100, 6, -100], [-100, -100, 2]]
    assert batch["is_good"].tolist() == [True, False]
    assert kto.RunKto.batches.counts(rows, batch) == (2, 6, 6, 3, 3)


def test_good_and_bad_replies_count_as_much_in_the_scores():
    """Whatever their numbers; the weights of a set have the mean 1."""
    sets = {"a": Dataset.from_dict({"is_good": [True, True, True, False]}), "b": None}

    weights = kto._balanced(sets)["a"]["weight"]

    assert list(weights) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert list(kto._balanced(Dataset.from_dict({"is_good": [True]}))["weight"]) == [1]


def test_the_loss_of_odds_is_trl_s_beside_that_of_the_chosen_reply(models):
    """Of ORPO, with any weight."""
    model = copy.deepcopy(models[0])
    add_fused_lm_head(model)
    rows = [pair([5, 6], [7, 8, 9], [10]), pair([5], [10, 11], [7, 8, 9])]
    batch = pairs.Collator(pad=0)(rows)
    ours = trainer(orpo.RunOrpo, (model, None))
    ours.goal = Weight(beta=0.4)

    with torch.no_grad():
        found = orpo.RunOrpo.row_losses(ours, model, batch)
        sums, counts = ours.log_probs(model, batch)
    better, worse = (sums / counts).chunk(2)
    theirs = SimpleNamespace(beta=0.4, accelerator=SimpleNamespace(device="cpu"))
    ratio = ORPOTrainer.odds_ratio_loss(theirs, better, worse)[0]

    assert found.losses.tolist() == pytest.approx((-better - ratio).tolist(), abs=1e-6)
    assert float(orpo.log_odds(torch.tensor(0.0))) > 10


def test_a_reward_is_read_at_the_last_token_of_a_row(tiny_model):
    """The loss is that of their difference, however far a row is filled up."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1).eval()
    model.config.pad_token_id = 0
    rows = [pair([5, 6], [7, 8, 9], [10])]
    ours = trainer(reward.RunReward, (model, None))
    ours.outputs = functools.partial(reward.RunReward.outputs, ours)

    with torch.no_grad():
        found = reward.RunReward.row_losses(ours, model, pairs.Collator(pad=0)(rows))
        alone = [float(model(torch.tensor([ids])).logits) for ids in ([5, 6, 7, 8, 9], [5, 6, 10])]

    margin = alone[0] - alone[1]
    assert found.scores["margin"].tolist() == pytest.approx([margin], abs=1e-5)
    assert float(found.losses) == pytest.approx(math.log1p(math.exp(-margin)), abs=1e-6)


def test_a_pair_is_scored_by_what_a_token_of_its_replies_is_worth(models):
    """The margin is the difference of means, and right where it is above 0, whatever the length."""
    model = copy.deepcopy(models[0])
    add_fused_lm_head(model)
    add_fused_lm_head(before := copy.deepcopy(models[1]))
    rows = [pair([5, 6], [7, 8, 9], [10]), pair([5, 6], [10], [7, 8, 9])]

    with torch.no_grad():
        found = dpo.RunDpo.row_losses(
            trainer(dpo.RunDpo, (model, before)), model, pairs.Collator(pad=0)(rows)
        )
        logits = model(torch.tensor([[5, 6, 7, 8, 9], [5, 6, 10, 0, 0]])).logits.log_softmax(-1)

    long = sum(logits[0, 1 + i, token] for i, token in enumerate([7, 8, 9])) / 3
    margin = float(long - logits[1, 1, 10])
    assert found.scores["margin"].tolist() == pytest.approx([margin, -margin], abs=1e-5)
    assert found.scores["accuracy"].tolist() == [float(margin > 0), float(margin < 0)]
    assert found.counts.tolist() == [1, 1]


def test_a_batch_of_pairs_has_the_chosen_ones_first():
    """Filled up to the longest of all; its counts are those of both replies."""
    rows = [pair([1], [2], [3, 4, 5]), pair([6, 7], [8, 9], [10])]

    batch = pairs.Collator(pad=0)(rows)

    assert batch["input_ids"].tolist() == [
        [1, 2, 0, 0],
        [6, 7, 8, 9],
        [1, 3, 4, 5],
        [6, 7, 10, 0],
    ]
    assert batch["labels"][3].tolist() == [-100, -100, 10, -100]
    assert batch["attention_mask"].sum(1).tolist() == [2, 4, 4, 3]
    counts = pairs.PairBatches().counts(rows, batch)
    assert counts == (2, 16, 13, 7, 4)
    assert pairs.PairBatches().num_learnt(batch) == 2
    data = {name: [row[name] for row in rows] for name in rows[0]}
    assert pairs.PairBatches().lengths(data) == [4, 4]


def mixture():
    """A tiny random mixture of experts."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    model = MixtralForCausalLM(MixtralConfig(**sizes, **heads, router_aux_loss_coef=0.02))
    add_fused_lm_head(model)
    return model.eval()


@pytest.mark.parametrize("loss", ["chunked", "full"])
def test_the_experts_of_a_mixture_are_kept_in_balance(loss):
    """By the config's weight, of each micro-batch its share; not by what is only asked."""
    model, before = mixture(), mixture()
    ours = trainer(dpo.RunDpo, (model, before), loss=loss)
    ours._balance = on_rows.balance_of(model.config)
    ours.of_weights = lambda _: 0.0
    ours._of_router = functools.partial(dpo.RunDpo._of_router, ours)
    ours.row_losses = functools.partial(dpo.RunDpo.row_losses, ours)
    ours.recorder = SimpleNamespace(phase=lambda _: contextlib.nullcontext())
    ours.accelerator = SimpleNamespace(num_processes=1)
    ours.current_gradient_accumulation_steps, ours.share = 4, 0.5
    batch = pairs.Collator(pad=0)([pair([5, 6], [7, 8, 9], [10])])

    found = dpo.RunDpo.compute_loss(ours, model, batch, num_items_in_batch=torch.tensor(2))

    rows = dpo.RunDpo.row_losses(ours, model, batch).losses
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    aux = model(**read, output_router_logits=True).aux_loss
    assert ours._balance == 0.02
    wanted = float(rows.sum() / 2 + 0.02 * aux * 0.5 / 4)
    assert float(found) == pytest.approx(wanted, abs=1e-6)
    assert float(aux) > 0.1
    with torch.no_grad():
        ours._imbalance = None
        dpo.RunDpo.row_losses(ours, model, batch)
    assert ours._imbalance is None
