"""The user's own function as a scorer: images in, numbers out."""

import ast
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from t2i_core.errors import ConfigError, shorten
from t2i_core.hashing import digest
from t2i_core.models.prepare import find_source, load_function, prepare_digest
from t2i_core.scoring.interface import Columns, Score, ScoredImage


class UserFunction:
    """A function of images, or of images and prompts, that returns a score for each.

    It gets a list of Pillow images in RGB, and where it takes two arguments, a list of their prompts. It returns a list
    of numbers, texts or None, which becomes the column `score_<function>`; or a dict of such lists, which become the
    columns `score_<function>_<key>`. Its version is the hash of its source file.
    """

    def __init__(self, reference: str) -> None:
        """`reference`: module:function or file.py:function. The module is not imported yet.

        Raises:
            ConfigError: for a function that cannot be found, or takes other arguments.
        """
        self._reference = reference
        self.name = reference.rpartition(":")[2]
        self._sha256 = prepare_digest(reference, "score")
        self.version = digest(["function", self.name, self._sha256])
        self.reads_prompt = _arguments(reference) == 2
        self._function: Callable[..., Any] | None = None

    def score(self, images: Sequence[ScoredImage]) -> Columns:
        """Return what the function returns, as columns.

        Raises:
            ConfigError: where it cannot be imported, or returns something else.
        """
        arguments: list[list[Any]] = [[Image.fromarray(image.pixels) for image in images]]
        if self.reads_prompt:
            arguments.append([image.prompt for image in images])
        result = self._loaded()(*arguments)
        columns = result if isinstance(result, Mapping) else {"": result}
        return {self._column(key): self._values(values, len(images)) for key, values in columns.items()}

    def _loaded(self) -> Callable[..., Any]:
        if self._function is None:
            try:
                self._function = load_function(self._reference, self._sha256, "score")
            except ConfigError:
                raise
            except Exception as error:  # whatever the user's module raises
                raise self._wrong(f"cannot be imported: {type(error).__name__}: {error}") from error
        return self._function

    def _column(self, key: object) -> str:
        name = f"score_{self.name}" + (f"_{key}" if key != "" else "")
        if not name.isidentifier():
            raise self._wrong(f"returns a column {shorten(key)}; use letters, digits and underscores")
        return name

    def _values(self, values: Any, count: int) -> list[Score]:
        if (not inspect.isgenerator(values) and not hasattr(values, "__len__")) or isinstance(values, str):
            raise self._wrong(f"returns {shorten(values)}; return a list with a score for each image")
        scores = [_score(value) for value in values]
        if len(scores) != count:
            raise self._wrong(f"returns {len(scores)} scores for {count} images; return one for each, or None")
        return scores

    def _wrong(self, problem: str) -> ConfigError:
        return ConfigError([f"score: {self._reference} {problem}"])


def _score(value: Any) -> Score:
    """Return a score in a type that a column has: whole numbers become floats, for another batch may have fractions."""
    if hasattr(value, "item"):  # of NumPy or torch
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{shorten(value)} is no number, text, true or false, nor None")


def _arguments(reference: str) -> int:
    """Return how many arguments a function takes, 1 or 2, read from its source."""
    module, _, name = reference.rpartition(":")
    source = ast.parse(find_source(module, "score").read_bytes())
    functions = (node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == name)
    arguments = next(functions).args
    needed = len(arguments.posonlyargs + arguments.args) - len(arguments.defaults)
    if needed not in (1, 2):
        raise ConfigError([f"score: {reference} takes {needed} arguments; it gets images, or images and prompts"])
    return needed
