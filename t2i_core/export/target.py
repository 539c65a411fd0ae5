"""The folder of an export: it holds the last one whole until the next one is whole.

An export is written into a hidden folder beside it, which then takes its place by two renames. A killed export leaves
the hidden folder, and the next one goes on there.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from t2i_core.errors import OutputError
from t2i_core.export.samples import ID, ID_DIGITS, Ids
from t2i_core.hashing import file_sha256
from t2i_core.storage.files import atomic_write, is_temporary, link_or_copy, write_text
from t2i_core.storage.keys import find

EXPORT = "export.json"
FORMAT_VERSION = 1
HIDDEN = ".t2i"
# In the hidden folder of an export: the mark by which a folder is known to be one, and what it was begun with.
_SETTINGS = f"{HIDDEN}/settings"
_IDS = f"{HIDDEN}/ids"
_IMAGES = (".png", ".webp", ".jpg", ".txt")
_OTHER = "choose another --to, or move it away"


@dataclass(frozen=True)
class Previous:
    """An export that lies in the folder."""

    folder: Path
    summary: Mapping[str, Any]

    @property
    def settings(self) -> str:
        """The digest of what its files depend on beside the images."""
        return str(self.summary["settings"])

    def holds(self, name: str) -> bool:
        """Return whether a file of this name is one of its images, or the text of one."""
        if not is_image(name):
            return False
        return self._ids is None or find(np.array([name.partition(".")[0].encode()], ID), self._ids)[0] >= 0

    @cached_property
    def _ids(self) -> Ids | None:
        """The ids of its samples, sorted; None where their file is gone."""
        try:
            return np.frombuffer((self.folder / _IDS).read_bytes(), ID)
        except FileNotFoundError:
            return None

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
            OutputError: if another export is writing here, if the folder cannot be written, or if there is one of its
                name that no export made.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            mark = self.staging / _SETTINGS
            self._check_old()
            if self.staging.exists() and not mark.exists():
                raise OutputError(f"to: {self.staging} is not an export's; {_OTHER}")
            if self.staging.exists() and mark.read_text(encoding="utf-8") != settings:
                shutil.rmtree(self.staging)
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

    def commit(self, summary: Mapping[str, Any], previous: Previous | None, ids: Ids) -> None:
        """Put the hidden folder into place, with `export.json` in it.

        Files of the user's in the folder move along. `ids`: those of the samples, by which image files are named.

        Raises:
            OutputError: if one of them has the name of a file of the new export.
        """
        files, images = {}, 0
        with atomic_write(self.staging / _IDS) as file:
            file.write(np.sort(ids).tobytes())
        for path in _files(self.staging):
            images += is_image(path.name)
            if not is_image(path.name):
                files[path.relative_to(self.staging).as_posix()] = _about(path)
        held = {**summary, "image_files": images, "files": files}
        write_text(self.staging / EXPORT, json.dumps(held, indent=1, ensure_ascii=False) + "\n")
        if previous is not None:
            self._keep_files_of_user(previous)
        self._remove_old()
        try:
            if self.folder.exists():
                self.folder.rename(self._old)
            self.staging.rename(self.folder)
        except OSError as error:
            raise OutputError(f"to: cannot replace {self.folder}: {error.strerror}; choose another --to") from None
        self._remove_old()

    def discard(self) -> None:
        """Remove the hidden folder of an export that was refused; one that is being written by another stays."""
        if self._lock.is_locked and (self.staging / _SETTINGS).exists():
            shutil.rmtree(self.staging, ignore_errors=True)

    def end(self) -> None:
        """Let other exports write here."""
        if self._lock.is_locked:
            self._lock.release()
            Path(self._lock.lock_file).unlink(missing_ok=True)

    def _remove_old(self) -> None:
        """Remove the earlier export, whole or what is left of it."""
        self._check_old()
        # What tells it from a folder of the user's goes last: a removal may be killed.
        for path in self._old.glob("*"):
            if path.is_dir() and path.name != HIDDEN:
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self._old, ignore_errors=True)

    def _check_old(self) -> None:
        """Refuse a folder under the name of the earlier export that is none.

        Raises:
            OutputError: naming it.
        """
        if not self._old.exists() or not any(self._old.iterdir()):
            return
        if read_export(self._old) is None and not (self._old / _SETTINGS).exists():
            raise OutputError(f"to: {self._old} is not an export's; {_OTHER}")

    def _keep_files_of_user(self, previous: Previous) -> None:
        for path in _files(previous.folder):
            name = path.relative_to(previous.folder).as_posix()
            if name in previous.summary["files"] or name == EXPORT or previous.holds(path.name):
                continue
            kept = self.staging / name
            if kept.exists():
                raise OutputError(f"to: {path} is not the export's, which now has a file of this name; {_OTHER}")
            kept.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, kept)


def is_image(name: str) -> bool:
    """Return whether a file name is that of an image of an export, or of its text.

    There may be a million of them: `export.json` says how many, and lists all other files.
    """
    stem, dot, suffix = name.partition(".")
    digits, _, number = stem.partition("-")
    is_id = len(digits) == ID_DIGITS and not digits.strip("0123456789abcdef") and (not number or number.isdigit())
    return is_id and dot + suffix in _IMAGES


def read_export(folder: Path) -> dict[str, Any] | None:
    """Return what the `export.json` of a folder says; None where there is none of ours."""
    try:
        summary = json.loads((folder / EXPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(summary, dict) and summary.get("text2image_export") == FORMAT_VERSION
    return summary if is_ours and isinstance(summary.get("files"), dict) else None


def is_whole(folder: Path, written: str) -> bool:
    """Return whether the export of this digest is in a folder, with all its files."""
    summary = read_export(folder)
    if summary is None or summary.get("written") != written:
        return False
    try:
        listed = all((folder / name).stat().st_size == about["bytes"] for name, about in summary["files"].items())
    except OSError:
        return False
    return listed and sum(is_image(path.name) for path in _files(folder)) >= summary["image_files"]


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent) / name


def _about(path: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"bytes": path.stat().st_size}
    # What people edit by hand; the others are told by their size.
    return about | {"sha256": file_sha256(path)} if path.suffix == ".md" else about
