"""`advisor data show` as a user sees it: signs that need no colour, 80 columns, JSON."""

from __future__ import annotations

import json

import pytest
from data_files import word_tokenizer, write_rows
from small_model import small_model

from profiles.data.preview import Part, Preview, ShownRow
from profiles.facts import Origin
from profiles.row_counts import RowCounts
from tui.main import run
from tui.pages import data_rows as page
from tui.plain import num_cells, show_toned
from tui.tones import Line, Tone

CHAT = {
    "messages": [
        {"role": "user", "content": "what is a?"},
        {"role": "assistant", "content": "a letter\nthe first"},
    ]
}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def folder(tmp_path):
    """A model with a chat template of its own."""
    found = small_model(tmp_path / "model")
    (found / "chat_template.jinja").write_text(TEMPLATE)
    word_tokenizer(found)
    return found


def shown(capsys, *arguments):
    code = run(["data", "show", *map(str, arguments)])
    return code, capsys.readouterr()


def of_row(row, *, width=80, unicode=True, origin=Origin.MEASURED):
    """The lines of one row, without what stands above."""
    found = Preview(path="f", format="text", origin=origin, max_length=None, rows=(row,))
    lines = page.lines(found, "nothing", [], width, unicode=unicode)
    return lines[[line.text for line in lines].index("") + 1 :]


def row(*parts, **options):
    return ShownRow(line=7, number=3, parts=parts, **options)


def test_a_row_is_shown_with_signs_before_what_is_learnt(tmp_path, folder, capsys):
    """In a pipe there is no colour, and nothing is lost by that."""
    code, told = shown(capsys, write_rows(tmp_path, [CHAT]), "--model", folder)

    assert code == 0
    assert told.out.splitlines()[-6:] == [
        "row 1, line 1: 9 tokens, 4 learnt (44 %)",
        "  | <|im_start|>user↵",
        "  | what is a?<|im_end|>↵",
        "  | <|im_start|>assistant↵",
        "  + a letter↵",
        "  + the first<|im_end|>↵",
    ]
    assert "\x1b" not in told.out
    assert "the chat template of" in " ".join(told.out.split())


def test_every_line_fits_and_every_space_is_kept():
    """Broken after a space; wide characters take two cells; tokens of a part stay together."""
    text = "一二三四五 " * 20 + "  two  spaces and a word " * 9 + "x" * 200
    lines = [
        line for line in of_row(row(Part(text, is_learnt=True)), width=40) if line.text[2] == "+"
    ]

    assert all(num_cells(line.text) <= 40 for line in lines)
    assert "".join(line.text.removeprefix("  + ") for line in lines) == text
    assert {line.tone for line in lines} == {Tone.LEARNT}


def test_read_learnt_and_cut_have_a_sign_and_a_colour_each():
    """The sign says it where there are no colours."""
    parts = (Part("q"), Part("r", is_learnt=True), Part("s", is_learnt=True, is_cut=True))
    lines = of_row(
        row(
            *parts,
            num_tokens=5,
            counts=RowCounts(num_rows=1, num_cut=1, num_tokens=4, num_learnt=2),
        )
    )

    assert lines == [
        Line("row 3, line 7: 5 tokens, cut at max_length 4, 2 learnt (50 %)", Tone.HEAD),
        Line("  | q", Tone.PLAIN),
        Line("  + r", Tone.LEARNT),
        Line("  x s", Tone.CUT),
    ]


def test_a_terminal_gets_no_escape_from_the_data():
    """Colours, cursor, bell, tabs and marks of direction are written out."""
    lines = of_row(row(Part("a\x1b[31mred\x07\tb\u202e\r\nc", is_learnt=True)))

    assert [line.text for line in lines[1:]] == [
        r"  + a\x1b[31mred\x07\x09b\x202e\x0d↵",
        "  + c",
    ]


def test_line_breaks_are_told_in_ascii_where_no_more_is_known():
    """A terminal that knows ASCII alone."""
    (_, line) = of_row(row(Part("a\n")), unicode=False)
    assert line.text == "  | a\\n"


def test_of_a_huge_row_beginning_and_end_are_shown_and_how_much_is_not():
    """With how much of that is learnt; --json has all of it."""
    parts = (Part("q" * 3000), Part("r" * 9_000_000, is_learnt=True), Part("the end"))
    lines = of_row(row(*parts, num_tokens=9))

    assert len(lines) < 50
    assert lines[-1].text.endswith("the end")
    (told,) = [line.text for line in lines if "not shown" in line.text]
    assert told.startswith("  ... 9 000 807 characters are not shown, 8 999 407 of them learnt")
    assert sum(len(line.text) - 4 for line in lines if line.text[2] in "+|") == 2200


def test_counts_of_characters_are_called_rough_and_refused_rows_have_none():
    """What is told of a row stands below its heading."""
    about = of_row(
        row(Part("q"), num_tokens=5, counts=RowCounts(num_rows=1, num_dropped=1)),
        origin=Origin.PREDICTED,
    )
    refused = of_row(row(is_refused=True, told=("lack `messages`",), begins='a = "1"'))

    assert about[0].text == "row 3, line 7: about 5 tokens, 0 learnt (0 %)"
    assert about[1].text == "! nothing of it is learnt, so training leaves it out"
    assert [line.text for line in refused] == [
        "row 3, line 7: refused",
        "! rows like this lack `messages`",
        '! it begins: a = "1"',
    ]


def test_colours_are_added_for_a_terminal_alone(capsys):
    """Around whole lines, closed on each."""
    lines = [Line("plain"), Line("  + r", Tone.LEARNT), Line("", Tone.HEAD)]

    show_toned(lines, coloured=True)
    show_toned(lines, coloured=False)

    coloured = "plain\n\x1b[32m  + r\x1b[0m\n\n"
    assert capsys.readouterr().out == coloured + "plain\n  + r\n\n"


def test_json_has_rows_with_all_of_their_text(tmp_path, folder, capsys):
    """Parts put together are the text."""
    rows = [CHAT, {"messages": []}]
    code, told = shown(
        capsys, write_rows(tmp_path, rows), "--model", folder, "--max-length", 6, "--json"
    )

    found = json.loads(told.out)
    first, second = found["rows"]
    text = "".join(part["text"] for part in first["parts"])
    assert (code, found["origin"], found["max_length"]) == (0, "measured", 6)
    assert text.startswith("<|im_start|>user\nwhat is a?<|im_end|>\n<|im_start|>assistant\na let")
    assert (first["tokens"], first["kept"], first["cut"]) == (9, 6, True)
    assert first["learnt"] == 1
    assert [part["text"] for part in first["parts"] if part["learnt"]] == ["a "]
    assert (second["refused"], second["line"], len(second["told"])) == (True, 2, 1)


def test_what_is_missing_without_a_model_is_told(tmp_path, capsys):
    """A template can be named all the same; without one texts are as the file has them."""
    path = write_rows(tmp_path, [CHAT])

    _, bare = shown(capsys, path)
    _, named = shown(capsys, path, "--chat-template", "chatml")

    assert "--model MODEL shows what that model reads" in " ".join(bare.out.split())
    assert "  + a letter↵\n  + the first\n" in bare.out
    assert "  + the first<|im_end|>" in named.out
    assert "by  the template chatml" in named.out


def test_a_base_model_is_told_that_it_has_no_template(tmp_path, capsys):
    """Its chats are written as the recommendation would have it."""
    folder = small_model(tmp_path / "model")

    _, told = shown(capsys, write_rows(tmp_path, [CHAT]), "--model", folder)

    assert "the model has no chat template" in " ".join(told.out.split())
    assert "  | ### Answer:↵" in told.out


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (("--at", "0"), "no place", "--at row:7"),
        (("--at", "line:3"), "no place", "--at row:7"),
        (("--at", ":3"), "no place", "--at row:7"),
        (("--chat-template", "chatlm"), "there is no chat template 'chatlm'", "`chatml`"),
        (("--chat-template", "model"), "whose chat template", "--model"),
        (("--format", "txet"), "txet", "text"),
    ],
)
def test_mistakes_of_the_command_line_are_explained(tmp_path, capsys, arguments, what, do):
    """With what to write instead."""
    code, told = shown(capsys, write_rows(tmp_path, [CHAT]), *arguments)

    assert (code, told.out) == (2, "")
    assert what in told.err
    assert do in told.err


def test_of_a_pair_the_worse_reply_stands_under_its_own_heading():
    """And a label behind the counts."""
    counts = RowCounts(num_rows=1, num_tokens=2, num_learnt=1)
    pair = row(Part("q"), worse=(Part("q2"),), num_tokens=2, counts=counts, label="good")

    assert [line.text for line in of_row(pair)] == [
        "row 3, line 7: 2 tokens, 1 learnt (50 %), labelled good",
        "  | q",
        "  with the worse reply",
        "  | q2",
    ]
