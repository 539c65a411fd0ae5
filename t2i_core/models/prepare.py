"""The identity of the user's own function over the loaded pipeline; the function is not run for it."""

import ast
import hashlib
import importlib.util
from pathlib import Path

from t2i_core.errors import ConfigError


def prepare_digest(name: str) -> str:
    """Return the SHA-256 of the source file that defines `module:function`: another source may mean other pixels.

    Raises:
        ConfigError: for a module that cannot be found, or a function it does not define.
    """
    module, _, function = name.partition(":")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise ConfigError(
            [f"prepare: Python finds no module {module!r}; run from the folder that holds it, or set PYTHONPATH"]
        )
    source = Path(spec.origin).read_bytes()
    try:
        defined = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError) as error:
        raise ConfigError([f"prepare: {spec.origin} is no Python source: {error}"]) from None
    if function not in defined:
        names = ", ".join(sorted(defined)) or "none"
        raise ConfigError([f"prepare: {spec.origin} defines no function {function!r} (it defines {names})"])
    return hashlib.sha256(source).hexdigest()
