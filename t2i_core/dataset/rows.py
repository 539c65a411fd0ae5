"""The values that the input is read into: rows, their prompts, and rejections of what cannot be used."""

from dataclasses import dataclass, field

from t2i_core.config import RowSettings


@dataclass(frozen=True, slots=True)
class Rejection:
    """The reason why a row or prompt cannot be used: field, value (cut short), what is wrong and what to do."""

    row: int
    line: int | None
    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        line = f"line {self.line}" if self.line is not None else f"row {self.row}"
        return f"{line}, {self.field}: {self.reason}" + (f" (got {self.value})" if self.value else "")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user message. `condition` is its index in the conversation; `text` is what the model gets."""

    condition: int
    text: str
    source_text: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input, counted from 0 over non-blank lines.

    json: the row as it came, as JSON text of one line; None where it is not a JSON object. A row has either prompts,
    or `has_images`, or a rejection. file: the file that holds it, where the data set has several; `line` is one of its
    lines.
    """

    index: int
    line: int | None
    json: str | None
    id: str | None = None
    prompts: tuple[Prompt, ...] = ()
    settings: RowSettings = field(default_factory=RowSettings)
    has_images: bool = False
    rejection: Rejection | None = None
    file: str | None = None
