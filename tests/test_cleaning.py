"""Rows are cleaned where a recipe asks for it: what is changed, what is not, what is told."""

from __future__ import annotations

import json

import pytest
from data_files import write_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import recipe_text, small_model

from advisor import recipe as recipes
from advisor.recipe_data import CleanSection
from profiles import personal
from profiles.data import cleaning, dataset
from profiles.data.cleaning import Cleaner, compose, tidy
from profiles.data.formats.spec import Example, Message
from profiles.data.html_text import without_html
from profiles.data.preview import Reader, Start
from profiles.errors import ExitCode, UserError
from tui.main import run as advisor_here

HTML = {
    "<p>One</p><p>Two</p>": "One\nTwo",
    "a<br>b<br/>c<BR />d": "a\nb\nc\nd",
    "<b>bold</b> and <i class='x'>it</i>": "bold and it",
    "<div><h1>Title</h1>\n<p>Text</p></div>": "Title\nText",
    "<ul><li>one<li>two</ul>": "one\ntwo",
    "<table><tr><td>1</td><td>2</td></tr><tr><td>3</td></tr></table>": "1 2 \n3 ",
    '<a href="https://x.org/?a=1&amp;b=2">link</a>': "link",
    "<script>var a = '<b>';</script>text<style>p { }</style>": "text",
    "a<!-- one --><!-- two -->b<script>x</script><script>y</script>c": "abc",
    "<!DOCTYPE html><html><body>hi<!-- no <b>text</b> --></body></html>": "hi",
    "Fish &amp; chips&nbsp;&lt;3 &#39;x&#x27; &eacute;": "Fish & chips\u00a0<3 'x' \u00e9",
    "&lt;b&gt;not a tag&lt;/b&gt;": "<b>not a tag</b>",
    "&amp;lt;": "&lt;",
    "H<sub>2</sub>O": "H2O",
    "<p>One</p>\n\n<p>Two</p>\n": "One\n\nTwo\n",
    "\n<b>kept</b> line\n": "\nkept line\n",
    "<p>see `x`</p><p>y</p>": "see `x`\ny",
    '<img src="a.png" alt="x">after': "after",
    "<input type=checkbox checked> done": " done",
}
NO_HTML = (
    "if a < b and c > d: pass",
    "std::vector<int> v; Map<String, List<Integer>> m;",
    "#include <map>\n#include <time.h>",
    "List<A> or Box<B>",
    "<answer>yes</answer> <think>no</think>",
    "x = a<b and c>d",
    "use `<br>` and `&nbsp;` to break",
    "```html\n<p>kept &amp; whole</p>\n```",
    "~~~\n<b>x</b>\n~~~",
    "```\n<b>never closed</b> &amp;",
    "https://x.org/?a=1&copy=2&lt=3",
    "AT&T; R&D &unknown; &#99999999;",
    "a <b",
    "<>",
    "< b >x</ b >",
    "<<<<<<",
    "<!-- never closed",
    "<|im_start|> and <EMAIL>",
    "<em without end",
)


@pytest.mark.parametrize(("text", "wanted"), HTML.items())
def test_html_becomes_text(text, wanted):
    """Blocks begin lines, entities are what they stand for."""
    assert without_html(text) == wanted


@pytest.mark.parametrize("text", NO_HTML)
def test_what_is_no_html_stays_to_the_letter(text):
    """Code, comparisons, generics, other tags, addresses."""
    assert without_html(text) == text


def test_code_beside_html_is_left():
    """Only what is around it is cleaned."""
    text = "<p>Write <b>this</b>:</p>\n```\n<p>a &lt; b</p>\n```\n<p>done</p>"

    assert without_html(text) == "Write this:\n```\n<p>a &lt; b</p>\n```\ndone"


@pytest.mark.parametrize("piece", ["<", "<a", "<!--", "<p>", "</b>", "<script>", "&", "&amp;", "`"])
def test_hostile_html_ends(piece):
    """A megabyte of it."""
    without_html(piece * 200_000)


SPACES = {
    "a  b\t\tc": "a b c",
    "a\u00a0b\u2003\u2003c": "a b c",
    "a\u200bb\ufeffc": "abc",
    "a\r\nb\rc": "a\nb\nc",
    "a   \nb": "a\nb",
    "a\n\n\n\nb": "a\n\nb",
    "  indented  twice": "  indented twice",
    "def f():\n    x  =  1\n\treturn   x": "def f():\n    x  =  1\n\treturn   x",
    "a  b\n```\nx   y\n\n\n\nz  \n```\nc  d": "a b\n```\nx   y\n\n\n\nz  \n```\nc d",
    "\u6c49\u5b57\u3000\u3000\u5b57": "\u6c49\u5b57\u3000\u3000\u5b57",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645": (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    ),
    " begins and ends ": " begins and ends ",
}


@pytest.mark.parametrize(("text", "wanted"), SPACES.items())
def test_white_space_is_tidied_and_code_keeps_its_own(text, wanted):
    """Joiners that mean something stay, and so does what a completion begins with."""
    assert tidy(text) == wanted


@given(st.text(alphabet="a \t\n\r`~\u00a0\u200b<", max_size=40))
@settings(deadline=None, max_examples=300)
def test_tidying_twice_is_tidying_once(text):
    """And never takes more than white space."""
    once = tidy(text)

    assert tidy(once) == once
    assert "".join(once.split()) == "".join(text.replace("\u200b", "").split())


def test_characters_are_composed():
    """Two ways to write one character are one then."""
    assert compose("Zu\u0308rich") == "Z\u00fcrich"
    assert compose("plain") == "plain"


# --- Rows ---------------------------------------------------------------------------------------


def pair(prompt, completion, **more):
    return {"prompt": prompt, "completion": completion, **more}


ROWS = [
    pair("What is <b>this</b>?", "A  thing."),
    pair("What is this?", "A thing."),
    pair("Plain", "text"),
    pair("What is this?", "A thing.", note="the same to the model"),
    pair("Write to me@home.org", "or 138-1234-5678, me@home.org"),
]


def texts(path, **reading):
    return [row.example.segments for row in dataset.read_examples(path, **reading)]


def test_nothing_is_changed_unless_it_is_asked_for(tmp_path):
    """To the letter."""
    path = write_rows(tmp_path, ROWS)

    assert texts(path) == [((r["prompt"], False), (r["completion"], True)) for r in ROWS]
    assert dataset.check(path).cleaned == {}


def test_rows_are_cleaned_counted_and_told(tmp_path):
    """By step; repeats are those of what is left."""
    path = write_rows(tmp_path, ROWS)

    found = dataset.check(path, clean=("html", "whitespace", "duplicates", "unicode"))

    assert found.num_rows == 3
    assert found.cleaned == {"html": 1, "unicode": 0, "whitespace": 1, "duplicates": 2}
    told = [text for text in found.warnings if "data.clean" in text]
    assert told == [
        "1 of 5 rows had HTML taken out (data.clean.html) (first: line 1)",
        "1 of 5 rows had white space tidied (data.clean.whitespace) (first: line 1)",
        "left out: 2 of 5 rows repeat an earlier one (data.clean.duplicates; first: line 2)",
    ]
    assert found.num_html == found.num_duplicates == 0


def test_steps_that_change_nothing_are_not_told(tmp_path):
    """Their counts are 0."""
    found = dataset.check(write_rows(tmp_path, [ROWS[2]]), clean=cleaning.STEPS, mask=("email",))

    assert set(found.cleaned.values()) == {0}
    assert not any("data.clean" in text or "mask" in text for text in found.warnings)


def test_a_reply_that_was_nothing_but_html_is_empty(tmp_path):
    """And left out as such."""
    path = write_rows(tmp_path, [pair("q", "<p></p>"), ROWS[2]])

    assert dataset.check(path, clean=("html",)).num_empty == 1


def test_personal_data_are_masked_and_told_by_kind(tmp_path):
    """What is left of them is remarked upon, our marks are not."""
    path = write_rows(tmp_path, ROWS)

    found = dataset.check(path, mask=("email",))

    assert texts(path, mask=("email",))[4] == (
        ("Write to <EMAIL>", False),
        ("or 138-1234-5678, <EMAIL>", True),
    )
    assert found.cleaned == {"mask email": 1}
    assert "masked: 2 e-mail addresses in 1 of 5 rows (first: line 5), as <EMAIL>" in found.warnings
    assert [kind for kind, _, _ in found.personal] == ["phone"]
    everything = dataset.check(path, mask=personal.USUAL)
    assert everything.personal == ()
    assert not any("placeholder" in text for text in everything.warnings)


def test_personal_data_are_remarked_upon_with_their_lines(tmp_path):
    """The first few, and never the data."""
    rows = [pair(f"ask {i}", f"person{i}@home.org") for i in range(7)]
    found = dataset.check(write_rows(tmp_path, [*rows, ROWS[4], ROWS[2]]))

    assert found.personal == (("email", 8, (1, 2, 3, 4, 5)), ("phone", 1, (8,)))
    (told,) = [text for text in found.warnings if "personal data" in text]
    assert "e-mail addresses in 8 (lines 1, 2, 3, 4, 5, ...); phone numbers in 1 (line 8)" in told
    assert "data.mask = true" in told
    assert "home.org" not in told


def test_every_text_of_an_example_is_cleaned_and_no_label():
    """Thoughts, both replies of a pair, and texts in calls of tools where they are masked."""
    call = {"function": {"name": "a@b.org", "arguments": {"to": ["a@b.org"], "tel": 13812345678}}}
    turns = (
        Message(role="user", content="<i>a@b.org</i>"),
        Message(role="assistant", content="x  y", reasoning="<b>z</b>", calls=(call,)),
    )
    example = Example(messages=turns, rejected="<u>w</u>", label="<b>l</b>")

    cleaned = Cleaner(("html", "whitespace"), ("email", "phone")).clean(example, 1)

    assert [turn.content for turn in cleaned.messages] == ["<EMAIL>", "x y"]
    assert cleaned.messages[1].reasoning == "z"
    assert cleaned.messages[1].calls == (
        {"function": {"name": "a@b.org", "arguments": {"to": ["<EMAIL>"], "tel": "<PHONE>"}}},
    )
    assert (cleaned.rejected, cleaned.label) == ("w", "<b>l</b>")
    assert call["function"]["arguments"]["tel"] == 13812345678


def test_what_is_clean_is_the_same_example():
    """Nothing is copied for nothing."""
    example = Example(prompt="a", completion="b")

    assert Cleaner(cleaning.STEPS, personal.USUAL).clean(example, 1) is example


@pytest.mark.parametrize(
    "other",
    [
        {"messages": (Message(role="system", content="b"), Message(role="assistant", content="c"))},
        {"messages": (Message(role="user", content="b"),), "rejected": "d"},
        {"messages": (Message(role="user", content="b"),), "label": "d"},
        {"messages": (Message(role="user", content="b"),), "is_good": True},
    ],
)
def test_rows_that_differ_in_anything_that_is_read_are_no_repeats(other):
    """Roles, the worse reply, the label, the rating."""
    first = Example(
        messages=(Message(role="user", content="b"), Message(role="assistant", content="c"))
    )
    if len(other["messages"]) == 1:
        first = Example(messages=other["messages"])
    cleaner = Cleaner(("duplicates",))

    assert [cleaner.is_repeat(one, (), 1) for one in (first, Example(**other))] == [False, False]
    assert cleaner.is_repeat(Example(**other), (), 1)


# --- One way for check, preview and training ----------------------------------------------------

CLEANED = [
    (("What is this?", False), ("A thing.", True)),
    (("Plain", False), ("text", True)),
    (("Write to <EMAIL>", False), ("or <PHONE>, <EMAIL>", True)),
]
READING = {"clean": cleaning.STEPS, "mask": personal.USUAL}
KEYS = "mask = true\n[data.clean]\n" + "".join(f"{name} = true\n" for name in cleaning.STEPS)


def parsed(text, **more):
    return recipes.parse(
        f'schema = 1\nname = "r"\n[model]\nid = "m"\n[method]\nname = "lora"\n'
        f'[data]\ntrain = "train.jsonl"\nsplit = "1:0:0"\n{text}',
        where="r.toml",
        **more,
    )


def told(warning):
    """Whether it is about cleaning."""
    return "data.clean" in warning or warning.startswith("masked")


def test_check_preview_and_training_read_the_same(tmp_path):
    """A row for each that is left."""
    pytest.importorskip("datasets")
    from data_files import word_tokenizer

    from profiles.data.encoding import of_folder
    from runner.training import data

    path = write_rows(tmp_path, ROWS)
    rows = []

    def columns(example, render, _):
        rows.append(example.segments)
        return {"num": render(example).num_tokens}

    reading = data.Reading(
        recipe=parsed(KEYS),
        base_dir=tmp_path,
        encoder=of_folder(word_tokenizer(tmp_path)),
        columns=columns,
    )
    ticks = type("Ticks", (), {"tick": lambda *_: None})()
    loaded = reading.load(tmp_path / "rows-1", reading.draw(), ticks)
    shown = Reader(reading=READING).look(path, 5, Start(line=1)).rows

    assert rows == texts(path, **READING) == CLEANED
    assert loaded.told == [text for text in dataset.check(path, **READING).warnings if told(text)]
    assert len(loaded.told) == 5
    assert len(loaded.train.rows) == dataset.check(path, **READING).num_rows == 3
    assert [part.text for part in shown[0].parts] == ["What is this?", "A thing."]
    assert "had HTML taken out" in shown[0].told[0]
    assert "have <EMAIL>" in " ".join(shown[4].told)


def test_a_recipe_names_what_rows_are_cleaned_of():
    """All of it is off unless it is named."""
    assert set(CleanSection.model_fields) == set(cleaning.STEPS)
    nothing = parsed("").data.reading
    assert (nothing["clean"], nothing["mask"]) == ((), ())
    assert set(parsed(KEYS).data.reading["clean"]) == set(cleaning.STEPS)
    assert parsed(KEYS).data.reading["mask"] == personal.USUAL
    assert parsed('mask = ["ip", "email"]').data.reading["mask"] == ("ip", "email")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('mask = ["mail"]', "no kind of personal data 'mail'; did you mean `email`?"),
        ('mask = "email"', "true, false or a list of"),
        ("mask = [1]", "true, false or a list of"),
        ("[data.clean]\nhtlm = true", "unknown key `data.clean.htlm`; did you mean `html`?"),
        ('[data.clean]\nhtml = "yes"', "`data.clean.html`"),
    ],
)
def test_another_name_is_refused_with_the_nearest(text, words):
    """As any name of a recipe."""
    with pytest.raises(UserError) as caught:
        parsed(text)

    assert words in caught.value.why


def test_a_recipe_is_written_with_what_was_asked_for_alone():
    """And read again it says the same."""
    for keys in ("", KEYS, 'mask = ["email"]', "[data.clean]\nhtml = true"):
        recipe = parsed(keys)
        text = recipe.to_toml()
        assert ("clean" in text) == ("clean" in keys)
        assert ("mask" in text) == ("mask" in keys)
        assert recipes.parse(text, where="again") == recipe


# --- Commands -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A recipe, its model, and rows that need cleaning."""
    small_model(tmp_path / "m")
    rows = [pair(f"<b>ask</b> {i}", f"reply to me{i}@home.org") for i in range(20)]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, *rows[:5]]))
    (tmp_path / "r.toml").write_text(recipe_text(model=str(tmp_path / "m")))
    return tmp_path


def test_data_check_takes_the_same_steps(folder, capsys):
    """By their names, with commas between them."""
    options = ["--clean", "html,duplicates", "--mask", "email", "--json"]

    assert advisor_here(["data", "check", str(folder / "rows.json"), *options]) == 0

    found = json.loads(capsys.readouterr().out)
    assert found["num_rows"] == 20
    assert found["cleaned"] == {"html": 25, "mask email": 25, "duplicates": 5}


@pytest.mark.parametrize(
    ("option", "words"),
    [(["--clean", "html,htlm"], "did you mean `html`"), (["--mask", "mail"], "`email`")],
)
def test_a_step_that_is_none_is_a_mistake_of_the_command_line(folder, capsys, option, words):
    """With the nearest name."""
    code = advisor_here(["data", "check", str(folder / "rows.json"), *option])

    assert code == ExitCode.USAGE
    assert words in " ".join(capsys.readouterr().err.split())


def test_run_tells_what_is_done_before_it_starts(folder, capsys):
    """Rows are counted as they are left."""
    sets = ["--set", "data.mask=true", "--set", "data.clean={html = true, duplicates = true}"]

    assert advisor_here(["run", str(folder / "r.toml"), "--dry-run", *sets]) == 0

    told = " ".join(" ".join(capsys.readouterr()).split())
    assert "20 rows of" in told
    assert "25 of 25 rows had HTML taken out" in told
    assert "masked: 25 e-mail addresses" in told
    assert "left out: 5 of 25 rows repeat an earlier one" in told


def test_a_recommendation_is_saved_with_what_it_was_asked_to_clean(folder, capsys):
    """So the run reads what was counted."""
    target = folder / "saved.toml"
    options = ["--clean", "html,duplicates", "--mask", "email,phone", "--gpu", "RTX 4090"]
    model, data = str(folder / "m"), str(folder / "rows.json")

    advisor_here(["recommend", "--model", model, "--data", data, *options, "--save", str(target)])

    assert "25 of 25 rows had HTML" in " ".join(capsys.readouterr().out.split())
    found = recipes.parse(target.read_text(), where="saved").data.reading
    assert (found["clean"], found["mask"]) == (("html", "duplicates"), ("email", "phone"))
