"""Texts that the source puts together, as templates: with a word in place of each value."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

ALTERNATIVES = 12  # of one text; beyond that a value stays a placeholder
# Functions that only give a value another form: the value is what the text is about.
_FORMS = ("shorten", "joined", "listed", "str", "repr", "printable", "sorted", "join")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the names in a function stand for: `values` are the expressions that are assigned to each."""

    values: Mapping[str, list[ast.expr]]
    constants: Mapping[str, ast.expr]

    def of(self, name: str) -> list[ast.expr]:
        """Return the expressions that a name may stand for; none where that is not known."""
        return self.values.get(name) or ([self.constants[name]] if name in self.constants else [])


def templates(node: ast.expr, scope: Scope) -> list[str]:
    """Return the texts that an expression may be, with a placeholder for what only a run knows."""
    return list(dict.fromkeys(islice(_texts(node, scope, frozenset()), ALTERNATIVES)))


def has_words(template: str) -> bool:
    """Return whether a template says something of itself, beside its placeholders."""
    inside = 0
    for char in template:
        inside += (char == "‹") - (char == "›")
        if not inside and char.isalpha():
            return True
    return False


def _texts(node: ast.expr, scope: Scope, within: frozenset[str]) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        parts = [_several(value, scope, within) for value in node.values]
        yield from map("".join, product(*parts))
    elif isinstance(node, ast.FormattedValue):
        yield from _texts(node.value, scope, within)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, scope, within)
        yield from _texts(node.orelse, scope, within)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from map("".join, product(_several(node.left, scope, within), _several(node.right, scope, within)))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
        yield from _texts(node.left, scope, within)
        yield ""
    elif isinstance(node, ast.Name) and _says_something(node.id, scope):
        if node.id not in within:  # a text that is made of an earlier one of the same name
            for value in scope.of(node.id):
                yield from _texts(value, scope, within | {node.id})
    elif words := _joined(node, scope):
        yield words
    else:
        yield f"‹{_placeholder(node)}›"


def _several(node: ast.expr, scope: Scope, within: frozenset[str]) -> list[str]:
    return list(dict.fromkeys(islice(_texts(node, scope, within), ALTERNATIVES)))


def _says_something(name: str, scope: Scope) -> bool:
    """Return whether all values of a name are texts or numbers in the source; one may be made of an earlier one."""
    values = scope.of(name)
    return 0 < len(values) <= ALTERNATIVES and all(_is_text(value, name, scope) for value in values)


def _is_text(node: ast.expr, name: str, scope: Scope) -> bool:
    match node:
        case ast.IfExp(body=body, orelse=orelse):
            return _is_text(body, name, scope) and _is_text(orelse, name, scope)
        case ast.BinOp(left=left):
            return _is_text(left, name, scope)
        case ast.Name(id=other):
            return other == name or (other in scope.constants and _says_something(other, scope))
        case ast.Constant(value=value):
            return isinstance(value, str | int | float)
        case _:
            return isinstance(node, ast.JoinedStr)


def _joined(node: ast.expr, scope: Scope) -> str | None:
    """Return the text of `", ".join(NAMES)`, where the names are in the source."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Constant(value=str(separator)), attr="join"), args=[ast.Name(id=name)]
        ) if len(values := scope.of(name)) == 1:
            items = values[0].keys if isinstance(values[0], ast.Dict) else getattr(values[0], "elts", [])
            if items and all(isinstance(item, ast.Constant) for item in items):
                return separator.join(str(item.value) for item in items)  # type: ignore[union-attr]
    return None


def _placeholder(node: ast.expr) -> str:
    """Return a word for a value that only a run knows."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").lower()
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if name in _FORMS:
            return _placeholder(first)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name.strip("_").lower()
        case ast.BoolOp(values=[inner, *_]) | ast.Subscript(value=inner) | ast.BinOp(left=inner):
            return _placeholder(inner)
        case ast.GeneratorExp(generators=[ast.comprehension(iter=inner)]):
            return _placeholder(inner)
        case _:
            return "…"
