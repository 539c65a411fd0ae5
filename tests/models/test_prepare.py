"""The hash of the user's own function: from its source file, which is not run."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from t2i_core.errors import ConfigError
from t2i_core.models.prepare import prepare_digest

Module = Callable[..., Path]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Write a module that Python finds; returns its file."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str, name: str = "prepared_by_test") -> Path:
        monkeypatch.delitem(sys.modules, name, raising=False)
        file = tmp_path / f"{name}.py"
        file.write_text(source)
        return file

    return write


def test_the_digest_is_that_of_the_whole_source_file(module: Module) -> None:
    file = module("def f(pipeline): pass\n")
    before = prepare_digest("prepared_by_test:f")
    assert before == hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text("AMOUNT = 2\n" + file.read_text())
    assert prepare_digest("prepared_by_test:f") == hashlib.sha256(file.read_bytes()).hexdigest() != before


def test_two_functions_of_one_file_have_one_digest(module: Module) -> None:
    module("def f(pipeline): pass\ndef g(pipeline): pass\n")
    assert prepare_digest("prepared_by_test:f") == prepare_digest("prepared_by_test:g")


def test_the_module_is_not_run(module: Module) -> None:
    module("raise SystemExit('run')\ndef f(pipeline): pass\n")
    assert len(prepare_digest("prepared_by_test:f")) == 64
    assert "prepared_by_test" not in sys.modules


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("", "no_such_module:f", "prepare: Python finds no module 'no_such_module'; run from the folder that holds it"),
        ("", "no_such_package.module:f", "Python finds no module 'no_such_package.module'"),
        ("", "sys:exit", "Python finds no module 'sys'"),
        ("", "prepared_by_test:f", "defines no function 'f' (it defines none)"),
        ("def h(p): pass\ndef g(p): pass\n", "prepared_by_test:f", "defines no function 'f' (it defines g, h)"),
        ("class f: pass\n", "prepared_by_test:f", "defines no function 'f' (it defines none)"),
        ("def f(:", "prepared_by_test:f", "is no Python source"),
    ],
)
def test_what_is_no_function_is_refused_in_one_line(module: Module, source: str, name: str, message: str) -> None:
    module(source)
    with pytest.raises(ConfigError) as error:
        prepare_digest(name)
    assert message in str(error.value)
    assert len(error.value.problems) == 1
    assert "\n" not in str(error.value)
