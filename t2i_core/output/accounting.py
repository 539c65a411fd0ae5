"""The accounting: every row and every image of the data set, each counted once."""

from dataclasses import dataclass, field, replace

from t2i_core.errors import SafetyFailure
from t2i_core.generation.interface import is_unread
from t2i_core.planning.catalog import CatalogImage, CatalogRow, ImageState

ROWS_SHOWN = 5
# A row is what the first of these is that one of its images is.
_WORST_FIRST = (ImageState.FAILED, ImageState.PENDING, ImageState.GENERATED, ImageState.REUSED)
# What `Accounting.add` needs to know of an image's record.
ACCOUNTING_FACTS = ("prompt_lengths",)


@dataclass(slots=True)
class Accounting:
    """Totals: rows = generated + reused + skipped + failed + pending, and the same for images, which are never skipped.

    `pending` is what an interrupted run did not come to; it is 0 for a finished run. A row counts as failed if any of
    its images failed, else as pending, else as generated if any image was made in this run.
    """

    rows: int = 0
    rows_generated: int = 0
    rows_reused: int = 0
    rows_skipped: int = 0
    rows_failed: int = 0
    rows_pending: int = 0
    images: int = 0
    images_generated: int = 0
    images_reused: int = 0
    images_failed: int = 0
    images_pending: int = 0

    rows_rejected: int = 0  # part of rows_failed
    images_unsafe: int = 0  # part of images_failed: the model's safety checker replaced the image or refused the prompt
    images_cut: int = 0  # part of images: the prompt is longer than a text encoder takes
    rows_cut: list[int] = field(default_factory=list)  # the first few rows with such an image
    prompts_unread: int = 0  # a text encoder does not know more than a third of it
    rows_unread: list[int] = field(default_factory=list)  # the first few rows with such a prompt
    unread_by: list[str] = field(default_factory=list)  # the classes of those encoders

    @property
    def failures(self) -> int:
        """The number that `max_failures` bounds: failed images and rejected rows."""
        return self.images_failed + self.rows_rejected

    @property
    def images_present(self) -> int:
        """The number of images that have a picture."""
        return self.images - self.images_failed - self.images_pending

    def too_many_failures(self, allowed: float) -> bool:
        """Return whether there are more failures than `max_failures` allows."""
        return exceeds(self.failures, self.images + self.rows_rejected, allowed)

    def all_reused(self) -> "Accounting":
        """Return the accounting of a later run that made nothing."""
        return replace(
            self,
            rows_generated=0,
            rows_reused=self.rows_generated + self.rows_reused,
            images_generated=0,
            images_reused=self.images_generated + self.images_reused,
        )

    def add(self, row: CatalogRow) -> None:
        """Count a row and its images, whose facts must hold `ACCOUNTING_FACTS`."""
        self.rows += 1
        if row.rejection is not None:
            self.rows_failed += 1
            self.rows_rejected += 1
            return
        if row.has_images:
            self.rows_skipped += 1
            return
        states = [image.state for image in row.images]
        for state in states:
            self.images += 1
            self._count(f"images_{state}")
        self.images_unsafe += sum((image.error or "").startswith(SafetyFailure.PREFIX) for image in row.images)
        self._count(f"rows_{next((state for state in _WORST_FIRST if state in states), ImageState.REUSED)}")
        if cut := sum(map(_is_cut, row.images)):
            self.images_cut += cut
            if len(self.rows_cut) <= ROWS_SHOWN:  # one more than is shown tells that there are more
                self.rows_cut.append(row.row)
        self._add_unread(row)

    def _add_unread(self, row: CatalogRow) -> None:
        by_prompt = {image.condition: encoders for image in row.images if (encoders := _unread_by(image))}
        self.prompts_unread += len(by_prompt)
        for encoders in by_prompt.values():
            self.unread_by += [name for name in encoders if name not in self.unread_by]
        if by_prompt and len(self.rows_unread) <= ROWS_SHOWN:
            self.rows_unread.append(row.row)

    def _count(self, name: str) -> None:
        setattr(self, name, getattr(self, name) + 1)


def exceeds(failures: int, total: int, allowed: float) -> bool:
    """Return whether there are more failures than `allowed`: a count, or below 1 a share of `total`."""
    return failures > (allowed * total if 0 < allowed < 1 else allowed)


def _is_cut(image: CatalogImage) -> bool:
    """Return whether a text encoder did not see all of the image's prompt."""
    return any(length["cut"] is not None for length in image.facts.get("prompt_lengths") or ())


def _unread_by(image: CatalogImage) -> list[str]:
    """Return the classes of the text encoders that do not know the image's prompt. Earlier versions did not count."""
    lengths = image.facts.get("prompt_lengths") or ()
    return [length["encoder"] for length in lengths if is_unread(length.get("unread"))]
