"""The scheduler classes of the installed diffusers, read from its source: planning does not import diffusers."""

import ast
import difflib
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import NoneType
from typing import Any

from t2i_core.errors import ConfigError
from t2i_core.models.diffusers_source import defaults_of, diffusers_folder, literal, parse

SCHEDULER = re.compile(r"^class (\w+)\(SchedulerMixin", re.MULTILINE)
# Compatible schedulers are given as a list of names, or as all members of this enumeration.
KARRAS = "KarrasDiffusionSchedulers"
# A class that holds one of these draws noise from it, and not from the generators of the images.
OWN_NOISE = "NoiseSampler"
# The words of an annotation -> the types of JSON that it takes.
TYPES = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list,
    "List": list,
    "ndarray": list,
    "Optional": NoneType,
}


@dataclass(frozen=True, slots=True)
class Option:
    """A parameter of a scheduler's `__init__`.

    default: Ellipsis where there is none, or where it is no literal.
    types: what it takes; empty for what JSON cannot hold, such as a function.
    items: what a list holds.
    choices: the texts it takes; empty where the source does not tell.
    """

    default: Any
    types: frozenset[type]
    items: type
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SchedulerClass:
    """A scheduler class, as its source describes it.

    compatibles: the classes that diffusers names compatible with it, itself first.
    timesteps: the parameters of `set_timesteps`.
    seeded: whether the noise of its steps, if any, comes from the generators of the images.
    """

    name: str
    options: Mapping[str, Option]
    compatibles: tuple[str, ...]
    timesteps: frozenset[str]
    seeded: bool


def scheduler_names() -> frozenset[str]:
    """Return the names of all scheduler classes of the installed diffusers."""
    return frozenset(_files())


def check_scheduler_name(name: str) -> None:
    """Refuse a scheduler that the installed diffusers does not have.

    Raises:
        ConfigError: with the installed version.
    """
    known = scheduler_names()
    if name not in known:
        version = importlib.metadata.version("diffusers")
        close = difflib.get_close_matches(name, sorted(known), n=1)
        close = close or sorted((other for other in known if other.startswith(name)), key=len)
        fix = f"did you mean {close[0]}?" if close else "leave it out for the model's own"
        raise ConfigError([f"scheduler: diffusers {version} has no {name}; {fix}"])


@lru_cache(maxsize=64)
def scheduler_class(name: str) -> SchedulerClass:
    """Return the class `name`, one of `scheduler_names`."""
    tree = parse(_files()[name].read_bytes())
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    methods = {node.name: node for node in definition.body if isinstance(node, ast.FunctionDef)}
    compared = _compared_texts(definition)
    init = methods["__init__"]
    annotations = {argument.arg: argument.annotation for argument in [*init.args.args, *init.args.kwonlyargs]}
    return SchedulerClass(
        name,
        options={key: _option(key, node, annotations[key], compared) for key, node in defaults_of(init)},
        compatibles=(name, *(other for other in _compatibles(definition) if other != name)),
        timesteps=frozenset(key for key, _ in defaults_of(methods.get("set_timesteps"))),
        seeded=not any(isinstance(node, ast.Name) and node.id.endswith(OWN_NOISE) for node in ast.walk(definition)),
    )


@lru_cache(maxsize=64)
def packages_of(name: str) -> tuple[str, ...]:
    """Return the packages, as they are imported, without which diffusers has only a stand-in for the class `name`."""
    for path in (diffusers_folder() / "utils").glob("dummy_*_objects.py"):
        found = re.search(
            rf"^class {name}\(.*\n    _backends = (\[.*\])$", path.read_text(encoding="utf-8"), re.MULTILINE
        )
        if found:
            return tuple(ast.literal_eval(found[1]))
    return ()


@lru_cache(maxsize=1)
def _files() -> dict[str, Path]:
    """Return {class: the file that holds it} for the classes that diffusers exports."""
    exports = (diffusers_folder() / "__init__.py").read_text(encoding="utf-8")
    return {
        name: path
        for path in sorted((diffusers_folder() / "schedulers").glob("scheduling_*.py"))
        for name in SCHEDULER.findall(path.read_text(encoding="utf-8"))
        if f'"{name}"' in exports
    }


def _compatibles(definition: ast.ClassDef) -> list[str]:
    for node in definition.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id != "_compatibles":
                continue
            if any(isinstance(part, ast.Name) and part.id == KARRAS for part in ast.walk(node.value)):
                return list(karras_schedulers())
            return list(literal(node.value))
    return []


@lru_cache(maxsize=1)
def karras_schedulers() -> tuple[str, ...]:
    """Return the schedulers that diffusers names compatible with each other."""
    tree = parse((diffusers_folder() / "schedulers" / "scheduling_utils.py").read_bytes())
    (enumeration,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == KARRAS)
    return tuple(
        target.id
        for node in enumeration.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    )


def _option(
    name: str, default: ast.expr | None, annotation: ast.expr | None, compared: Mapping[str, tuple[str, ...]]
) -> Option:
    value = literal(default)
    constants = list(_constants(annotation))
    types = {TYPES[word] for word in _words(annotation) if word in TYPES} | set(map(type, constants))
    if types == {bool, NoneType} and value is None:
        types = {float, NoneType}  # numbers that diffusers annotates as bool, such as UniPC's sigma_max
    items = float if float in types else int
    if list in types:
        types -= {int, float}
    if types and value is None:
        types.add(NoneType)
    texts = tuple(text for text in constants if isinstance(text, str))
    return Option(value, frozenset(types), items, texts or (compared.get(name, ()) if str in types else ()))


def _words(annotation: ast.expr | None) -> Iterator[str]:
    """Yield the names in an annotation: of `np.ndarray` its last."""
    for part in ast.walk(annotation) if annotation is not None else ():
        if isinstance(part, ast.Name | ast.Attribute):
            yield part.id if isinstance(part, ast.Name) else part.attr


def _constants(annotation: ast.expr | None) -> Iterator[Any]:
    """Yield the literals of an annotation: the members of `Literal`, and None."""
    for part in ast.walk(annotation) if annotation is not None else ():
        if isinstance(part, ast.Constant):
            yield part.value


def _compared_texts(definition: ast.ClassDef) -> dict[str, tuple[str, ...]]:
    """Return {name: the texts with which the class compares it}, for `name`, `self.name` and `self.config.name`."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(definition):
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            continue
        name = getattr(node.left, "id", None) or getattr(node.left, "attr", None)
        try:
            value = ast.literal_eval(node.comparators[0])
        except ValueError:
            continue
        texts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        if name is not None:
            found.setdefault(name, []).extend(text for text in texts if isinstance(text, str))
    return {name: tuple(dict.fromkeys(texts)) for name, texts in found.items()}
