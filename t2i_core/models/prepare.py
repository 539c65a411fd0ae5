"""The user's own function, over the loaded pipeline or as a scorer: its file, the identity of it, and the function."""

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from t2i_core.errors import ConfigError, shorten
from t2i_core.local_paths import is_file, is_folder, similar_name

SUFFIX = ".py"


def prepare_digest(name: str, option: str = "prepare") -> str:
    """Return the SHA-256 of the file that defines `module:function` or `FILE.py:function`.

    Another source may mean other pixels, or other scores. No code is run: neither the module nor the packages it is in.
    `option` is for messages.

    Raises:
        ConfigError: for a file or module that cannot be found or read, or a function it does not define.
    """
    module, _, function = name.rpartition(":")
    file = find_source(module, option)
    try:
        source = file.read_bytes()
        defined = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    except OSError as error:
        raise ConfigError([f"{option}: {file} cannot be read: {error.strerror}; check the file"]) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigError([f"{option}: {file} is no Python source: {reason}; correct it"]) from None
    if function not in defined:
        names = ", ".join(sorted(defined)) or "none"
        raise ConfigError([f"{option}: {file} defines no function {function!r} (it defines {names})"])
    return hashlib.sha256(source).hexdigest()


def find_source(module: str, option: str = "prepare") -> Path:
    """Return the source file of a module, or the file itself where a path was given.

    Raises:
        ConfigError: for what is not there, or cannot be read.
    """
    if not module.endswith(SUFFIX):
        spec = _find_module(module)
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            fix = "run from the folder that holds it, set PYTHONPATH, or write file.py:function"
            raise ConfigError([f"{option}: Python finds no module {shorten(module)}; {fix}"])
        return Path(spec.origin)
    file = Path(module)
    try:
        if is_file(file):
            return file
        problem = (
            "is a folder; name the file" if is_folder(file) else f"does not exist; check the path{similar_name(file)}"
        )
    except ValueError as error:
        problem = str(error)
    raise ConfigError([f"{option}: {shorten(module)} {problem}"])


class ChangedSource(ConfigError):
    """The file of the function is not the one that was hashed."""


def load_function(name: str, sha256: str | None = None, option: str = "prepare") -> Callable[..., Any]:
    """Run the file that `prepare_digest` has hashed, and return the function; what its module raises is passed on.

    Python's own import would take compiled code that is stored beside the file, or a module that this process imported
    before the file was edited. `sha256`: what the file must have.

    Raises:
        ChangedSource: if it has another.
    """
    module, _, function = name.rpartition(":")
    file = find_source(module, option).absolute()
    source = file.read_bytes()
    if sha256 not in (None, hashlib.sha256(source).hexdigest()):
        raise ChangedSource([f"{option}: {file} changed since the run began; run the same command again"])
    if module.endswith(SUFFIX):
        # Not under the file's own name, which may be that of a module that something else needs.
        spec = importlib.util.spec_from_file_location(f"prepared_{file.stem}", file)
    else:
        if package := module.rpartition(".")[0]:
            importlib.import_module(package)
        spec = _find_module(module)
    assert spec is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses and pickle look modules up there
    exec(compile(source, str(file), "exec", dont_inherit=True), loaded.__dict__)  # noqa: S102 - the user's own function
    return getattr(loaded, function)  # type: ignore[no-any-return]


def _find_module(name: str) -> ModuleSpec | None:
    """Return the spec of a module as `importlib.util.find_spec` does, which would import the packages above it."""
    first, *rest = name.split(".")
    try:
        if name in sys.modules:
            return importlib.util.find_spec(name)
        spec = importlib.util.find_spec(first)
        for depth, _ in enumerate(rest, 2):
            if spec is None or spec.submodule_search_locations is None:
                return None
            path = spec.submodule_search_locations
            full_name = ".".join(name.split(".")[:depth])
            found = (finder.find_spec(full_name, path) for finder in sys.meta_path)
            spec = next((spec for spec in found if spec is not None), None)
    except (ImportError, ValueError, OSError):
        return None
    return spec
