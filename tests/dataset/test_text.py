"""Lines of text files: what ends them, byte order marks, and encodings that are read or refused."""

import codecs
import re
import shlex
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.dataset import text as module
from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.reading import HAS_NUL, NOT_UTF8, Notes
from t2i_core.dataset.text import raw_lines, text_lines, whole_lines
from t2i_core.errors import DatasetError
from tests.dataset.files import WRITTEN, read, reasons, rows_of_prompts, values, write

# Texts as people write prompts in these encodings.
FOREIGN = {
    "cp1252": ["un chat fatigué", "une forêt enneigée à l'aube", "a fox", "ein schöner Müller über Straßen"],
    "gb18030": ["黄昏时分的狐狸在雪地里", "联通", "山上的房子和月亮"],  # the second is valid UTF-8 by chance
    "cp932": ["夕暮れの狐", "雪の中の猫", "きれいな山と月"],
    "cp1251": ["лиса в сумерках", "кошка на снегу"],
}


def lines_of(path, lines=text_lines):
    return list(lines(DataFile(str(path), str(path), "txt"), Notes()))


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_text_format_is_read_in_every_encoding_with_a_mark_and_with_every_line_end(
    tmp_path, suffix, encoding, end
):
    rows = rows_of_prompts()
    text = WRITTEN[suffix](rows).replace("\n", end)
    path = write(tmp_path / f"rows.{suffix}", text.encode(encoding))
    assert values(path) == ([{"prompt": row["prompt"]} for row in rows] if suffix == "txt" else rows)
    for name, mark in (("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)):
        assert len(values(write(path, mark + text.encode(name)))) == len(rows)


def test_a_byte_order_mark_at_the_start_of_any_line_is_dropped(tmp_path):
    path = write(tmp_path / "joined.jsonl", '\ufeff{"a":1}\n\ufeff{"a":2}\n\ufeff\n{"a":"\ufeff"}\n')
    assert values(path) == [{"a": 1}, {"a": 2}, {"a": "\ufeff"}]
    assert [line for line, _, _ in lines_of(path)] == [1, 2, 4]
    path = write(tmp_path / "joined.txt", "\ufeffa fox\n".encode("utf-16") * 2)
    assert values(path) == [{"prompt": "a fox"}, {"prompt": "a fox"}]


def test_carriage_returns_end_lines_where_they_are_the_line_ends_of_the_file(tmp_path, caplog):
    path = write(tmp_path / "mac.txt", "a fox\ra cat\r\ra dog\n")  # with a last line feed, as an editor adds it
    assert lines_of(path) == [(1, "a fox", None), (2, "a cat", None), (4, "a dog", None)]
    assert len(values(path)) == 3
    assert "end in carriage returns alone" in caplog.text


def test_a_carriage_return_among_line_feeds_is_text(tmp_path, caplog):
    path = write(tmp_path / "rows.txt", "a\rb\nc\r\nd\r\r\n\r\r\ne\rf\n")
    assert values(path) == [{"prompt": text} for text in ("a\rb", "c", "d", "e\rf")]
    assert (
        f"{path}, line 1: lines hold a carriage return, which is kept as part of the prompt (lines: 2)" in caplog.text
    )


def test_a_unicode_line_separator_is_text(tmp_path):
    assert values(write(tmp_path / "rows.txt", "a\u2028b\u0085c\x0bd\n")) == [{"prompt": "a\u2028b\u0085c\x0bd"}]


def test_blank_lines_keep_their_number_and_single_bad_lines_are_marked(tmp_path):
    path = write(tmp_path / "rows.txt", b"\na\n \t\r\n\xe2\x80\x83\n\xff\nb\n\0\nlast")
    assert lines_of(path) == [
        (2, "a", None),
        (5, "\udcff", NOT_UTF8),
        (6, "b", None),
        (7, "\0", HAS_NUL),
        (8, "last", None),
    ]
    assert [(line, text) for line, text, _ in lines_of(path, whole_lines)][:3] == [
        (1, "\n"),
        (2, "a\n"),
        (3, " \t\r\n"),
    ]


@pytest.mark.parametrize("encoding", FOREIGN)
def test_a_file_in_another_encoding_is_refused_with_the_command_that_converts_it(tmp_path, encoding):
    prompts = FOREIGN[encoding] * 10
    path = write(tmp_path / "my prompts.txt", "\n".join(prompts).encode(encoding))
    with pytest.raises(DatasetError) as error:
        read(path)
    likely = (
        f"{path}: is not UTF-8, but most likely {encoding.upper()}, in which it has {prompts[0]!r}; convert it with: "
    )
    assert str(error.value).startswith(likely)
    subprocess.run(str(error.value).partition("convert it with: ")[2], shell=True, check=True)
    assert values(tmp_path / "my prompts.utf8.txt") == [{"prompt": prompt} for prompt in prompts]


def test_a_packed_file_in_another_encoding_is_to_be_unpacked_first(tmp_path):
    path = write(tmp_path / "rows.csv.gz", "\n".join(["prompt", *FOREIGN["cp1252"]] * 5).encode("cp1252"))
    with pytest.raises(DatasetError) as error:
        read(path)
    plain = shlex.quote(str(path.with_suffix("")))
    assert f"; unpack it and convert it with: iconv -f CP1252 -t UTF-8 {plain} > " in str(error.value)


def test_one_bad_line_is_a_rejected_row_and_most_of_them_are_another_encoding(tmp_path):
    bad = "fatigué\n".encode("cp1252")
    assert reasons(write(tmp_path / "rows.txt", bad)) == {0: (1, NOT_UTF8)}
    assert reasons(write(tmp_path / "rows.txt", b"a fox\n" * 3 + bad + "fatigué\n".encode())) == {3: (4, NOT_UTF8)}
    assert len(reasons(write(tmp_path / "rows.txt", b"a fox\n" * 4 + bad * 4))) == 4
    with pytest.raises(DatasetError, match="most likely CP125"):
        read(write(tmp_path / "rows.txt", b"a fox\n" * 3 + bad * 4))


def test_ascii_lines_say_nothing_for_utf8_where_all_others_are_something_else(tmp_path):
    bad = "une forêt enneigée à l'aube\n".encode("cp1252")
    with pytest.raises(DatasetError, match="most likely CP1252"):
        read(write(tmp_path / "rows.txt", (b"a fox\n" * 5 + bad) * 20))
    assert len(reasons(write(tmp_path / "rows.txt", (b"a fox\n" * 20 + bad) * 20))) == 20
    assert len(reasons(write(tmp_path / "rows.txt", (b"a fox\n" * 5 + "fatigué\n".encode() + bad) * 20))) == 20


def test_another_encoding_that_begins_late_is_refused_when_all_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 20)
    content = b"a fox at dusk\n" * 5 + "\n".join(FOREIGN["cp932"] * 10).encode("cp932")
    with pytest.raises(DatasetError, match="is not UTF-8, but most likely CP932"):
        read(write(tmp_path / "rows.txt", content))


def test_utf16_without_a_mark_is_refused(tmp_path):
    for encoding in ("utf-16-le", "utf-16-be"):
        path = write(tmp_path / "rows.csv", "prompt,n\na fox,1\n".encode(encoding))
        with pytest.raises(DatasetError, match=f"is {encoding.upper().replace('16-', '16')} without a byte order mark"):
            read(path)


def test_utf16_that_ends_within_a_character_is_refused_and_half_a_pair_costs_its_line(tmp_path):
    with pytest.raises(DatasetError, match="begins as UTF-16 and does not go on so"):
        read(write(tmp_path / "rows.txt", "a fox\n".encode("utf-16")[:-1]))
    content = "a fox\n\ud83d\na cat\n".encode("utf-16", "surrogatepass")
    assert reasons(write(tmp_path / "rows.txt", content)) == {1: (2, NOT_UTF8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x1f\x8b\x08\0 no text", r"is a gzip file; let its name end in \.gz"),
        (b"PAR1 no text", "is a Parquet file"),
        (b"PK\x03\x04 xlsx", "a zip archive or an Excel file"),
        (b"\x28\xb5\x2f\xfd", r"\.zst"),
        (b"BZh91AY", r"\.bz2"),
        (b"\xfd7zXZ\0", r"\.xz"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "txt"])
def test_what_is_no_text_is_called_what_it_is(tmp_path, content, message, suffix):
    with pytest.raises(DatasetError, match=message):
        read(write(tmp_path / f"rows.{suffix}", content))


pieces = st.lists(
    st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"\r\r\n", b" ", "狐".encode(), b"\xef\xbb\xbf"])
)


@given(pieces, st.integers(4, 9))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_together_are_the_file_whatever_the_size_of_chunks(tmp_path, monkeypatch, pieces, sample):
    monkeypatch.setattr(module, "SAMPLE", sample)
    path = tmp_path / "rows.txt"
    content = b"".join(pieces)
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(content if encoding == "utf-8" else content.decode().encode(encoding))
        lines = list(raw_lines(DataFile("rows.txt", str(path), "txt"), Notes()))
        marks = re.compile(rb"(?m)(?<![^\r\n])\xef\xbb\xbf")
        assert b"".join(lines).replace(b"\xef\xbb\xbf", b"") == content.replace(b"\xef\xbb\xbf", b"")
        assert all(re.fullmatch(rb"[^\n]*\n?", line) for line in lines)
        assert all(line.endswith((b"\n", b"\r")) for line in lines[:-1])
        assert not any(marks.match(line) and not marks.match(line[3:]) for line in lines)


@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"{", b'"a"', b"\n", b"\xff", b"\0", b"[1]", b"{}", b"\r"])))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_one_row_a_non_blank_line_or_refused_as_a_whole(tmp_path, content):
    data = content if isinstance(content, bytes) else b"".join(content)
    ends = rb"\r+\n|\r|\n" if data.count(b"\r") - data.count(b"\r\n") > data.count(b"\n") else rb"\n"
    lines = [line.removeprefix(codecs.BOM_UTF8) for line in re.split(ends, data)]
    expected = sum(bool(line.decode(errors="surrogateescape").strip()) for line in lines)
    for suffix in ("jsonl", "txt"):
        path = write(tmp_path / f"rows.{suffix}", data)
        try:
            assert [row.index for row in read(path)] == list(range(expected))
        except DatasetError as error:
            assert not expected or re.search(r"UTF-\d+|is a|needs", str(error)), error
