"""Questions about a picture, for a trainer of understanding: the picture and a question go in, the text comes out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from t2i_core.errors import ConfigError, listed, shorten
from t2i_core.hashing import derive_seed
from t2i_core.json_values import json_text
from t2i_core.local_paths import is_file, similar_name

_COLUMN = re.compile(r"\{([^{}]+)\}")
PICTURE = "<image>"
# What stands for a picture, a video or a sound in the text of a trainer.
MARKS = (PICTURE, "<video>", "<audio>")
_MARK = re.compile("|".join(MARKS))


@dataclass(frozen=True, slots=True)
class Questions:
    """Texts of which each sample gets one, always the same. `{name}` in a text stands for a column of its row."""

    texts: tuple[str, ...]

    @classmethod
    def read(cls, name: str) -> Self:
        """Return the questions of a text file, one a line; blank lines and lines that begin with # are left out.

        Raises:
            ConfigError: for a file that cannot be read or has no question.
        """
        path = Path(name)
        try:
            if not is_file(path):
                raise ValueError(f"does not exist; name a text file with a question a line{similar_name(path)}")
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError([f"questions: {shorten(name)} {error}"]) from None
        texts = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
        if not texts:
            raise ConfigError([f"questions: {name} has no question; write one a line"])
        for text in texts:
            if PICTURE in text:
                raise ConfigError(
                    [f"questions: the picture comes before each question; remove {PICTURE} from {text!r}"]
                )
        return cls(texts)

    def check(self, columns: Mapping[str, object]) -> None:
        """Refuse a question that names a column that the export does not have.

        Raises:
            ConfigError: naming the column and those that there are.
        """
        for text in self.texts:
            for name in _COLUMN.findall(text):
                if name not in columns:
                    raise ConfigError([f"questions: no column {name} in {text!r}; there are {listed(columns, 20)}"])

    def of(self, sample_id: str, values: Mapping[str, Any]) -> str:
        """Return the question of a sample."""
        text = self.texts[derive_seed("question", sample_id) % len(self.texts)]
        return _COLUMN.sub(lambda found: _as_text(values[found[1]]), text)


# Where no file of questions was named: all ask for a description and nothing else.
DESCRIBE = Questions(
    (
        "Describe the image.",
        "What is in this picture?",
        "Write a caption for this image.",
        "Describe what you see in the picture.",
        "Give a description of the image.",
    )
)


def _as_text(value: Any) -> str:
    """Return a value of a column as a question has it: without what would stand for a picture."""
    if value is None:
        return ""
    return _MARK.sub("", value if isinstance(value, str) else json_text(value))
