"""The page of all messages: what the source raises, as it stands there, by subject."""

import ast
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from docsite.html import code, escaped, table
from docsite.templates import Scope, has_words, templates
from t2i_core.system_errors import FIXES, PASSING

PACKAGES = ("t2i_core", "flows", "tasks")
# Of Python, and of this tool where no user meets them: what they say is for whoever reads a traceback.
INTERNAL = frozenset(
    ("SystemExit", "KeyError", "IndexError", "AssertionError", "OSError", "TypeError", "NotImplementedError")
)
# The first name that fits the module says the subject.
SUBJECTS = {
    "t2i_core/dataset/": "The data set",
    "t2i_core/models/": "The model",
    "t2i_core/engine/": "Loading and generating",
    "t2i_core/generation/": "Loading and generating",
    "t2i_core/planning/": "Rows and settings",
    "t2i_core/export/": "Exports",
    "t2i_core/scoring/": "Scores",
    "t2i_core/reports/": "Reports and pictures",
    "t2i_core/output/": "The output folder",
    "t2i_core/storage/": "The output folder",
    "t2i_core/": "Options",
    "flows/arguments.py": "Options",
    "flows/": "The run",
    "tasks/": "The run",
}
INTRODUCTION = """\
# Every message

This page is made from the source whenever this site is built: it has every text with which the tool refuses something,
or with which a row or an image fails. Search it for some words of what you see. *Values* differ from case to case; what
a library says is quoted as such a value. [When something goes wrong](troubles.md) tells what becomes of a run.

A message about an option begins with the option's name; one about a row is in `failures.jsonl`, with its file, line and
field. An option out of its bounds is answered with the bounds, which are in [every option](configuration.md).

"""
OF_THE_SYSTEM = """\
## Errors of the operating system

The message names the option and the path, and repeats what the system says.

"""


@dataclass(frozen=True, slots=True)
class Message:
    """A text with which something is refused, and the module of the source that has it."""

    text: str
    module: str

    @property
    def subject(self) -> str:
        """What the message is about, as its module tells."""
        return next(subject for start, subject in SUBJECTS.items() if self.module.startswith(start))

    @property
    def parts(self) -> tuple[str, str]:
        """What is wrong, and what to do; the second is empty where the text does not tell them apart."""
        wrong, _, fix = self.text.rpartition("; ")
        return (wrong, fix) if wrong else (fix, "")


def messages_page(root: Path) -> str:
    """Return the page, in Markdown."""
    by_subject: dict[str, list[Message]] = {subject: [] for subject in SUBJECTS.values()}
    for message in all_messages(root):
        by_subject[message.subject].append(message)
    parts = [INTRODUCTION]
    for subject, messages in by_subject.items():
        if messages:
            parts.append(f"## {subject}\n\n{_table(messages)}\n")
    return "".join([*parts, _of_the_system()])


def all_messages(root: Path) -> list[Message]:
    """Return the messages of the whole source, each text once, in the order of the modules."""
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]
    trees = {file.relative_to(root).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}
    kinds = _error_classes(trees.values())
    constants = {module: _constants(tree) for module, tree in trees.items()}
    found: dict[str, Message] = {}
    for module, tree in trees.items():
        for message in _of_module(module, tree, kinds, {**_imported(tree, constants), **constants[module]}):
            found.setdefault(message.text, message)
    return list(found.values())


def _of_module(
    module: str, tree: ast.Module, kinds: frozenset[str], constants: Mapping[str, ast.expr]
) -> Iterator[Message]:
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        scope = Scope(_assigned(function), constants)
        for node in ast.walk(function):
            kind = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if isinstance(node, ast.Call) and kind in kinds and node.args:
                for expression in _texts_of(node, kind, scope):
                    for text in filter(has_words, templates(expression, scope)):
                        line = " ".join(text.split())
                        yield Message(f"‹field›: {line}" if kind == "BadRow" else line, module)


def _texts_of(call: ast.Call, kind: str, scope: Scope) -> list[ast.expr]:
    """Return the expressions that say what an error is about."""
    # BadRow(field, value, reason)
    argument = call.args[-1] if kind == "BadRow" else call.args[0]
    lists = scope.of(argument.id) if isinstance(argument, ast.Name) else [argument]
    items = [item for one in lists if isinstance(one, ast.List) for item in one.elts]
    return items or [argument]


def _error_classes(trees: Iterable[ast.Module]) -> frozenset[str]:
    """Return the names of exceptions whose texts people see: ValueError, and every one that the source defines."""
    found = {"ValueError"}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(_is_error(base) for base in node.bases):
                found.add(node.name)
    return frozenset(found - INTERNAL)


def _is_error(base: ast.expr) -> bool:
    name = getattr(base, "id", "")
    return name.endswith(("Error", "Exception", "Failure")) or name in ("HubUnavailable", "BadRow")


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the constants of a module, by name."""
    found = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found[name] = value
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):  # LOW, HIGH = 8, 16384
                found.update(
                    (name.id, value) for name, value in zip(names, values, strict=True) if isinstance(name, ast.Name)
                )
    return found


def _imported(tree: ast.Module, constants: Mapping[str, Mapping[str, ast.expr]]) -> dict[str, ast.expr]:
    """Return the constants that a module imports from others, by name."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            there = constants.get(f"{node.module.replace('.', '/')}.py", {})
            found.update({alias.name: there[alias.name] for alias in node.names if alias.name in there})
    return found


def _assigned(function: ast.FunctionDef) -> dict[str, list[ast.expr]]:
    """Return what is assigned to each name of a function, and appended to each list."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found.setdefault(name, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found.setdefault(name, []).append(value)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=items):
                found.setdefault(name, []).append(ast.List(items))
    return found


def _table(messages: list[Message]) -> str:
    rows = (
        (_shown(wrong), _shown(fix), code(message.module.removeprefix("t2i_core/")))
        for message in messages
        for wrong, fix in [message.parts]
    )
    return table(("message", "what to do", "where"), rows)


def _shown(text: str) -> str:
    return escaped(text).replace("‹", "<em>").replace("›", "</em>")


def _of_the_system() -> str:
    """Return what the tool makes of errors of the operating system."""
    rows = (
        (code(errno.errorcode[number]), escaped(os.strerror(number)), escaped(fix))
        for number, fix in {**FIXES, **PASSING}.items()
    )
    return OF_THE_SYSTEM + table(("error", "the system says", "what to do"), rows)
