"""Whether a TSV file is quoted: the writers that quote, and texts with quotation marks of their own."""

import csv
import io

import pytest

from t2i_core.dataset.quoted_tsv import is_quoted

PLAIN = ["a fox at dusk", "a cat", "an old lighthouse"]
COMMAS = ["a fox, at dusk", "snow, pines and a cat"]
MARKS = ['a sign that says "open"', '"Brain" by night']


def lines_of(rows, quoting=csv.QUOTE_MINIMAL):
    sink = io.StringIO()
    csv.writer(sink, delimiter="\t", quoting=quoting, lineterminator="\n").writerows([["prompt", "n"], *rows])
    return sink.getvalue().splitlines(keepends=True)


def numbered(texts):
    return [[text, n] for n, text in enumerate(texts)]


@pytest.mark.parametrize("texts", [PLAIN + MARKS, ["two\nlines"], ["a\ttab"], ['say "hi"'] * 3 + COMMAS])
def test_what_needs_quotation_marks_has_them_where_pandas_writes(texts):
    assert is_quoted(lines_of(numbered(texts)))


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_a_file_in_which_every_text_is_quoted_is_quoted(quoting):
    assert is_quoted(lines_of(numbered(PLAIN), quoting))
    assert is_quoted(lines_of(numbered(PLAIN + COMMAS), quoting))


def test_excel_quotes_what_holds_a_comma():
    rows = [f'"{text}"\t{n}\r\n' for n, text in enumerate(COMMAS)] + [f"{text}\t1\r\n" for text in PLAIN]
    assert is_quoted(["prompt\tn\r\n", *rows])


@pytest.mark.parametrize(
    "prompts",
    [
        PLAIN,
        COMMAS,
        MARKS,
        [*PLAIN, '"Welcome to hell"'],
        ['"Welcome, stranger"', *COMMAS],
        ['"'],
        ['"open', "a fox"],
        ['6" pipe'],
        [],
    ],
)
def test_quotation_marks_of_the_text_itself_are_text(prompts):
    assert not is_quoted(["prompt\tn\n", *(f"{prompt}\t{n}\n" for n, prompt in enumerate(prompts))])


def test_one_stray_mark_among_many_quoted_cells_changes_nothing():
    assert is_quoted([*lines_of(numbered(MARKS * 5)), '"open\t1\n'])
