"""The hash of the user's own function: from its source file, which is not run."""

import hashlib
import importlib.util
import os
import py_compile
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from t2i_core.errors import ConfigError
from t2i_core.models.prepare import find_source, load_function, prepare_digest

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


def test_a_file_and_the_module_in_it_have_one_digest(module: Module) -> None:
    file = module("def f(pipeline): pass\n")
    assert prepare_digest(f"{file}:f") == prepare_digest("prepared_by_test:f")


def test_a_module_in_a_package_is_found_without_running_the_package(tmp_path: Path, module: Module) -> None:
    (tmp_path / "bad_package/inner").mkdir(parents=True)
    (tmp_path / "bad_package/__init__.py").write_text("raise SystemExit('run')")
    (tmp_path / "bad_package/inner/__init__.py").write_text("raise OSError('run')")
    file = tmp_path / "bad_package/inner/prep.py"
    file.write_text("def f(pipeline): pass\n")
    module("")
    assert prepare_digest("bad_package.inner.prep:f") == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not any(name.startswith("bad_package") for name in sys.modules)


def test_a_module_without_a_package_around_it_is_found_like_python_does(module: Module, tmp_path: Path) -> None:
    module("")
    (tmp_path / "namespace").mkdir()
    file = tmp_path / "namespace/prep.py"
    file.write_text("def f(pipeline): pass\n")
    assert find_source("namespace.prep") == file
    for name in ("json", "json.decoder", "email.mime.text"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        assert find_source(name) == Path(found.origin)


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
        ("def f(p): pass\nx = " + "(" * 5000 + ")" * 5000, "prepared_by_test:f", "is no Python source"),
        ("def f(p): pass\n# caf\0", "prepared_by_test:f", "is no Python source"),
        ("", "prepared_by_test.below:f", "Python finds no module 'prepared_by_test.below'"),
        ("", "a..b:f", "Python finds no module 'a..b'"),
        ("", "/nowhere/prep.py:f", "prepare: '/nowhere/prep.py' does not exist; check the path"),
    ],
)
def test_what_is_no_function_is_refused_in_one_line(module: Module, source: str, name: str, message: str) -> None:
    module(source)
    with pytest.raises(ConfigError) as error:
        prepare_digest(name)
    assert message in str(error.value)
    assert len(error.value.problems) == 1
    assert "\n" not in str(error.value)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "prep.py").write_text("")
    for name, message in {
        "folder.py": "is a folder; name the file",
        "perp.py": f"does not exist; check the path; did you mean {tmp_path}/prep.py?",
    }.items():
        with pytest.raises(ConfigError) as error:
            find_source(f"{tmp_path}/{name}")
        assert message in str(error.value)


def test_the_function_of_a_file_is_loaded_whatever_the_file_is_called(tmp_path: Path) -> None:
    file = tmp_path / "json.py"
    file.write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Mark:\n    text: str\n"
        "def f(pipeline): return Mark(pipeline)\n"
    )
    assert load_function(f"{file}:f")("x").text == "x"
    assert not hasattr(sys.modules["json"], "Mark")
    file.write_text("def f(pipeline): return 'again'\n")
    assert load_function(f"{file}:f")(None) == "again"


def test_the_function_of_a_module_is_loaded(module: Module) -> None:
    module("def f(pipeline): return [pipeline]\n", name="prepared_by_load_test")
    assert load_function("prepared_by_load_test:f")("x") == ["x"]


@pytest.mark.parametrize("form", ["module", "file"])
def test_what_is_run_is_what_was_hashed_and_no_compiled_code_of_before(module: Module, form: str) -> None:
    """Python knows the source of compiled code by size and time, and a module that was imported by its name."""
    file = module("def f(pipeline): return 1\n", name="prepared_by_stale_test")
    name = "prepared_by_stale_test:f" if form == "module" else f"{file}:f"
    status = file.stat()
    py_compile.compile(str(file))
    importlib.import_module("prepared_by_stale_test")
    file.write_text("def f(pipeline): return 2\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load_function(name, prepare_digest(name))(None) == 2


def test_a_source_with_another_hash_is_refused_and_not_run(module: Module) -> None:
    file = module("def f(pipeline): return 1\n")
    before = prepare_digest("prepared_by_test:f")
    file.write_text("raise SystemExit('run')")
    with pytest.raises(ConfigError, match=f"prepare: {file} changed since the run began"):
        load_function("prepared_by_test:f", before)


def test_a_module_in_a_package_may_import_its_neighbours(tmp_path: Path, module: Module) -> None:
    (tmp_path / "prepared_package").mkdir()
    for name, source in {
        "__init__.py": "",
        "other.py": "AMOUNT = 3",
        "prep.py": "from .other import AMOUNT\ndef f(p): return AMOUNT",
    }.items():
        (tmp_path / "prepared_package" / name).write_text(source)
    module("")
    assert load_function("prepared_package.prep:f")(None) == 3
