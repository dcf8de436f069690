"""How many tokens a data file is said to have, and what max_length cuts off."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import CHAT, word_tokenizer, write, write_rows

from profiles.data import dataset
from profiles.data import tokens as token_counts
from profiles.data.dataset import check
from profiles.data.encoding import of_folder
from profiles.data.tokens import MARK_TOKENS_AFTER, MARK_TOKENS_BEFORE
from profiles.errors import ExitCode, UserError
from profiles.facts import Origin


def test_predicted_tokens(tmp_path: Path) -> None:
    """Without a tokenizer, 4 ASCII bytes or 3 other bytes make a token, rounded up."""
    rows = [
        {"prompt": "a" * 9, "completion": "中" * 4},
        {"prompt": "", "completion": "é" * 3 + "a"},
    ]
    tokens = check(write_rows(tmp_path, rows)).tokens
    assert tokens is not None
    assert (
        tokens.origin,
        tokens.total,
        tokens.counts.num_learnt,
    ) == (Origin.PREDICTED, 3 + 4 + 3, 4 + 3)


def test_chat_marks_are_added(tmp_path: Path) -> None:
    """Each message costs its content and the marks of the template, only the reply is learnt."""
    tokens = check(write_rows(tmp_path, [{"messages": CHAT}])).tokens
    assert tokens is not None
    marks = MARK_TOKENS_BEFORE + MARK_TOKENS_AFTER
    assert (tokens.total, tokens.counts.num_learnt) == (2 + 2 * marks, 1)


def test_token_statistics(tmp_path: Path) -> None:
    """Minimum, median, 95th percentile, maximum and mean are those of the lengths."""
    path = write_rows(tmp_path, [{"text": "a" * 4 * number} for number in range(100, 0, -1)])
    tokens = check(path).tokens
    assert tokens is not None
    assert (
        tokens.min,
        tokens.median,
        tokens.p95,
        tokens.max,
        tokens.mean,
        tokens.total,
    ) == (1, 50, 95, 100, 50.5, 5050)
    assert tokens.counts.num_learnt == 5050  # all of a text


def test_rows_of_one_length_count_each(tmp_path):
    """In the mean as in the total; the longest is the first of its length."""
    path = write_rows(tmp_path, [{"text": "a" * size} for size in (4, 4, 4, 12, 12)])
    tokens = check(path).tokens
    assert tokens is not None
    assert (tokens.mean, tokens.median, tokens.total) == (1.8, 1, 9)
    assert (tokens.max, tokens.longest_line) == (3, 4)


def test_only_replies_are_learnt(tmp_path):
    """No system turn and no answer of a tool."""
    turns = [
        {"role": "system", "content": "a" * 400},
        {"role": "user", "content": "a" * 400},
        {"role": "assistant", "content": "a" * 4},
        {"role": "tool", "content": "a" * 400},
        {"role": "assistant", "content": "a" * 8},
    ]
    tokens = check(write_rows(tmp_path, [{"messages": turns}])).tokens
    assert tokens is not None
    assert tokens.counts.num_learnt == 1 + 2


def test_tokens_that_a_tokenizer_adds_count_as_they_are_trained(tmp_path):
    """Around a plain row; a chat has what its template writes."""
    folder = word_tokenizer(tmp_path, ended_by="</s>")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}a {% endfor %}")
    rows = [{"prompt": "why? ", "completion": "because"}], [{"messages": CHAT}]
    counted = [check(write_rows(tmp_path, one), encoder=of_folder(folder)).tokens for one in rows]
    assert [tokens and tokens.total for tokens in counted] == [3, 2]
    assert counted[0] is not None
    assert counted[0].counts.num_learnt == 2


@pytest.mark.parametrize("truncated_to", [None, 2])
def test_measured_tokens(tmp_path: Path, truncated_to: int | None) -> None:
    """A tokenizer is asked, and truncation or padding saved in its file does not count."""
    folder = word_tokenizer(tmp_path, truncated_to=truncated_to)
    rows = [{"prompt": "a b c ", "completion": "d e"}, {"prompt": "a ", "completion": "b"}]
    tokens = check(write_rows(tmp_path, rows), encoder=of_folder(folder)).tokens
    assert tokens is not None
    assert (
        tokens.origin,
        tokens.min,
        tokens.max,
        tokens.total,
        tokens.counts.num_learnt,
    ) == (Origin.MEASURED, 2, 5, 7, 3)


def test_batches_do_not_change_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches and texts cut at spaces count as one whole text does."""
    rows = [{"prompt": "a bcde " * number, "completion": "c " * 40} for number in range(1, 30)]
    path, folder = write_rows(tmp_path, rows), word_tokenizer(tmp_path)
    expected = check(path, encoder=of_folder(folder)).tokens
    monkeypatch.setattr(token_counts, "BATCH_CHARS", 16)
    assert expected == check(path, encoder=of_folder(folder)).tokens


@pytest.mark.parametrize(
    ("content", "code"), [(None, ExitCode.NO_INPUT), ("{}", ExitCode.BAD_DATA)]
)
def test_bad_tokenizer(tmp_path: Path, content: str | None, code: ExitCode) -> None:
    """A folder without a tokenizer, or with a broken one, is told by its path."""
    if content is not None:
        write(tmp_path, content, "tokenizer.json")
    with pytest.raises(UserError) as caught:
        of_folder(tmp_path)
    error = caught.value
    assert (code, str(tmp_path / "tokenizer.json")) == (error.code, error.where)


@pytest.mark.parametrize(
    ("max_length", "num_truncated", "num_warnings"),
    [(None, 0, 0), (30, 0, 0), (20, 2, 1), (10, 1, 2)],
)
def test_truncation(
    tmp_path: Path, max_length: int | None, num_truncated: int, num_warnings: int
) -> None:
    """Rows that are cut are counted, and apart from them those that have no room for a reply."""
    long_prompt = {"prompt": "a" * 60, "completion": "b" * 60}
    long_reply = {"prompt": "a" * 4, "completion": "b" * 60}
    rows = [long_prompt, {**long_prompt, "prompt": "c" * 60}, long_reply]
    found = check(write_rows(tmp_path, rows), max_length=max_length)
    assert (num_truncated, num_warnings) == (found.num_truncated, len(found.warnings))
    assert (found.num_untrainable == 2) == (max_length == 10)
    if num_warnings == 2:
        assert "2 of 3 examples have no trainable token at max_length 10" in found.warnings[0]


@pytest.mark.parametrize(
    ("max_length", "num_truncated", "num_untrainable"),
    [(12, 0, 0), (11, 1, 0), (10, 1, 0), (9, 0, 1)],
)
def test_a_reply_is_lost_where_its_first_token_is(
    tmp_path, max_length, num_truncated, num_untrainable
):
    """6 tokens of a question with its marks, 3 of the reply's, its token at index 9, 2 marks."""
    found = check(write_rows(tmp_path, [{"messages": CHAT}]), max_length=max_length)
    assert found.tokens is not None
    assert found.tokens.total == 12
    assert (found.num_truncated, found.num_untrainable) == (num_truncated, num_untrainable)


def test_half_of_the_replies_may_be_lost(tmp_path):
    """It is told, and no more than that."""
    rows = [{"prompt": "a" * 100, "completion": "b" * 40}, {"prompt": "a", "completion": "b" * 40}]
    found = dataset.inspect(write_rows(tmp_path, rows), max_length=20).dataset
    assert (found.problem, found.num_untrainable) == ("", 1)
    told = "1 of 2 rows are left out, for nothing is learnt within max_length 20 (p95 35, "
    assert found.warnings[0].startswith(told)
    problem = dataset.inspect(write_rows(tmp_path, [*rows, rows[0]]), max_length=20).dataset.problem
    assert problem.startswith("2 of 3 examples have no trainable token at max_length 20")


def test_a_row_of_megabytes_is_told(tmp_path):
    """From one on, for a row of that size is likelier a mistake than a document."""
    rows = [{"text": "a bc " * 200_000}, {"text": "short"}]
    found = check(write_rows(tmp_path, rows))
    assert "line 1: 1 MB, ~250 k tokens: is a line break missing?" in found.warnings
    cut = check(write_rows(tmp_path, rows), max_length=1000).warnings
    assert "line 1: 1 MB, ~250 k tokens, will be truncated to 1000 (99.6 % lost)" in cut
    rows = [{"text": "a bc " * 199_999}]
    assert not any("MB" in one for one in check(write_rows(tmp_path, rows)).warnings)
