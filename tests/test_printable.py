"""No text of others gives a terminal orders."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from t2i_core.printable import printable
from tasks.settings import PrintableRecord


@given(st.text(st.characters()))
def test_nothing_but_tabs_and_line_feeds_controls_a_terminal(text):
    shown = printable(text)
    assert all(c.isprintable() or c in "\t\n" or ord(c) > 0x9F for c in shown)
    shown.encode()


def test_what_people_write_stays():
    text = "ein Fuchs 🦊\n\tשלום 日本 é̂"
    assert printable(text) == text
    assert printable("\x1b[2J\x07\x9b\u202e") == r"\x1b[2J\x07\x9b\u202e"


def test_a_line_of_a_log_is_printable_whoever_wrote_it():
    record = PrintableRecord("diffusers", logging.INFO, "", 1, "loaded %s", ("\x1b]0;title\x07",), None)
    assert record.getMessage() == r"loaded \x1b]0;title\x07"
