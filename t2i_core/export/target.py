"""The folder of an export: it holds the last one whole until the next one is whole.

An export is written into a hidden folder beside it, which then takes its place by two renames. A killed export leaves
the hidden folder, and the next one goes on there.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from t2i_core.errors import OutputError
from t2i_core.export.placed import link_or_copy
from t2i_core.hashing import file_sha256
from t2i_core.storage.files import is_temporary, write_text

EXPORT = "export.json"
FORMAT_VERSION = 1
_SETTINGS = "settings"
_OTHER = "choose another --to, or move it away"


@dataclass(frozen=True, slots=True)
class Previous:
    """An export that lies in the folder."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def settings(self) -> str:
        """The digest of what its files depend on beside the images."""
        return str(self.summary["settings"])

    def shards(self) -> dict[str, Path]:
        """Return digest -> path without suffix of each shard that is there with all its files."""
        files: dict[str, list[Path]] = {name.partition(".")[0]: [] for name in self.summary["files"]}
        for name in self.summary["files"]:
            files[name.partition(".")[0]].append(self.folder / name)
        return {
            shard["digest"]: self.folder / shard["path"]
            for shard in self.summary["shards"]
            if all(path.is_file() for path in files[shard["path"]])
        }


class Target:
    """The folder of an export, and the hidden folder in which the next one is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))  # noqa: PTH100 - links are not followed
        self.staging = self.folder.with_name(f".{self.folder.name}.partial")
        self._old = self.folder.with_name(f".{self.folder.name}.old")
        self._lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock"), timeout=0)

    def previous(self) -> Previous | None:
        """Return the export in the folder; None for a new or empty folder.

        Raises:
            OutputError: if files are there that no export wrote, or if one of its own was changed since.
        """
        if not self.folder.exists() and self._old.exists():  # killed between the renames
            self._old.rename(self.folder)
        if not self.folder.exists():
            return None
        if not self.folder.is_dir():
            raise OutputError(f"to: {self.folder} is a file; name a folder")
        found = read_export(self.folder)
        if found is None:
            others = sorted(path.name for path in self.folder.iterdir())
            if others:
                raise OutputError(f"to: {self.folder} holds {others[0]} and no export; name a new or empty folder")
            return None
        for name, about in found["files"].items():
            path = self.folder / name
            if path.exists() and path.stat().st_size != about["bytes"]:
                raise OutputError(f"to: {path} was changed since the export; {_OTHER}")
            if path.exists() and "sha256" in about and file_sha256(path) != about["sha256"]:
                raise OutputError(f"to: {path} was changed since the export; {_OTHER}")
        return Previous(self.folder, found)

    def begin(self, settings: str) -> None:
        """Make the hidden folder. What a killed export left there stays if its settings were the same.

        Raises:
            OutputError: if another export is writing here, or if the folder cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            mark = self.staging / _SETTINGS
            if self.staging.exists() and (not mark.exists() or mark.read_text(encoding="utf-8") != settings):
                shutil.rmtree(self.staging)
            self.staging.mkdir(exist_ok=True)
            for path in _files(self.staging):
                if is_temporary(path.name):
                    path.unlink()
            write_text(mark, settings)
        except Timeout:
            raise OutputError(f"to: another export is being written to {self.folder}; wait for it") from None
        except OSError as error:
            raise OutputError(
                f"to: cannot write to {self.folder.parent}: {error.strerror}; choose another --to"
            ) from None

    def commit(self, summary: Mapping[str, Any], previous: Previous | None, ours: "Ours") -> None:
        """Put the hidden folder into place, with `export.json` in it.

        Files of the user's in the folder move along.

        Raises:
            OutputError: if one of them has the name of a file of the new export.
        """
        (self.staging / _SETTINGS).unlink()
        files = {path.relative_to(self.staging).as_posix(): _about(path) for path in ours.listed(self.staging)}
        write_text(self.staging / EXPORT, json.dumps({**summary, "files": files}, indent=1, ensure_ascii=False) + "\n")
        if previous is not None:
            self._keep_files_of_user(previous, ours)
            shutil.rmtree(self._old, ignore_errors=True)
        try:
            if self.folder.exists():
                self.folder.rename(self._old)
            self.staging.rename(self.folder)
        except OSError as error:
            raise OutputError(f"to: cannot replace {self.folder}: {error.strerror}; choose another --to") from None
        shutil.rmtree(self._old, ignore_errors=True)

    def discard(self) -> None:
        """Remove the hidden folder of an export that was refused; one that is being written by another stays."""
        if self._lock.is_locked:
            shutil.rmtree(self.staging, ignore_errors=True)

    def end(self) -> None:
        """Let other exports write here."""
        if self._lock.is_locked:
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _keep_files_of_user(self, previous: Previous, ours: "Ours") -> None:
        for path in _files(previous.folder):
            name = path.relative_to(previous.folder).as_posix()
            if name in previous.summary["files"] or name == EXPORT or ours.is_image(name):
                continue
            kept = self.staging / name
            if kept.exists():
                raise OutputError(f"to: {path} is not the export's, which now has a file of this name; {_OTHER}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, kept)


@dataclass(frozen=True, slots=True)
class Ours:
    """Which files are an export's own.

    Image files go by their names, for there may be a million; all others are listed in `export.json`.
    """

    suffixes: tuple[str, ...]  # of files that are named by an id

    def is_image(self, name: str) -> bool:
        """Return whether a path in an export is that of an image, or of its text."""
        stem, dot, suffix = name.rpartition("/")[2].partition(".")
        digits, _, number = stem.partition("-")
        is_id = len(digits) == 32 and not digits.strip("0123456789abcdef") and (not number or number.isdigit())
        return is_id and dot + suffix in self.suffixes

    def listed(self, folder: Path) -> Iterator[Path]:
        """Yield the files that `export.json` lists."""
        for path in _files(folder):
            if not self.is_image(path.name) and not is_temporary(path.name):
                yield path


def read_export(folder: Path) -> dict[str, Any] | None:
    """Return what the `export.json` of a folder says; None where there is none of ours."""
    try:
        summary = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(summary, dict) and summary.get("text2image_export") == FORMAT_VERSION
    return summary if is_ours and isinstance(summary.get("files"), dict) else None


def is_whole(folder: Path, written: str) -> bool:
    """Return whether the export of this digest is in a folder, with all the files that its `export.json` lists."""
    summary = read_export(folder)
    if summary is None or summary.get("written") != written:
        return False
    try:
        return all((folder / name).stat().st_size == about["bytes"] for name, about in summary["files"].items())
    except OSError:
        return False


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent) / name


def _about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"bytes": path.stat().st_size}
    # What people edit by hand; the others are told by their size.
    return about | {"sha256": file_sha256(path)} if path.suffix == ".md" else about
