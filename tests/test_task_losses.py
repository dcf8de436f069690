"""The losses and scores of tasks, on batches: as TRL's trainers have them, and by hand."""

from __future__ import annotations

import contextlib
import copy
import functools
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402
from trl.trainer.utils import add_fused_lm_head  # noqa: E402

from advisor.plan import Plan  # noqa: E402
from advisor.registry.tasks import Beta  # noqa: E402
from runner.tasks import dpo  # noqa: E402
from runner.training import pairs  # noqa: E402
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
