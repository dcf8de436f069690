"""Texts joined to rows of one length: nothing is lost, each token is learnt once, as told."""

from __future__ import annotations

import pytest
from data_files import write_rows
from known import model

pytest.importorskip("torch")
import real_runs

from advisor import draft
from advisor.choice.recommend import recommend
from profiles.data import dataset
from profiles.joining import joined
from profiles.machines import planned
from runner.training import arrow_rows
from runner.training.batches import IGNORED_LABEL
from tui.commands.request import Asked


def rows_of(tmp_path, texts, length):
    """What is written of (tokens, times)."""
    with arrow_rows.Joined(tmp_path / "rows", length) as writer:
        for ids, times in texts:
            writer.add_texts(list(ids), times)
    return [(row["input_ids"], row["labels"]) for row in arrow_rows.read(tmp_path / "rows")]


def learnt(rows):
    """All tokens that are learnt, in order."""
    return [label for _, labels in rows for label in labels if label != IGNORED_LABEL]


@pytest.mark.parametrize("length", [2, 3, 4, 7, 100])
@pytest.mark.parametrize("sizes", [[1, 1], [10], [3, 1, 8, 2], [4, 3, 3], [25]])
def test_every_token_but_the_first_is_learnt_once(tmp_path, length, sizes):
    """Rows are full but for the last, and each begins with the last token of the one before."""
    tokens = list(range(sum(sizes)))
    texts = [(tokens[sum(sizes[:i]) :][:n], 1) for i, n in enumerate(sizes)]

    rows = rows_of(tmp_path, texts, length)

    assert learnt(rows) == tokens[1:]
    assert [len(ids) for ids, _ in rows[:-1]] == [length] * (len(rows) - 1)
    assert all(labels == [IGNORED_LABEL, *ids[1:]] for ids, labels in rows)
    assert [ids[0] for ids, _ in rows[1:]] == [ids[-1] for ids, _ in rows[:-1]]


def test_a_text_that_is_there_several_times_does_not_follow_itself(tmp_path):
    """The model would learn to copy it."""
    rows = rows_of(tmp_path, [([1, 2, 3], 3), ([4, 5, 6], 1), ([7, 8, 9], 2)], 6)

    one = [[1, 2, 3, 4, 5, 6], [6, 7, 8, 9]]
    assert sorted(ids for ids, _ in rows) == sorted([*one, [1, 2, 3, 7, 8, 9], [1, 2, 3]])


def test_the_lengths_of_joined_rows_follow_from_the_tokens(tmp_path):
    """Nothing is cut, whatever the length; all is learnt."""
    path = write_rows(tmp_path, [{"text": "a" * n} for n in (40, 400, 4000)])
    found = joined(dataset.check(path, kinds=("text",)), 500)

    assert (found.num_rows, found.tokens.max, found.tokens.min) == (3, 500, 110)
    assert found.tokens.lengths == ((110, 1), (500, 2))
    counts = found.tokens.at(500)
    assert (counts.num_cut, counts.num_dropped) == (0, 0)
    assert counts.num_tokens == counts.num_learnt == 1110
    assert joined(found, 10_000).tokens.lengths == ((1110, 1),)


def test_a_recommendation_takes_full_rows_and_cuts_nothing(tmp_path):
    """Of 2 048 tokens, or of all that there are; plain texts alone do not ask for the task."""
    path = write_rows(tmp_path, [{"text": f"{n} " + "word " * 4000} for n in range(40)])
    data = dataset.check(path, kinds=("text",))
    box = planned.plan_machine("RTX 4090")
    assert Asked().answers(data).task.value == "sft"

    found = recommend(model(), box, data, Asked(task="pretrain").answers(data))

    assert found.fit.plan.seq_len == 2048
    assert not [told for told in found.warnings if "cut" in told]
    assert found.dataset.num_rows == -(-data.tokens.total // 2048)
    made = draft.recipe_of(found, model="m", data="d", version="1")
    assert (made.task, made.data.max_length, made.data.packing) == ("pretrain", 2048, False)


@pytest.mark.slow
def test_a_run_reads_every_token_and_says_so(tmp_path, tiny_model):
    """An end stands between texts; the numbers are those of the check."""
    rows = [{"text": "word " * n} for n in (3, 400, 50, 7, 260)]
    run = real_runs.new_run(tiny_model, write_rows(tmp_path, rows), steps=2, save_every=None)
    run.recipe.write_text('task = "pretrain"\n' + run.recipe.read_text())

    real_runs.attempt(run)

    (told,) = real_runs.events(run, "prepared")
    assert told["file"]["num_rows"] == 5
    assert told["file"]["num_cut"] == told["num_dropped"] == 0
    assert told["num_tokens"] == told["num_learnt"] > 720
    assert told["num_train"] == -(-(told["num_tokens"] - 1) // 95)
