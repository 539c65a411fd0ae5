"""The accounting: every row and every image of the data set, each counted once."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import SafetyFailure
from t2i_core.generation.interface import UNREAD_SHARE
from t2i_core.planning.catalog import ImageState

ROWS_SHOWN = 5
# A row is what the first of these is that one of its images is.
_WORST_FIRST = (ImageState.FAILED, ImageState.PENDING, ImageState.GENERATED, ImageState.REUSED)


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

    def add(self, rows: pa.RecordBatch, images: pa.RecordBatch) -> None:
        """Count some rows, and all of their images.

        `rows` has columns of `ROWS`; `images`, in the order of the rows, those of `images.parquet`.
        """
        numbers = rows["row"].to_numpy()
        rejected = rows["rejection"].is_valid().to_numpy(False)
        skipped = rows["has_images"].to_numpy(False) & ~rejected
        row_of = np.searchsorted(numbers, images["row"].to_numpy())
        self.rows += len(rows)
        self.rows_rejected += int(rejected.sum())
        self.rows_failed += int(rejected.sum())
        self.rows_skipped += int(skipped.sum())
        self.images += len(images)
        worst = np.full(len(rows), len(_WORST_FIRST))
        for rank, state in reversed(list(enumerate(_WORST_FIRST))):
            these = pc.equal(images["status"], state.value).to_numpy(False)
            self._count(f"images_{state}", int(these.sum()))
            worst[row_of[these]] = rank
        worst[worst == len(_WORST_FIRST)] = _WORST_FIRST.index(ImageState.REUSED)  # a row that asks for no image
        for rank, state in enumerate(_WORST_FIRST):
            self._count(f"rows_{state}", int(((worst == rank) & ~rejected & ~skipped).sum()))
        self.images_unsafe += pc.sum(pc.starts_with(images["error"], SafetyFailure.PREFIX)).as_py() or 0
        self._add_lengths(images, numbers[row_of])

    def _add_lengths(self, images: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> None:
        """Count the images whose prompt a text encoder cuts, and the prompts that one does not know."""
        lengths = images["prompt_lengths"]
        image_of = pc.list_parent_indices(lengths).to_numpy()
        encoders, cuts, shares = (pc.struct_field(lengths.flatten(), name) for name in ("encoder", "cut", "unread"))
        cut = np.unique(image_of[cuts.is_valid().to_numpy(False)])
        self.images_cut += len(cut)
        _note(self.rows_cut, rows[cut])
        unread = pc.fill_null(pc.greater(shares, UNREAD_SHARE), False)
        known = [*self.unread_by, *encoders.filter(unread).to_pylist()]
        self.unread_by = list(dict.fromkeys(known))
        which = np.unique(image_of[unread.to_numpy(False)])
        prompts = np.stack([rows[which], images["condition"].to_numpy()[which].astype(np.int64)])
        self.prompts_unread += np.unique(prompts, axis=1).shape[1]
        _note(self.rows_unread, rows[which])

    def _count(self, name: str, count: int) -> None:
        setattr(self, name, getattr(self, name) + count)


def _note(noted: list[int], rows: npt.NDArray[np.int64]) -> None:
    """Note the first of some rows: one more than is shown, which tells that there are more."""
    noted += np.unique(rows)[: max(0, ROWS_SHOWN + 1 - len(noted))].tolist()


def exceeds(failures: int, total: int, allowed: float) -> bool:
    """Return whether there are more failures than `allowed`: a count, or below 1 a share of `total`."""
    return failures > (allowed * total if 0 < allowed < 1 else allowed)
