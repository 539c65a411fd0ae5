"""What every writer of an export is given, and the shape that all of them have."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from t2i_core.export.assignment import Assigned
from t2i_core.export.images import Images
from t2i_core.export.placed import Placed
from t2i_core.export.questions import Questions
from t2i_core.export.samples import Sample
from t2i_core.export.survey import Survey


class Writer(Protocol):
    """Writes the samples of an export, which come in data-set order."""

    def write(self, sample: Sample) -> None:
        """Take a sample."""

    def close(self) -> None:
        """Write what is still to be written."""


@dataclass(frozen=True, slots=True)
class Job:
    """An export that is being written.

    Args:
        folder: an empty folder, whose content becomes the export's.
        assigned: where the samples go, in a format with shards.
        placed: where image files are, in a format that names files.
        questions: what is asked of the picture, in a format that asks.
    """

    folder: Path
    survey: Survey
    images: Images
    assigned: Assigned | None = None
    placed: Placed | None = None
    questions: Questions | None = None
    opened: ExitStack = field(default_factory=ExitStack)  # closes what is open if the export is not finished

    def split_folder(self, split: int) -> Path:
        """Return the folder of a split, which is there then."""
        folder = self.folder / self.survey.splits.names[split]
        folder.mkdir(parents=True, exist_ok=True)
        return folder
