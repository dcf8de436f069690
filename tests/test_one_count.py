"""Check, recommendation, run and training count the same rows alike, for every family's template.

Rows, tokens, learnt tokens, rows that are cut and rows that are left out: one set of numbers.
"""

from __future__ import annotations

import json

import pytest
from chat_templates_in_use import LEARNT, ROWS, TEMPLATES
from data_files import byte_tokenizer, write_rows
from record_examples import example
from small_model import CONFIG, recipe_text, small_model

pytest.importorskip("trl")

from advisor import recipe as recipes
from profiles.data import dataset
from profiles.models.model import from_folder
from profiles.row_counts import RowCounts
from profiles.runs.records.worker import Prepared
from runner.checks import chat_templates
from runner.tasks import sft
from runner.training import data
from tui import follow
from tui.main import run
from tui.pages import data as data_page

SHAPES = [name for name in ROWS if name != "masked"]  # a format has its own words for it


class Ticks:
    """A progress that nobody looks at."""

    def tick(self):
        pass


@pytest.fixture
def model(tmp_path):
    """A folder with a tokenizer of bytes and this template."""

    def make(template):
        folder = small_model(tmp_path / "model", config=CONFIG | {"max_position_embeddings": 4096})
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        special = {"bos_token": "<s>", "eos_token": "</s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(special))
        (folder / "chat_template.jinja").write_text(TEMPLATES[template])
        return folder

    return make


def rows_for(template):
    """Every shape that the template takes, each with short and with long texts."""
    taken = [name for name in SHAPES if not isinstance(LEARNT[template][name], str)]
    return [
        {"messages": [turn(message, number, longer) for message in ROWS[name].messages]}
        for name in taken
        for number, longer in enumerate((0, 7, 60, 300))
    ]


def turn(message, number, longer):
    more = f" and {number}{' more' * (longer // 5)}" if message.role != "system" else ""
    return {"role": message.role, "content": message.content + more}


def checked(capsys, path, folder, max_length):
    capsys.readouterr()
    run(["data", "check", path, "--model", folder, "--max-length", str(max_length), "--json"])
    return RowCounts(**json.loads(capsys.readouterr().out)["counts"])


def recommended(capsys, path, folder, *more):
    capsys.readouterr()
    run(["recommend", "--model", folder, "--data", path, "--gpu", "RTX 4090", "--json", *more])
    found = json.loads(capsys.readouterr().out)
    rows, best = found["recommended"]["rows"], found["recommended"]
    counts = RowCounts(
        num_rows=found["data"]["num_rows"],
        num_dropped=rows["left_out"],
        num_cut=rows["cut"],
        num_tokens=rows["tokens"],
        num_learnt=rows["learnt_tokens"],
    )
    return counts, best["plan"]["seq_len"], found["warnings"]


def loaded(tmp_path, folder, max_length):
    """The rows as training has them."""
    text = recipe_text(train="train.jsonl")
    recipe = recipes.with_changes(text, {"data.max_length": str(max_length)}, where="test")
    reading = data.Reading(
        recipe=recipe,
        base_dir=tmp_path,
        encoder=chat_templates.encoder(from_folder(folder), "model"),
        columns=sft.columns,
    )
    return reading.load(tmp_path / f"rows-{max_length}", reading.draw(), Ticks())


def trained(tmp_path, folder, max_length):
    """What training counts, and the rows that it has on the disk."""
    splits = loaded(tmp_path, folder, max_length)
    parts = [splits.train, *splits.eval.values(), splits.test]
    rows = [row for part in parts if part.rows is not None for row in part.rows]
    return splits.of_train_file, rows


def a_length(folder, path, *, drops):
    """One that cuts rows, and that leaves nothing of a quarter of them if that is wanted."""
    encoder = chat_templates.encoder(from_folder(folder))
    tokens = dataset.check(path, encoder=encoder).tokens
    starts = [start for start, rows in tokens.starts for _ in range(rows)]
    return starts[-(len(starts) // 4)] if drops else starts[-1] + 1


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("drops", [True, False])
def test_everybody_counts_alike(tmp_path, capsys, model, template, drops):
    """At a length that cuts rows, and at one that leaves nothing of some."""
    folder, path = str(model(template)), str(write_rows(tmp_path, rows_for(template)))
    max_length = a_length(folder, path, drops=drops)

    check = checked(capsys, path, folder, max_length)
    recommendation, length, _ = recommended(capsys, path, folder, "--seq-len", str(max_length))
    training, rows = trained(tmp_path, folder, max_length)

    assert check == recommendation == training
    assert length == max_length
    assert check.num_cut > 0 or drops
    assert (check.num_dropped > 0) is drops
    assert check.num_rows - check.num_dropped == len(rows)
    assert check.num_tokens == sum(len(row["input_ids"]) for row in rows)
    assert check.num_learnt == sum(label >= 0 for row in rows for label in row["labels"])


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_recommended_length_loses_no_row_in_silence(tmp_path, capsys, model, template):
    """Headers of templates are long; what is recommended counts them."""
    folder, path = str(model(template)), str(write_rows(tmp_path, rows_for(template)))

    recommendation, length, warnings = recommended(capsys, path, folder)
    training, _ = trained(tmp_path, folder, length)

    assert recommendation == training
    told = recommendation.losses(f"max_length {length}")
    assert any(warning.startswith(told) for warning in warnings) or not told


def test_a_dry_run_and_a_follower_say_the_same(tmp_path, capsys, model, monkeypatch):
    """Before the start, and at the start."""
    monkeypatch.chdir(tmp_path)
    folder = model("chatml")
    path = write_rows(tmp_path, rows_for("chatml"))
    length = a_length(folder, path, drops=True)
    training, _ = trained(tmp_path, folder, length)
    (tmp_path / "r.toml").write_text(recipe_text(train="train.jsonl"))

    capsys.readouterr()
    assert run(["run", "r.toml", "--dry-run", "--set", f"data.max_length={length}"]) == 0
    before = " ".join(capsys.readouterr().err.split())
    following = follow.describe(example(Prepared, file=training))

    rows = f"{training.num_rows} rows"
    assert f"{rows} of messages data, {training.words}" in before
    assert f"! {training.losses(f'max_length {length}')}" in before
    assert f"{rows} of {training.words}" in following
    assert f"! {training.losses('data.max_length')}" in following


THOUGHTS = "24 of 24 rows have a reply of which the chat template leaves something out"
ENDLESS = "24 of 24 rows end with no mark, so the model will not learn to stop"


@pytest.mark.parametrize(
    ("template", "sentence"), [("thinks_at_the_end", THOUGHTS), ("no_end_mark", ENDLESS)]
)
def test_what_a_template_does_is_told_everywhere(
    tmp_path, capsys, model, monkeypatch, template, sentence
):
    """By check, recommendation, dry run, followers and the app; what is learnt is what is left."""
    monkeypatch.chdir(tmp_path)
    folder, thought = model(template), ROWS["thought"].messages
    path = write_rows(
        tmp_path, [{"messages": [turn(message, n, 0) for message in thought]} for n in range(24)]
    )
    (tmp_path / "r.toml").write_text(recipe_text(train="train.jsonl"))

    def printed(*arguments):
        capsys.readouterr()
        assert run([*map(str, arguments)]) == 0
        return " ".join("".join(capsys.readouterr()).split())

    asked = ("--model", folder, "--data", path, "--gpu", "RTX 4090")
    assert f"! {sentence}" in printed("data", "check", path, "--model", folder)
    assert f"! {sentence}" in printed("recommend", *asked)
    assert f"! {sentence}" in printed("run", "r.toml", "--dry-run")
    assert "! rows like this" in printed("data", "show", path, "--model", folder)
    encoder = chat_templates.encoder(from_folder(folder))
    in_app = data_page.lines(dataset.check(path, encoder=encoder), 300)
    assert any(line.startswith(f"! {sentence}") for line in in_app)
    told = loaded(tmp_path, folder, 512).told
    assert len(told) == 1
    assert f"\n! {sentence}" in follow.describe(example(Prepared, of_template=tuple(told)))
