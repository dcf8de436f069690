"""Data files in other encodings than UTF-8: named, converted by the advice, or read as they are."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys

import pytest
from data_files import examples, refused, write, write_rows

from advisor.recipe_data import DataSection
from profiles.data import charsets, dataset
from profiles.errors import ExitCode, UserError
from tui.main import run

CHINESE = (
    "instruction,output\n"
    "切换蓝色的花瓶,蓝色的花瓶在左边。\n"
    "解释红色的篮子,红色的篮子已经卖了三年、店铺后来搬走了。\n"
)
RUSSIAN = "text\nСегодня хорошая погода и мы идём гулять\n"  # noqa: RUF001
JAPANESE = "text\n今日はとても良い天気ですね。散歩に行きましょう。\n"
GERMAN = "text\nDas ist ein schöner Tag für eine größere Übung\n"
CURLY = "text\nIt’s a “quoted” word – and a €5 note\n"  # noqa: RUF001


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        (CHINESE, "gbk", "GB18030"),
        (CHINESE, "gb18030", "GB18030"),
        ("text\n今天天氣很好、我們去散步吧。\n", "big5", "BIG5"),
        (JAPANESE, "cp932", "Shift_JIS"),
        (RUSSIAN, "cp1251", "CP1251"),
        (RUSSIAN, "koi8-r", "KOI8-R"),
        (GERMAN, "cp1252", "Latin-1"),
        (CURLY, "cp1252", "Windows-1252"),
        (CHINESE, "utf-16", "UTF-16"),
        (GERMAN, "utf-16-le", "UTF-16LE"),
    ],
)
def test_both_ways_out_of_another_encoding_work(tmp_path, content, encoding, said):
    """The command of the advice, run as it stands, or the key: both give the rows as written."""
    expected = examples(write(tmp_path, content, "plain.csv"))
    path = write(tmp_path, content.encode(encoding), "my rows.csv")

    error = refused(path)
    command, _, key = error.do.partition("; or read it as it is: data.encoding = ")
    subprocess.run(command, shell=True, check=True)  # noqa: S602  # the advice as a person runs it

    assert said in error.what
    assert error.where.startswith(f"{path}:{1 if 'utf' in encoding else 2}:")
    assert examples(tmp_path / "my rows.utf8.csv") == expected
    assert examples(path, encoding=key.split('"')[1]) == expected


def test_a_packed_file_is_converted_by_the_advice_too(tmp_path):
    """Through gunzip."""
    path = write(tmp_path, gzip.compress(CHINESE.encode("gbk")), "a.csv.gz")

    subprocess.run(refused(path).do.partition("; or")[0], shell=True, check=True)  # noqa: S602

    expected = examples(write(tmp_path, CHINESE, "plain.csv"))
    assert examples(tmp_path / "a.utf8.csv") == expected
    assert examples(path, encoding="gb18030") == expected


def test_a_line_far_down_is_named(tmp_path):
    """Also where the file is read in chunks, by either reader."""
    lines = ['{"text": "plain"}'] * 20_000 + ['{"text": "蓝色的花瓶在左边"}']
    path = write(tmp_path, "\n".join(lines).encode("gbk"))
    listed = write(tmp_path, ("[" + ",\n".join(lines) + "]").encode("gbk"), "a.json")

    assert [refused(one).what.split(":")[0] for one in (path, listed)] == ["line 20001"] * 2
    assert "GB18030" in refused(path).what
    assert "GB18030" in refused(listed).what


def test_a_utf8_file_is_read_as_such_whatever_the_key_says(tmp_path):
    """Read as GB18030 it would become other characters without an error."""
    path = write(tmp_path, "text\n蓝色的花瓶在左\n", "a.csv")
    assert "蓝色的花瓶在左".encode().decode("gb18030", errors="ignore") != "蓝色的花瓶在左"

    found = dataset.check(path, encoding="gb18030")

    assert [one.text for one in examples(path, encoding="gb18030")] == ["蓝色的花瓶在左"]
    assert "GB18030" not in found.container


def test_a_wrong_encoding_is_told_with_the_line(tmp_path):
    """And the advice, followed, leads to the right one."""
    rows = ["text", *["plain"] * 30_000, "größer"]
    path = write(tmp_path, "\n".join(rows).encode("cp1252"), "a.csv")

    error = refused(path, encoding="euc_jp")

    assert error.what == "line 30002: byte 0xf6 is not EUC-JP"
    assert "leave data.encoding out" in error.do
    assert "Latin-1" in refused(path).what


def test_a_file_of_two_encodings_is_not_converted_as_a_whole(tmp_path):
    """It would spoil what is UTF-8."""
    path = write(
        tmp_path, "text\n蓝色的花瓶在左边\n".encode() + "größer\n".encode("cp1252"), "a.csv"
    )

    error = refused(path)

    assert error.what == "line 3: byte 0xf6 is not UTF-8; looks like Latin-1"
    assert "iconv" not in error.do


def test_the_encoding_is_told_and_the_hash_is_of_the_file(tmp_path):
    """The lock holds what lies on the disk."""
    path = write(tmp_path, CHINESE.encode("gbk"), "a.csv")
    found = dataset.check(path, encoding="gb18030")

    assert found.container == "CSV, GB18030, commas between the cells"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "found"), [("GBK", "gb18030"), ("latin-1", "iso8859-1")])
def test_encodings_have_many_names(name, found):
    """Any that Python knows."""
    assert charsets.python_name(name) == found


@pytest.mark.parametrize("name", ["gb18303", "rot13", "unicode_escape", "zip", "", "é", "a\0"])
def test_what_is_no_encoding_of_text_is_refused(name):
    """With the nearest, or all."""
    with pytest.raises(ValueError, match=r"did you mean gb18030\?|there are utf-8, gb18030"):
        charsets.python_name(name)


def test_the_commands_take_the_encoding(tmp_path, capsys):
    """`--encoding`; a name that there is not is a mistake of the command line."""
    path = str(write(tmp_path, CHINESE.encode("gbk"), "a.csv"))

    assert run(["data", "check", path]) == ExitCode.BAD_DATA
    assert run(["data", "check", path, "--encoding", "gbk"]) == 0
    assert run(["data", "show", path]) == ExitCode.BAD_DATA
    assert run(["data", "show", path, "--encoding", "gbk"]) == 0
    assert run(["data", "check", path, "--encoding", "gb18303"]) == ExitCode.USAGE
    assert "did you mean gb18030?" in capsys.readouterr().err


def test_the_library_is_loaded_only_where_something_is_guessed(tmp_path):
    """A start stays as quick as it was."""
    good = write_rows(tmp_path, [{"text": "größer"}])
    code = (
        "import sys; from profiles.data import dataset; dataset.check(sys.argv[1]);"
        "sys.exit('charset_normalizer' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, good], check=False).returncode == 0


def test_a_recipe_names_the_encoding(tmp_path):
    """By any of its names; another is refused with the nearest."""
    assert DataSection(train="a.csv", encoding="gbk").reading["encoding"] == "gb18030"
    with pytest.raises(ValueError, match="gb18030"):
        DataSection(train="a.csv", encoding="gb18303")


def test_damage_to_one_line_is_told_before_anything_is_guessed(tmp_path):
    """The line is named, not an encoding."""
    with pytest.raises(UserError, match=r"line 2: byte 0xff is not UTF-8$"):
        dataset.check(write(tmp_path, "text\n蓝色".encode() + b"\xff\n", "a.csv"))
