"""`advisor data check` as a user sees it at 80 columns, and its exit codes."""

from __future__ import annotations

import json

from data_files import word_tokenizer, write_rows

from tui.main import run

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}


def pairs(num_rows, start=0):
    numbers = range(start, start + num_rows)
    return [{"prompt": f"what is {n}?", "completion": f"it is the number {n}"} for n in numbers]


def checked(capsys, *arguments):
    code = run(["data", "check", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_a_sound_file_is_ready_for_training(tmp_path, capsys):
    """Every line fits into 80 columns, and the last one says it."""
    path = write_rows(tmp_path, pairs(20))

    code, out = checked(capsys, path)

    lines = out.splitlines()
    assert (code, lines[-1]) == (0, "ready for training")
    assert all(len(line) <= 80 for line in lines if str(tmp_path) not in line)
    assert "prompt_completion, JSON Lines" in out
    assert "prompt, completion: a text" in out
    assert "Latin 100 %" in out


def test_preference_data_is_ready_for_its_own_task(tmp_path, capsys):
    """As data of replies is for theirs."""
    path = write_rows(tmp_path, [{"prompt": "q", "chosen": "yes", "rejected": "no"}])

    code, out = checked(capsys, path)

    assert (code, "ready for training" in out) == (0, True)


def test_labels_are_shown(tmp_path, capsys):
    """The commonest first."""
    rows = [{"text": f"text {n}", "label": "good" if n % 3 else "bad"} for n in range(9)]

    code, out = checked(capsys, write_rows(tmp_path, rows))

    assert code == 0
    assert "good 6, bad 3" in out


def test_a_length_that_leaves_nothing_to_learn_is_not_ready(tmp_path, capsys):
    """The page is shown all the same."""
    rows = [{"prompt": "long " * 100, "completion": f"reply {n}"} for n in range(4)]

    code, out = checked(capsys, write_rows(tmp_path, rows), "--max-length", 50)

    assert code == 65
    assert "not ready for training: 4 of 4 examples have no trainable token at" in out


def test_a_faulty_file_among_others_does_not_hide_them(tmp_path, capsys):
    """Each file is told, and the exit code is that of the faulty one."""
    good, bad = write_rows(tmp_path, pairs(5)), tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "p", "completion": bad}\n')

    code = run(["data", "check", str(bad), str(tmp_path / "none.jsonl"), str(good)])
    shown = capsys.readouterr()

    assert code == 65
    assert "not JSON" in shown.err
    assert "there is no file" in shown.err
    assert shown.out.endswith("ready for training\n")


def test_bad_rows_are_left_out_where_that_is_asked_for(tmp_path, capsys):
    """As `on_bad` of a recipe does."""
    path = write_rows(tmp_path, [*pairs(20), {"prompt": "p"}])

    assert checked(capsys, path)[0] == 65
    code, out = checked(capsys, path, "--on-bad", "skip")
    assert code == 0
    assert "1 faulty" in out


def test_the_format_can_be_chosen(tmp_path, capsys):
    """A misspelt one is answered with the near one."""
    path = write_rows(tmp_path, [{"text": "t", "label": 1}])

    assert checked(capsys, path, "--format", "text")[0] == 0
    assert checked(capsys, path, "--format", "txet")[0] == 2


def test_leaks_between_training_and_evaluation_are_shown(tmp_path, capsys):
    """With the lines in both files; files without common rows are said to have none."""
    train, held_out = (
        write_rows(tmp_path, pairs(20)),
        write_rows(tmp_path, pairs(5, start=17), "eval.jsonl"),
    )

    code, out = checked(capsys, train, "--eval", held_out)

    told = " ".join(out.split())
    assert code == 0
    assert f"3 of 5 rows of {held_out} are also in {train}" in told
    assert "(first: line 1, there line 18)" in told
    other = write_rows(tmp_path, pairs(5, start=50), "other.jsonl")
    assert "no row of" in checked(capsys, train, "--eval", other)[1]


def test_json_has_all_facts(tmp_path, capsys):
    """One file is an object, several are a list, with the leaks where they are asked for."""
    train, held_out = write_rows(tmp_path, pairs(9)), write_rows(tmp_path, pairs(1), "eval.jsonl")

    code, out = checked(capsys, train, "--json")
    one = json.loads(out)
    assert (code, one["num_rows"], one["problem"], one["warnings"]) == (0, 9, "", [])
    assert one["columns"][0] == {"name": "prompt", "types": [["a text", 9, 1]]}

    _, out = checked(capsys, train, tmp_path / "none", "--eval", held_out, "--json")
    both = json.loads(out)
    assert both["files"][0] == one
    assert both["files"][1]["error"]["class"] == "no_input"
    assert both["leaks"][0]["exact"]["count"] == 1
    assert both["leaks"][1] is None


def test_a_model_without_chat_template_is_told_with_chat_data(tmp_path, capsys):
    """Before a run is started with it; data without turns needs none."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    word_tokenizer(base)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello to you"}]
    chats = write_rows(tmp_path, [{"messages": turns}], "chats.jsonl")

    assert checked(capsys, write_rows(tmp_path, pairs(5)), "--model", base)[1].endswith(
        "training\n"
    )
    code, out = checked(capsys, chats, "--model", base)
    assert code == 0
    assert "! the model has no chat template" in out


def test_files_are_parted_by_an_empty_line(tmp_path, capsys):
    """And so is what they have in common with the held-out rows, for each file that is sound."""
    one, two = write_rows(tmp_path, pairs(5)), write_rows(tmp_path, pairs(5, start=50), "two.jsonl")
    held_out = write_rows(tmp_path, pairs(1), "eval.jsonl")

    code, out = checked(capsys, one, two, "--eval", held_out)

    rows = out.splitlines()
    starts = [number for number, row in enumerate(rows) if row.startswith("data ")]
    assert code == 0
    assert starts[0] == 0
    assert [rows[number - 1] for number in starts[1:]] == ["", ""]
    told = " ".join(out.split("ready for training\n\n")[-1].split())
    assert told.startswith(f"! 1 of 1 rows of {held_out} are also in {one} (first: line 1,")
    assert told.endswith(f"no row of {held_out} is in {two}")


def test_held_out_rows_that_cannot_be_used_decide_the_code_too(tmp_path, capsys):
    """The first file with a code has it; leaks are looked for in what can be read."""
    good = write_rows(tmp_path, pairs(5))

    code, out = checked(capsys, good, "--eval", tmp_path / "none.jsonl")
    assert code == 66
    assert "row" not in out.split("ready for training\n")[-1]

    bad = write_rows(tmp_path, [{"prompt": "q", "chosen": "yes", "rejected": 7}], "bad.jsonl")
    assert checked(capsys, bad, "--eval", tmp_path / "none.jsonl")[0] == 65
    assert checked(capsys, good, bad)[0] == 65


def test_one_file_and_held_out_rows_are_a_document_with_both(tmp_path, capsys):
    """So is a list of files without leaks to look for."""
    good = write_rows(tmp_path, pairs(5))

    both = json.loads(checked(capsys, good, "--eval", good, "--json")[1])
    two = json.loads(checked(capsys, good, good, "--json")[1])
    bad = json.loads(checked(capsys, good, "--eval", tmp_path / "none", "--json")[1])

    assert (set(both), set(two)) == ({"files", "eval", "leaks"}, {"files"})
    assert both["eval"] == both["files"][0] == two["files"][1]
    assert both["leaks"][0]["exact"]["count"] == 5
    assert (bad["eval"]["error"]["class"], bad["leaks"]) == ("no_input", [None])


def test_a_person_who_waits_for_a_large_file_sees_progress(tmp_path, capsys, monkeypatch):
    """At a terminal, on one line that is wiped at the end."""
    path = write_rows(tmp_path, pairs(20_000))
    size = path.stat().st_size
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("tui.commands.data_check._SHOWN_FROM_BYTES", size)

    run(["data", "check", str(path)])
    shown = capsys.readouterr().err
    assert "\r" in shown
    assert " rows, " in shown
    assert shown.endswith("\r\033[K")

    monkeypatch.setattr("tui.commands.data_check._SHOWN_FROM_BYTES", size + 1)
    run(["data", "check", str(path)])
    assert capsys.readouterr().err == ""

    monkeypatch.setattr("tui.commands.data_check._SHOWN_FROM_BYTES", size)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    run(["data", "check", str(path)])
    assert capsys.readouterr().err == ""


def test_rows_longer_than_asked_are_told_with_the_longest(tmp_path, capsys):
    """Where it stands, and the length that was asked for."""
    rows = [*pairs(9), {"prompt": "long " * 200, "completion": "a reply to learn from"}]
    path = write_rows(tmp_path, rows)

    _, out = checked(capsys, path, "--max-length", 64)
    told = " ".join(out.split())

    assert "line 10" in told
    assert "64" in told


def test_the_template_and_the_replies_can_be_chosen(tmp_path, capsys):
    """As a recipe does, so that its advice can be tried; a misspelt one is answered."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    word_tokenizer(base)
    pair = [{"role": "user", "content": "hi you"}, {"role": "assistant", "content": "so so"}]
    chats = write_rows(tmp_path, [{"messages": pair * 2}], "chats.jsonl")

    def counts(*more):
        code, out = checked(capsys, chats, "--model", base, "--json", *more)
        assert code == 0
        return json.loads(out)["counts"]["num_learnt"]

    assert counts("--chat-template", "chatml") == 2 * counts("--learn", "last") == 4
    _, out = checked(capsys, chats, "--model", base, "--chat-template", "chatml")
    assert "no chat template" not in out
    assert checked(capsys, chats, "--model", base, "--chat-template", "chatlm")[0] == 2
