"""How the pipelines of the installed diffusers tokenize, read from their source."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from t2i_core.errors import ModelError
from t2i_core.models.pipeline_signature import check_text_to_image

PIPELINE = re.compile(r"^class (\w+Pipeline)\(", re.MULTILINE)
TOKENIZES = re.compile(r"(tokenizer(_\d)?|(?<!image_)(?<!attn_)processor)(\.apply_chat_template|\.pad)?$")


@cache
def accepted_pipelines() -> dict[str, ast.ClassDef]:
    """Return the definition of every pipeline of the installed diffusers that this tool accepts, by its name."""
    definitions = _definitions()
    return {name: node for name, node in definitions.items() if _is_accepted(name)}


def lengths_in_source(definition: ast.ClassDef) -> list[str]:
    """Return `tokenizer: length` for every call that cuts a text; what names stand for is put in their place."""
    found = set()
    for function in (node for node in definition.body if isinstance(node, ast.FunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            options = {item.arg: item.value for item in call.keywords}
            if TOKENIZES.search(ast.unparse(call.func)) and options.keys() & {"max_length", "truncation"}:
                length = options.get("max_length")
                values = ["its own"] if length is None else _values(length, function, definition)
                found |= {f"{ast.unparse(call.func)}: {value}" for value in values}
    # A pipeline of pipelines tokenizes in its parts.
    init = next((node for node in definition.body if getattr(node, "name", "") == "__init__"), definition)
    for call in (node for node in ast.walk(init) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        if call.func.id.endswith("Pipeline"):
            found |= {f"{call.func.id}.{line}" for line in lengths_in_source(_definitions()[call.func.id])}
    return sorted(found)


def components(definition: ast.ClassDef) -> dict[str, tuple[str, str]]:
    """Return what model_index.json would hold of the components, with the classes that `__init__` asks for."""
    init = next(node for node in definition.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    found = {}
    for argument in init.args.args[1:]:
        if argument.annotation is not None:
            name = re.split(r"[\[\]| .,]+", ast.unparse(argument.annotation).replace("Optional[", ""))[0]
            found[argument.arg] = ("transformers", name)
    return found


def texts_in_source(folder: str) -> set[str]:
    """Return all texts in the source of one folder of pipelines."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((_pipelines() / folder).glob("*.py"))]
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def _pipelines() -> Path:
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pipelines"


@cache
def _definitions() -> dict[str, ast.ClassDef]:
    found: dict[str, ast.ClassDef] = {}
    for path in sorted(_pipelines().rglob("pipeline_*.py")):
        source = path.read_text(encoding="utf-8")
        if PIPELINE.search(source):
            found |= {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    return found


def _is_accepted(name: str) -> bool:
    try:
        check_text_to_image(name, name)
    except ModelError:
        return False
    return True


def _values(length: ast.expr, function: ast.FunctionDef, definition: ast.ClassDef) -> Iterator[str]:
    """Yield what a length is: a name that is assigned in the function or in `__init__` is what is assigned."""
    text = ast.unparse(length)
    scope = function
    if text.startswith("self.") and text.count(".") == 1:
        scope = next(node for node in definition.body if getattr(node, "name", "") == "__init__")
    assigned = [
        node.value
        for node in ast.walk(scope)
        if isinstance(node, ast.Assign) and text in map(ast.unparse, node.targets)
    ]
    for value in assigned or [length]:
        yield from map(ast.unparse, [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])
