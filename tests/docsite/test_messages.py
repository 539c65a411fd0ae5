"""The page of messages: each text that the source raises, as a template with what to do."""

from pathlib import Path

import pytest

from docsite.messages import all_messages, messages_page
from t2i_core.errors import DatasetError

ROOT = Path(__file__).resolve().parents[2]


def messages_of(tmp_path, source):
    (tmp_path / "t2i_core").mkdir()
    (tmp_path / "t2i_core" / "module.py").write_text(source, encoding="utf-8")
    return [message.text for message in all_messages(tmp_path)]


def test_a_message_has_placeholders_where_values_stand(tmp_path):
    source = """
def refuse(name, values):
    raise ValueError(f"{shorten(name)}: has {', '.join(values)} and {values.count()}; remove {name.path}")
"""
    assert messages_of(tmp_path, source) == ["‹name›: has ‹values› and ‹count›; remove ‹path›"]


def test_each_text_that_a_message_may_have_is_there(tmp_path):
    source = """
FIX = "leave it out"

class ModelError(ValueError):
    pass

def refuse(known, problem):
    if known:
        word = "old"
    else:
        word = f"new {problem}"
    hint = " or not" * known
    return ModelError(f"a {word} thing; {FIX if known else 'stop'}{hint}")
"""
    found = messages_of(tmp_path, source)
    assert "a old thing; leave it out" in found
    assert "a new ‹problem› thing; stop or not" in found
    assert len(found) == 8


def test_lists_of_problems_and_the_field_of_a_row(tmp_path):
    source = """
class ConfigError(ValueError): ...
class BadRow(ValueError): ...

def refuse(value):
    problems = []
    problems.append(f"a: {value} is wrong; write 1")
    raise ConfigError(problems)

def bad(field, value):
    raise BadRow(field, value, "is blank; write a prompt")

def passed_on(error):
    raise ConfigError([str(error)])
"""
    assert messages_of(tmp_path, source) == ["a: ‹value› is wrong; write 1", "‹field›: is blank; write a prompt"]


def test_the_page_has_what_a_user_sees():
    page = messages_page(ROOT)
    with pytest.raises(DatasetError) as error:
        from t2i_core.dataset.sources import find_parts

        find_parts("a.pkl")
    said = str(error.value).partition(": ")[2].partition(";")[0]
    assert f"<em>name</em>&#58; {said} |" in page
    assert "| <code>ENOSPC</code> | No space left on device |" in page


def test_every_module_that_refuses_something_has_a_subject():
    messages = all_messages(ROOT)
    assert len(messages) > 300
    assert {message.subject for message in messages} > {"The data set", "The model", "Options", "The output folder"}
