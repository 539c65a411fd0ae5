"""Data sets on the Hugging Face hub: `hf:name[:config]:split`."""

import hashlib
import os
from dataclasses import dataclass, replace
from typing import ClassVar

from t2i_core.dataset.binary_columns import BinaryColumns
from t2i_core.dataset.reading import Notes, Readings, short
from t2i_core.errors import DatasetError
from t2i_core.json_values import json_text, plain


@dataclass(frozen=True, slots=True)
class HubSplit:
    """One split of a data set on the hub; `name` is how the user wrote it. `commit`: that to read; None: the newest."""

    format: ClassVar = "hub"

    name: str
    repository: str
    config: str | None
    split: str
    commit: str | None = None

    @classmethod
    def parse(cls, name: str) -> "HubSplit":
        """Return the split that `hf:name[:config]:split` names.

        Raises:
            DatasetError: for another form, and for a path on this machine.
        """
        parts = name.removeprefix("hf:").split(":")
        if len(parts) not in (2, 3) or not all(part.strip() for part in parts) or "[" in name:
            hint = "; for a part of a split use --limit" if "[" in name else ""
            raise DatasetError(f"{name}: write hf:name:split or hf:name:config:split{hint}")
        if parts[0].startswith("~") or os.path.exists(parts[0]):  # noqa: PTH110 - False for what can be no path
            raise DatasetError(
                f"{name}: {parts[0]} is on this disk, and hf: is for hub data sets; give the file itself"
            )
        return cls(name, parts[0], parts[1] if len(parts) == 3 else None, parts[-1])

    def hashed(self) -> "HubSplit":
        """Return the same split at the commit that the hub names today; where it does not answer, at none."""
        return replace(self, commit=self._commit())

    def refuse_changed(self) -> None:
        """Do nothing: what a commit holds never changes."""

    def digest(self) -> str:
        """Return the SHA-256 of name, config, split and commit."""
        identity = [self.repository, self.config, self.split, self.commit]
        return hashlib.sha256(json_text(identity).encode()).hexdigest()

    def _commit(self) -> str | None:
        from huggingface_hub import HfApi

        try:
            return HfApi().dataset_info(self.repository, timeout=30).sha
        except (OSError, ValueError):  # offline, or no such data set: then reading it says so
            return None


def check_datasets_package(split: HubSplit) -> None:
    """Refuse a data set on the hub where the package that reads it is missing.

    Raises:
        DatasetError: with the line that installs it.
    """
    try:
        import datasets
    except ImportError:
        raise DatasetError(f"{split.name}: needs the datasets package; pip install 'text2image[hf]'") from None
    datasets.disable_progress_bars()


def read_hub(split: HubSplit, notes: Notes) -> Readings:
    """Yield the rows of a split as a stream."""
    import datasets

    binary = BinaryColumns(split.name, notes)
    try:
        pinned = {} if split.commit is None else {"revision": split.commit}
        stream = datasets.load_dataset(split.repository, split.config, split=split.split, streaming=True, **pinned)
        for value in stream.decode(False):  # pictures stay undecoded
            yield None, plain(binary.without(value)), None, ""
    except Exception as error:  # the library retries by itself and raises what its many back ends raise
        fix = "check name, config, split and network"
        raise DatasetError(f"{split.name}: {type(error).__name__}: {short(error)}; {fix}") from error
