"""The names of images: as DataFlow-MM gives them, safe on every file system, without collisions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_core.planning.file_names import image_name, in_format, safe_id

UNSAFE = ["a/b", "../x", "a b", "", ".hidden", "con:1", "狐狸", "x" * 101, "a\nb", "-flag", "_x", "...", "\ud800"]


def test_an_image_is_named_after_row_message_and_number():
    assert image_name("sample7", 2, 1) == "sample7_condition2/sample7_condition2_1.png"


def test_a_name_has_the_suffix_of_the_format_in_which_its_image_is_stored():
    name = image_name("sample7", 0, 0)
    assert in_format(name, None) == in_format(name, "png") == name
    assert in_format(name, "webp") == "sample7_condition0/sample7_condition0_0.webp"
    assert in_format(name, "jpeg") == "sample7_condition0/sample7_condition0_0.jpg"


@pytest.mark.parametrize("value", ["a", "fox-1.2_b", "0", "A.png", "x" * 100])
def test_a_safe_id_is_kept(value):
    assert safe_id(value) == value


@pytest.mark.parametrize("value", UNSAFE)
def test_an_unsafe_id_becomes_a_safe_name_without_collisions(value):
    name = safe_id(value)
    assert name != value
    assert name == safe_id(name)
    assert name != safe_id(value + "!")


@settings(deadline=None)
@given(st.text(), st.text())
def test_names_are_plain_short_and_as_distinct_as_ids(one, other):
    name = safe_id(one)
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert name[0].isalnum()
    assert len(name) <= 100
    assert (name == safe_id(other)) == (one == other)


def test_names_of_ids_are_promises():
    """A name that changed would be another file for the same picture."""
    assert safe_id("a/b: c") == "a_b_c-95b2d3d9f6cd"
    assert safe_id("/Fox X").startswith("Fox_X-")
    assert safe_id("/X").startswith("X-")
    assert safe_id("狐狸").startswith("id-")
    assert safe_id("/" + "x" * 200).startswith("x" * 60 + "-")
    assert safe_id("/x.-_").startswith("x-")
