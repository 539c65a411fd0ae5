"""A condition on the columns of `images.parquet`, as pandas' `query` takes it: `score_clip > 0.28 and not duplicate`.

pandas would run any method of a column, and with `@` any Python object: only comparisons, arithmetic, and methods that
look at values are let through.
"""

import ast
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from t2i_core.errors import ConfigError, shorten

_METHODS = {"isna", "isnull", "notna", "notnull", "isin", "between", "abs", "round"}
_TEXT_METHODS = {"contains", "startswith", "endswith", "match", "fullmatch", "len", "lower", "upper", "strip"}
_NODES = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
    *(ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Call, ast.Attribute, ast.keyword),
)
# With a value for "not known", in the place of NaN and None, which would compare as false.
_PANDAS_TYPES = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.float32(): pd.Float32Dtype(),
    pa.float64(): pd.Float64Dtype(),
    pa.string(): pd.StringDtype(),
}


class Condition:
    """A condition that was checked against the columns that there are. `columns`: those that it names."""

    def __init__(self, text: str, known: Collection[str]) -> None:
        """Check a condition; `known` are the columns of the table.

        Raises:
            ConfigError: for what is no condition, and for a column that is not there.
        """
        self._text = " ".join(text.split())
        try:
            tree = ast.parse(self._text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error)
            raise self._wrong(f"is no condition ({reason}); write for example score_sharpness > 5") from None
        for node in ast.walk(tree):
            self._check(node)
        functions = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        names = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in functions)
        self.columns = list(dict.fromkeys(names))
        if not self.columns:
            raise self._wrong("names no column; write for example score_sharpness > 5")
        for name in self.columns:
            check_column("where", name, known)

    def holds(self, chunk: pa.RecordBatch) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return for each row whether the condition holds, and whether that is known: a column may have no value.

        Raises:
            ConfigError: where values cannot be compared in this way, or the result is neither true nor false.
        """
        frame = chunk.select(self.columns).to_pandas(types_mapper=_PANDAS_TYPES.get)
        try:
            result: Any = frame.eval(self._text, engine="python", local_dict={}, global_dict={})
        except Exception as error:  # pandas raises whatever its operators raise
            raise self._wrong(f"cannot be evaluated: {' '.join(str(error).split())}") from None
        if not isinstance(result, pd.Series) or not pd.api.types.is_bool_dtype(result.dtype):
            raise self._wrong("is not true or false for an image; compare a column with a value")
        known = result.notna().to_numpy(bool)
        return result.fillna(False).to_numpy(bool), known

    def _check(self, node: ast.AST) -> None:
        if not isinstance(node, _NODES):
            raise self._wrong(f"holds {type(node).__name__}; only comparisons, arithmetic, and, or, not are allowed")
        if isinstance(node, ast.Constant) and not isinstance(node.value, str | int | float):
            raise self._wrong(f"compares with {node.value!r}; write COLUMN.isna() where a column has no value")
        if isinstance(node, ast.Attribute):
            of_text = isinstance(node.value, ast.Attribute) and node.value.attr == "str"
            if node.attr not in (_TEXT_METHODS if of_text else {*_METHODS, "str"}):
                methods = ", ".join(sorted(_METHODS) + [f"str.{name}" for name in sorted(_TEXT_METHODS)])
                raise self._wrong(f"calls {node.attr}; there are {methods}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id != "abs":
            raise self._wrong(f"calls {node.func.id}; write COLUMN.METHOD(...)")

    def _wrong(self, problem: str) -> ConfigError:
        return ConfigError([f"where: {shorten(self._text)} {problem}"])


def check_column(option: str, name: str, known: Collection[str]) -> None:
    """Refuse a column that the table does not have.

    Raises:
        ConfigError: naming the option, and the scores that there are.
    """
    if name in known:
        return
    scores = sorted(column for column in known if column.startswith("score_") or column.startswith("duplicate"))
    there = f"there are {', '.join(scores)}, and what docs/architecture.md lists" if scores else "none was scored yet"
    raise ConfigError(
        [f"{option}: images.parquet has no column {name} ({there}); score the images first: python -m flows.score"]
    )
