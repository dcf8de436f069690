"""What is said of data and of the recipe that reads them: in full, and with a way that works."""

from __future__ import annotations

import gzip
import subprocess

import pytest
from data_files import CHAT, GOOD, examples, refused, write, write_rows
from small_model import recipe_text, small_model

from advisor import recipe as recipes
from profiles.data import dataset
from profiles.errors import UserError
from profiles.models import model
from tui.cli_recommend import reading_of
from tui.main import run
from tui.pages.data import beyond

CSV = "prompt,completion\rwhy a?,a letter\rwhy b?,another\r"
LINES = '{"prompt": "why a?", "completion": "a"}\r{"prompt": "why b?", "completion": "b"}\r'


@pytest.mark.parametrize(
    ("name", "text"), [("a b.csv", CSV), ("rows.jsonl", LINES), ("rows.jsonl.gz", LINES)]
)
def test_carriage_returns_alone_are_told_with_the_command_that_mends_them(tmp_path, name, text):
    data = text.encode()
    path = write(tmp_path, gzip.compress(data) if name.endswith(".gz") else data, name)
    error = refused(path)

    assert error.what == "lines end with a carriage return alone"
    command = error.do.partition(": ")[2]
    subprocess.run(command, shell=True, check=True)  # noqa: S602  # the advice as a person runs it
    (new,) = tmp_path.glob("*-lines.*")
    assert [row.prompt for row in examples(new)] == ["why a?", "why b?"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", CSV.replace("\r", "\r\n")),
        ("rows.jsonl", LINES.replace("\r", "\r\n")),
        ("rows.jsonl", LINES.partition("\r")[0] + "\r"),
        ("rows.json", f"[{LINES.strip()}]".replace("\r", ",\r")),
    ],
)
def test_other_line_ends_and_one_list_are_read(tmp_path, name, text):
    assert examples(write(tmp_path, text, name))[0].prompt == "why a?"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT, "images": ["a.png"]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, CHAT[1]]},
    ],
)
def test_rows_with_pictures_are_refused_as_such(tmp_path, row):
    """Keys that are not usable are not their fault, and nothing can be repaired."""
    error = refused(write_rows(tmp_path, [row] * 3))

    assert error.why.startswith("texts alone are learnt here")
    assert error.do.startswith("take these rows out")
    few = [row, *[{"messages": CHAT}] * 19]
    assert "--on-bad skip" in refused(write_rows(tmp_path, few)).do
    mixed = refused(write_rows(tmp_path, [row, {"messages": 3}, *few]))
    assert "usable `messages`" in mixed.why


def test_lists_that_are_cut_say_how_many_more_there_are(tmp_path):
    more = {f"column_{n}": n for n in range(11)}
    tags = "".join(f"<{tag}>x</{tag}>" for tag in ("table", "tr", "td", "p", "div", "span", "b"))
    path = write_rows(tmp_path, [GOOD | more | {"completion": f"{tags} {n}"} for n in range(4)])
    told = dataset.check(path).warnings

    assert any(one.endswith("`column_7` and 3 more") for one in told), told
    (html,) = [one for one in told if "HTML" in one]
    assert html.endswith("<table>, <tr>, <td>, <p>, <div> and 2 more")
    assert refused(write_rows(tmp_path, [more])).what.endswith("`column_10`")


@pytest.mark.parametrize("split", ["80/10/10", "8:1", "0:1:1", "0.8:0.1:0.1"])
def test_a_split_that_is_none_is_told_by_example(split):
    with pytest.raises(UserError) as caught:
        recipes.parse(recipe_text().replace("[method]", f'split = "{split}"\n[method]'), where="r")

    assert f'such as "8:1:1" or "90:10:0"; found \'{split}\'' in caught.value.why
    assert "pattern" not in caught.value.why
    assert recipes.parse(recipe_text(), where="r").data.shares == (8, 1, 1)


def test_a_setting_of_another_task_is_to_be_left_out():
    with pytest.raises(UserError) as caught:
        recipes.parse(recipe_text(extra="[objective]\nbeta = 0.2\n"), where="r")

    assert caught.value.why.endswith("dpo, orpo, kto have it: leave it out")


def test_check_and_recommend_tell_how_values_are_divided(tmp_path, capsys):
    rows = [GOOD | {"completion": f"c {n}", "source": "ab"[n % 2]} for n in range(20)]
    path = str(write_rows(tmp_path, rows))
    held_out = str(write_rows(tmp_path, [GOOD], "held_out.jsonl"))  # which is not divided

    assert run(["data", "check", path, "--split-by", "source", "--eval", held_out]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("by `source` (train/eval/kept): a 8/1/1, b 8/1/1") == 1
    assert run(["data", "check", path, "--split-by", "sorce"]) == 65
    assert "'source'" in capsys.readouterr().err
    assert reading_of("--split-by source --task kto")["split_by"] == "source"


def test_what_is_recommended_is_divided_by_the_column_too(tmp_path, capsys):
    """It is written into the recipe."""
    rows = [GOOD | {"completion": f"c {n}", "source": "ab"[n % 2]} for n in range(20)]
    path, wanted = write_rows(tmp_path, rows), tmp_path / "r.toml"
    asked = ["--data", str(path), "--split-by", "source", "--save", str(wanted)]

    run(["recommend", "--model", "Qwen/Qwen2.5-0.5B", "--gpu", "RTX 4090", *asked])

    assert "by `source` (train/eval/kept)" in " ".join(capsys.readouterr().out.split())
    assert recipes.parse(wanted.read_text(), where="r").data.split_by == "source"


def test_rows_longer_than_the_model_reads_are_told_where_no_length_is_asked_for(tmp_path, capsys):
    """By check and show, with the option that tells what is lost."""
    folder = small_model(tmp_path / "model")  # reads 256 tokens
    rows = [GOOD, GOOD | {"completion": "a " * 300}]
    path = str(write_rows(tmp_path, rows))
    for command in ("check", "show"):
        run(["data", command, path, "--model", str(folder)])
        told = " ".join(capsys.readouterr().out.split())
        assert "1 of 2 rows are longer than the 256 tokens that model reads" in told, command
        assert "--max-length 256" in told
        run(["data", command, path, "--model", str(folder), "--max-length", "256"])
        assert "tokens that model reads" not in capsys.readouterr().out
    run(["data", "check", str(write_rows(tmp_path, [GOOD])), "--model", str(folder)])
    assert "that model reads" not in capsys.readouterr().out
    base = model.from_folder(folder)
    assert beyond([(256, 3)], base, None) == ""
    assert beyond([(256, 3), (257, 2)], base, 300).startswith("2 of 5 rows are longer")
