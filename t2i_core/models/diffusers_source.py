"""The source of the installed diffusers, parsed: importing diffusers takes seconds, and imports torch."""

import ast
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from t2i_core.errors import ModelError


def diffusers_folder() -> Path:
    """Return the folder of the installed diffusers.

    Raises:
        ModelError: where it is not installed.
    """
    spec = importlib.util.find_spec("diffusers")
    if spec is None or spec.origin is None:
        raise ModelError("diffusers is not installed; run `pip install diffusers`")
    return Path(spec.origin).parent


def parse(source: bytes) -> ast.Module:
    """Return the syntax tree of a source file."""
    try:
        return ast.parse(source)
    except SystemError:
        # CPython 3.11 counts recursion for all threads together, and fails when another thread parses at the same time
        # (python/cpython#106905).
        return ast.parse(source)


def defaults_of(function: ast.FunctionDef | None) -> list[tuple[str, ast.expr | None]]:
    """Return (name, default) of each parameter of a method but `self`; None for no default."""
    if function is None:
        return []
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing = len(positional) - len(arguments.defaults)
    defaults = [*([None] * missing), *arguments.defaults, *arguments.kw_defaults]
    names = [argument.arg for argument in [*positional, *arguments.kwonlyargs]]
    return list(zip(names, defaults, strict=True))[1:]  # without self


def literal(node: ast.expr | None) -> Any:
    """Return the value of an expression; Ellipsis for None, and for one that is no literal."""
    try:
        return ... if node is None else ast.literal_eval(node)
    except ValueError:
        return ...


@lru_cache(maxsize=1)
def single_file_classes() -> frozenset[str]:
    """Return the classes of denoisers and VAEs that the installed diffusers loads from a single file."""
    for node in parse((diffusers_folder() / "loaders" / "single_file_model.py").read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            return frozenset(str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
    raise AssertionError("diffusers keeps its classes elsewhere")
