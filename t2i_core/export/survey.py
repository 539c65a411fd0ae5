"""The first look at the images of an export: which it holds, in which split, and of which kinds its columns are."""

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t2i_core.dataset.columns import find
from t2i_core.errors import ConfigError, OutputError, listed
from t2i_core.export.columns import Columns
from t2i_core.export.formats import Format
from t2i_core.export.kinds import readable
from t2i_core.export.samples import ID, ID_DIGITS, Candidate, Candidates, Sample
from t2i_core.export.splits import Splits
from t2i_core.json_values import json_text
from t2i_core.output.selection import Choice
from t2i_core.planning.catalog import CatalogImage, ImageState
from t2i_core.storage.keys import KEY

DIGEST_BYTES = 16
SETTINGS_SHOWN = 5
Drop = Callable[[CatalogImage, str], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """Which images an export holds, in columns of equal length in data-set order, and what it is made of."""

    columns: Columns
    splits: Splits
    index: npt.NDArray[np.int64]  # of the image in the data set
    split: npt.NDArray[np.int8]
    ids: npt.NDArray[np.bytes_]
    digests: npt.NDArray[np.bytes_]  # of everything that is exported of an image
    leading: frozenset[int]  # positions of the samples that are first to have a value somewhere
    total: int  # images of the data set
    dropped: Counter[str]  # reason -> images
    settings: Mapping[str, Counter[str]]  # what images were made with: name -> value -> images

    def generation(self) -> dict[str, str]:
        """Return what the images were made with: each value, with how many images where there are several."""
        result = {}
        for name, values in self.settings.items():
            common = values.most_common(SETTINGS_SHOWN)
            more = f" and {len(values) - len(common)} more" if len(values) > len(common) else ""
            result[name] = (
                common[0][0] if len(values) == 1 else ", ".join(f"{value} ({n})" for value, n in common) + more
            )
        return result

    def per_split(self) -> dict[str, int]:
        """Return name of a split -> its images."""
        counts = np.bincount(self.split, minlength=len(self.splits.names))
        return dict(zip(self.splits.names, counts.tolist(), strict=True))


class Surveyor:
    """Looks at every image once, and tells which are left out and why.

    Args:
        choice: which images are wanted; None: all.
        caption: the column whose text takes the prompt's place.
        drop: called with each image that is left out.
    """

    def __init__(
        self,
        candidates: Candidates,
        form: Format,
        splits: Splits,
        caption: str | None,
        choice: Choice | None = None,
        drop: Drop = lambda image, reason: None,
    ) -> None:
        self.candidates, self.form, self.splits, self.caption = candidates, form, splits, caption
        self._choice, self._drop = choice, drop

    def survey(self) -> Survey:
        """Look at all images.

        Raises:
            ConfigError: if no row has the column of captions.
            OutputError: if no image is left.
        """
        columns = Columns(self.candidates.own_columns(self.form.text_column), len(self.splits.names))
        index, split, keys, digests = array("q"), array("b"), bytearray(), bytearray()
        leading, dropped, total = set(), Counter[str](), 0
        settings: dict[str, Counter[str]] = defaultdict(Counter)
        for candidate in self.candidates.read():
            total += 1
            text, why = self._text(candidate)
            if why:
                dropped[why] += 1
                self._drop(candidate.image, why)
                continue
            number = self.splits.of(candidate.prompt)
            own = candidate.own(self.form.text_column, text)
            if columns.see(own, candidate.row, number):
                leading.add(len(index))
            index.append(candidate.index)
            split.append(number)
            keys += str(candidate.image.picture).encode()
            digests += _digest([own, candidate.row, candidate.image.facts["pixels_sha256"]])
            for name, value in candidate.settings():
                settings[name][value] += 1
        if not index:
            self._refuse_empty(columns, dropped)
        columns.settle(self.form.reserved)
        return Survey(
            columns=columns,
            splits=self.splits,
            index=np.frombuffer(index, np.int64),
            split=np.frombuffer(split, np.int8),
            ids=_ids(np.frombuffer(keys, KEY)),
            digests=np.frombuffer(digests, f"S{2 * DIGEST_BYTES}"),
            leading=frozenset(leading),
            total=total,
            dropped=dropped,
            settings=settings,
        )

    def samples(self, survey: Survey, wanted: npt.NDArray[np.bool_] | None = None) -> Iterator[Sample]:
        """Yield the samples of a survey in data-set order; with `wanted`, those whose position it marks."""
        positions = np.arange(len(survey.index)) if wanted is None else np.flatnonzero(wanted)
        only = np.zeros(survey.total, bool)
        only[survey.index[positions]] = True
        for position, candidate in zip(positions.tolist(), self.candidates.read(only), strict=True):
            text, _ = self._text(candidate)
            yield Sample(
                id=survey.ids[position].decode(),
                key=str(candidate.image.picture),
                split=int(survey.split[position]),
                position=position,
                text=readable(text),
                values=survey.columns.row(candidate.own(self.form.text_column, text), candidate.row),
            )

    def _text(self, candidate: Candidate) -> tuple[str, str]:
        """Return the text of an image, and why it is left out; one of the two is empty."""
        image = candidate.image
        if image.picture is None:
            return "", "failed" if image.state is ImageState.FAILED else "not made yet"
        if self._choice is not None and (why := self._choice.reason(candidate.index)):
            return "", why
        text: Any = image.arguments["prompt"]
        if self.caption is not None:
            _, text = find(candidate.row, self.caption, is_table=False)
            if not isinstance(text, str) or not text.strip():
                return "", f"no text in the column {self.caption}"
        for mark in self.form.marks:
            if mark in text:
                return "", f"its text holds {mark}, which stands for a picture there"
        return text, ""

    def _refuse_empty(self, columns: Columns, dropped: Counter[str]) -> None:
        missing = f"no text in the column {self.caption}"
        if dropped[missing]:
            row = next(candidate.row for candidate in self.candidates.read())
            raise ConfigError(
                [f"caption: no image has a text in the column {self.caption}; rows have {listed(row, 8)}"]
            )
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
        raise OutputError(f"output: no image is left to export ({reasons or 'the data set asks for none'})")


def _digest(content: list[Any]) -> bytes:
    return hashlib.blake2b(json_text(content).encode(), digest_size=DIGEST_BYTES).hexdigest().encode()


def _ids(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.bytes_]:
    """Return an id for each key: its first digits, and a number where rows share an image."""
    ids = keys.astype(f"S{ID_DIGITS}").astype(ID)
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(ids)))
    seen: Counter[bytes] = Counter()
    for position in again.tolist():
        seen[ids[position]] += 1
        ids[position] = ids[position] + b"-%d" % seen[ids[position]]
    return ids
