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
    return list(dict.fromkeys(islice(_texts(node, scope, depth=0), ALTERNATIVES)))


def has_words(template: str) -> bool:
    """Return whether a template says something of itself, beside its placeholders."""
    inside = 0
    for char in template:
        inside += (char == "‹") - (char == "›")
        if not inside and char.isalpha():
            return True
    return False


def _texts(node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
    if isinstance(node, ast.Constant):
        yield str(node.value)
    elif isinstance(node, ast.JoinedStr):
        parts = [_several(value, scope, depth) for value in node.values]
        yield from map("".join, product(*parts))
    elif isinstance(node, ast.FormattedValue):
        yield from _texts(node.value, scope, depth)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body, scope, depth)
        yield from _texts(node.orelse, scope, depth)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        yield from map("".join, product(_several(node.left, scope, depth), _several(node.right, scope, depth)))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and isinstance(node.left, ast.Constant):
        yield from _texts(node.left, scope, depth)
        yield ""
    elif isinstance(node, ast.Name) and depth < 3 and _says_something(scope.of(node.id)):
        for value in scope.of(node.id):
            yield from _texts(value, scope, depth + 1)
    else:
        yield f"‹{_placeholder(node)}›"


def _several(node: ast.expr, scope: Scope, depth: int) -> list[str]:
    return list(dict.fromkeys(islice(_texts(node, scope, depth), ALTERNATIVES)))


def _says_something(values: list[ast.expr]) -> bool:
    """Return whether all values are texts in the source."""
    return 0 < len(values) <= ALTERNATIVES and all(_is_text(value) for value in values)


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    if isinstance(node, ast.BinOp):
        return _is_text(node.left)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _placeholder(node: ast.expr) -> str:
    """Return a word for a value that only a run knows."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if name in _FORMS:
            return _placeholder(first)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name.strip("_")
        case ast.BoolOp(values=[inner, *_]) | ast.Subscript(value=inner) | ast.BinOp(left=inner):
            return _placeholder(inner)
        case ast.GeneratorExp(generators=[ast.comprehension(iter=inner)]):
            return _placeholder(inner)
        case _:
            return "…"
