"""Rows as the model reads them: the text, tokens and labels of training, row by row."""

from __future__ import annotations

import json

import pytest
from chat_templates_in_use import LEARNT, ROWS, TEMPLATES
from data_files import byte_tokenizer, write, write_rows

from profiles.data import dataset
from profiles.data.encoding import Encoder
from profiles.data.preview import Part, Reader, Start
from profiles.data.rendering import Renderer
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin
from profiles.models.chat_template import ChatTemplate
from profiles.row_counts import RowCounts

FIRST = Start()
ALL_KINDS = ("replies", "text", "preference", "rated", "label")
TURNS = [("user", "q1"), ("assistant", "r1"), ("user", "q2"), ("assistant", "r2")]


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes, marks of chats, and <s> before every text that is none."""
    return byte_tokenizer()


def encoder(tokenizer, template="chatml", learn="all"):
    chats = ChatTemplate(TEMPLATES[template], {"bos_token": "<s>", "eos_token": "</s>"})
    return Encoder.of(tokenizer, Renderer(lambda _: chats, learn=learn, eos="</s>"))


def rows_of(path, tokenizer, *, num_rows=9, start=FIRST, **options):
    wanted = {name: options.pop(name) for name in ("template", "learn") if name in options}
    reader = Reader(encoder=encoder(tokenizer, **wanted), **options)
    return reader.look(path, num_rows, start).rows


def learnt(row):
    return [part.text for part in row.parts if part.is_learnt and not part.is_cut]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", [name for name in ROWS if name != "masked"])
def test_what_is_shown_as_learnt_is_what_is_learnt(tmp_path, tokenizer, template, name):
    """By hand, for every family's template; where it refuses the row its words are shown."""
    row = {"messages": [{"role": m.role, "content": m.content} for m in ROWS[name].messages]}

    (found,) = rows_of(write_rows(tmp_path, [row]), tokenizer, template=template)

    wanted = LEARNT[template][name]
    if isinstance(wanted, str):
        assert (found.is_refused, found.parts) == (True, ())
        assert wanted in found.told[0]
    else:
        assert learnt(found) == wanted
        assert found.counts.num_learnt == sum(len(tokenizer.encode(t).ids) - 1 for t in wanted)


def test_parts_are_the_whole_text_with_the_marks_that_the_tokenizer_adds(tmp_path, tokenizer):
    """A mark without characters is written out; nothing of the text is lost or said twice."""
    path = write_rows(tmp_path, [{"prompt": "Ünïcödé 中文 ", "completion": "🙂 ja"}])

    (found,) = rows_of(path, tokenizer)

    assert found.parts == (Part("<s>Ünïcödé 中文 "), Part("🙂 ja</s>", is_learnt=True))
    assert (found.num_tokens, found.told) == (1 + 19 + 7 + 1, ())


def test_the_cut_is_where_training_cuts(tmp_path, tokenizer):
    """Counts are those of the tokens that are left."""
    path = write_rows(tmp_path, [{"prompt": "abc", "completion": "defgh"}])

    (found,) = rows_of(path, tokenizer, max_length=6)

    assert found.parts == (
        Part("<s>abc"),
        Part("de", is_learnt=True),
        Part("fgh</s>", is_learnt=True, is_cut=True),
    )
    assert found.num_tokens == 10
    assert found.counts == RowCounts(num_rows=1, num_cut=1, num_tokens=6, num_learnt=2)
    assert found.counts.learnt_share == 2 / 6
    (lost,) = rows_of(path, tokenizer, max_length=4)
    assert (lost.counts, lost.is_refused) == (RowCounts(num_rows=1, num_dropped=1), False)


def test_rows_together_are_what_the_check_counts(tmp_path, tokenizer):
    """One count, shown row by row or of the whole file."""
    rows = [chat(*TURNS), chat(*TURNS[:2]), chat(("user", "q" * 70), ("assistant", "r"))]
    path = write_rows(tmp_path, rows)

    shown = rows_of(path, tokenizer, max_length=60)
    checked = dataset.check(path, encoder=encoder(tokenizer), max_length=60)

    assert sum((row.counts for row in shown), RowCounts.none()) == checked.tokens.counts
    assert (checked.num_untrainable, checked.num_truncated) == (1, 0)
    assert sum(row.num_tokens for row in shown) == checked.tokens.total


def test_the_last_reply_alone_can_be_learnt(tmp_path, tokenizer):
    """As `data.learn` of a recipe."""
    path = write_rows(tmp_path, [chat(*TURNS)])

    assert learnt(rows_of(path, tokenizer, learn="last")[0]) == ["r2<|im_end|>"]


@pytest.mark.parametrize("first", [1, 3])
def test_repeats_that_are_left_out_are_told_to_be(tmp_path, tokenizer, first):
    """Of rows that are not shown too; as often as the file is looked at."""
    row, other = chat(*TURNS), chat(*TURNS[:2])
    path = write_rows(tmp_path, [row, other, row, other])
    reader = Reader(encoder=encoder(tokenizer), reading={"clean": ("duplicates",)})

    for _ in range(2):
        found = reader.look(path, 9, Start(number=first)).rows
        repeats = [one.number for one in found if one.is_refused]
        assert repeats == [3, 4]
        assert found[-1].told == ("repeat an earlier one (data.clean.duplicates)",)
    assert not any(one.is_refused for one in rows_of(path, tokenizer))


def test_refused_rows_are_shown_in_their_place_and_end_nothing(tmp_path, tokenizer):
    """Broken JSON, another shape, an empty reply, a row that the template refuses."""
    good, bad = json.dumps(chat(*TURNS)), json.dumps(chat(("user", "q"), ("user", "again")))
    refused = json.dumps(chat(("system", "S"), *TURNS))
    empty = json.dumps(chat(("user", "q"), ("assistant", " ")))
    rows = ('{"messages": oops}', good, bad, empty, refused, good)
    path = write(tmp_path, "".join(f"{row}\n" for row in rows))

    found = rows_of(path, tokenizer, template="strict")

    assert [row.is_refused for row in found] == [True, False, True, True, True, False]
    assert [row.line for row in found] == [row.number for row in found] == [1, 2, 3, 4, 5, 6]
    assert "not JSON" in found[0].told[0]
    assert found[3].told == ("have an empty reply",)
    assert "System role not supported" in found[4].told[0]
    assert found[4].begins == "messages = a list"


def test_what_a_template_leaves_out_is_told_with_the_row(tmp_path, tokenizer):
    """And a reply without a mark at its end."""
    rows = [chat(*TURNS), chat(("system", "S9"), *TURNS)]
    path = write_rows(tmp_path, rows)

    first, second = rows_of(path, tokenizer, template="without_system")
    assert first.told == ()
    assert second.told == ("have a system text that the chat template leaves out",)
    (endless, _) = rows_of(path, tokenizer, template="no_end_mark")
    assert endless.told == ("end with no mark, so the model will not learn to stop",)


def test_it_begins_where_it_is_asked_to(tmp_path, tokenizer):
    """At a line, which the messages name, or at a row; what is behind the end is told."""
    rows = [{"text": f"t{n}"} for n in range(50)]
    path = write(tmp_path, json.dumps(rows, indent=1), "rows.json")

    def texts(start, num_rows=2):
        found = rows_of(path, tokenizer, num_rows=num_rows, start=start)
        return [row.parts[0].text for row in found]

    assert texts(Start(number=40)) == ["<s>t39</s>", "<s>t40</s>"]
    at = rows_of(path, tokenizer, start=Start(number=40))[0].line
    assert texts(Start(line=at)) == texts(Start(line=at - 1)) == texts(Start(number=40))
    assert texts(Start(number=50)) == ["<s>t49</s>"]
    with pytest.raises(UserError) as caught:
        texts(Start(number=51))
    assert (caught.value.code, "row 51" in caught.value.what) == (ExitCode.BAD_DATA, True)


def test_only_the_first_rows_are_read(tmp_path, tokenizer, monkeypatch):
    """A file may be larger than any patience."""
    read = []
    stream = dataset.stream_rows

    def noted(file, **options):
        for row in stream(file, **options):
            read.append(row[1])
            yield row

    monkeypatch.setattr(dataset, "stream_rows", noted)
    path = write_rows(tmp_path, [{"text": f"t{n}"} for n in range(300)])

    assert len(rows_of(path, tokenizer, num_rows=3)) == 3
    assert read[-1] == dataset.NUM_FIRST_ROWS


def test_without_a_tokenizer_texts_are_shown_and_counts_are_predicted(tmp_path):
    """By a template, or as the file has them."""
    path = write_rows(tmp_path, [chat(*TURNS[:2])])
    chats = ChatTemplate(TEMPLATES["chatml"])

    bare = Reader().look(path, 1, Start())
    written = Reader(renderer=Renderer(lambda _: chats)).look(path, 1, Start())

    assert bare.rows[0].parts == (Part("q1"), Part("r1", is_learnt=True))
    assert (bare.origin, written.origin) == (Origin.PREDICTED, Origin.PREDICTED)
    assert learnt(written.rows[0]) == ["r1<|im_end|>"]
    assert bare.rows[0].num_tokens == dataset.check(path).tokens.total


def test_of_a_pair_both_texts_are_shown_and_labels_are_told(tmp_path, tokenizer):
    """Each with its reply learnt; a rated reply says how it is rated."""
    pair = {"prompt": "q", "chosen": "yes", "rejected": "no"}
    (found,) = rows_of(write_rows(tmp_path, [pair]), tokenizer, reading={"kinds": ALL_KINDS})
    assert found.parts == (Part("<s>q"), Part("yes</s>", is_learnt=True))
    assert found.worse == (Part("<s>q"), Part("no</s>", is_learnt=True))

    rated = [{**chat(*TURNS[:2]), "label": label} for label in (True, False)]
    good, bad = rows_of(write_rows(tmp_path, rated), tokenizer, reading={"kinds": ALL_KINDS})
    assert (good.label, bad.label, good.is_chat, found.is_chat) == ("good", "bad", True, False)
    assert good.parts[1] == Part("r1<|im_end|>", is_learnt=True)
