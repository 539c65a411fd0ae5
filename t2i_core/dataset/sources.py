"""What a data set consists of: its files, or splits on the hub, found and checked; and what it is known by."""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from t2i_core.bundled import EXAMPLE_FILE
from t2i_core.dataset.data_file import PACKINGS, DataFile, cannot_be_read, file_system_of, remote_error
from t2i_core.dataset.hub import HubSplit, check_datasets_package
from t2i_core.errors import DatasetError, UserError, shorten
from t2i_core.local_paths import is_file, is_folder, is_url, similar_name
from t2i_core.options.values import EXAMPLE

# Suffix of a file's name -> its format.
FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "txt",
}
TEXT_FORMATS = ("jsonl", "json", "csv", "tsv", "txt")
PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".ckpt", ".joblib", ".dill")
WORKS = f"give a {' '.join(FORMATS)} file (text also {' '.join(f'.{packing}' for packing in PACKINGS)})"

PROMPT = "if it is a prompt, write it into a .txt file, one prompt a line, and give that"

Part = DataFile | HubSplit


@dataclass(frozen=True, slots=True)
class Parts:
    """The files or splits of a data set, in order; and the files beside them in a folder that are not read.

    row_files: for each part the name that its rows bear; None where the data set is one file, and named so.
    """

    parts: tuple[Part, ...]
    unread: tuple[str, ...] = ()
    row_files: tuple[str | None, ...] = ()


def find_parts(dataset: str | Sequence[str]) -> Parts:
    """Return what a data set consists of: one or several names of files, folders, globs, URLs, or splits on the hub.

    The files of a folder or glob are sorted by name.

    Raises:
        DatasetError: for what does not exist, has no known format or more than one, or is there twice.
    """
    found = [_parts_of(name) for name in ([dataset] if isinstance(dataset, str) else dataset)]
    parts = tuple(part for one in found for part in one.parts)
    by_format: dict[str, str] = {}
    for part in parts:
        by_format.setdefault(part.format, part.name)
    if len(by_format) > 1:
        examples = " and ".join(by_format.values())
        raise DatasetError(f"dataset: has files of several formats, such as {examples}; give those of one format")
    seen: dict[str, str] = {}
    for part in parts:
        same = part.name
        if isinstance(part, DataFile) and not is_url(part.location):
            same = os.path.realpath(part.location)
        if same in seen:
            twice = part.name if seen[same] == part.name else f"{part.name} (the same file as {seen[same]})"
            raise DatasetError(f"dataset: {twice} is there twice, so its rows would count twice; name it once")
        seen[same] = part.name
    names = [part.name for part in parts]
    unread = tuple(name for one in found for name in one.unread)
    return Parts(parts, unread, (None,) if names == [dataset] else tuple(names))


def check_dataset(dataset: str | Sequence[str]) -> None:
    """Refuse a data set that cannot be read, as far as that shows without network.

    Raises:
        DatasetError: as `find_parts`, for a file that cannot be opened, and where the package that reads it is missing.
    """
    names = [dataset] if isinstance(dataset, str) else dataset
    for part in find_parts([name for name in names if not _is_listed_remotely(name)]).parts:
        if isinstance(part, HubSplit):
            check_datasets_package(part)
        elif is_url(part.location):
            file_system_of(part.name, part.location)
        else:
            with part.open():
                pass


def hashed(found: Parts) -> Parts:
    """Return the same parts, of which each is read as it is now, or not at all.

    Raises:
        DatasetError: for a file that cannot be read.
    """
    return replace(found, parts=tuple(part.hashed() for part in found.parts))


def fingerprint(found: Parts) -> str:
    """Return the SHA-256, in hexadecimal digits, of the content of parts that are `hashed`.

    For a file it is taken over its bytes, for a split on the hub over name and commit; for several, over those of each.
    """
    digests = [part.digest() for part in found.parts]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def would_read(name: str, file: Path) -> bool:
    """Return whether the data set of this name has `file` in it, or would have if that file were there."""
    if name == EXAMPLE or name.startswith("hf:") or is_url(name):
        return False
    path = Path(name)
    if path.is_dir():
        return file.resolve().parent == path.resolve()
    return file.resolve() == path.resolve() or _matches(file.absolute().parts, path.absolute().parts)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[count:], pattern[1:]) for count in range(len(parts) + 1))
    return bool(parts) and fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _parts_of(name: str) -> Parts:
    if name == EXAMPLE:
        return Parts((DataFile(EXAMPLE, str(EXAMPLE_FILE), "jsonl"),))
    if is_url(name):
        return _remote(name)
    if name.startswith("hf:"):
        return Parts((HubSplit.parse(name),))
    if name.startswith("ms:"):
        raise DatasetError(f"{name}: ModelScope is not read directly; download the data set and give its file")
    path = Path(name)
    suffix, _ = split_suffix(name)
    is_prompt = suffix not in FORMATS and len(name.split()) > 2
    try:
        is_a_folder, exists = is_folder(path), is_file(path)
    except ValueError as error:
        raise DatasetError(f"{shorten(name)}: {error}{f'; {PROMPT}' if is_prompt else ''}") from None
    if is_a_folder:
        return _folder(path)
    if not exists and glob.has_magic(name):
        return _glob(name)
    if not exists and suffix not in PICKLES:
        fix = "check the path" if suffix in FORMATS else f"{WORKS}, or hf:name:split for a hub data set"
        fix = PROMPT if is_prompt else fix
        raise DatasetError(f"{name}: no such file (looked in {Path.cwd()}){similar_name(path)}; {fix}")
    return Parts((_data_file(name, name),))


def _data_file(name: str, location: str) -> DataFile:
    """Return a file, with the format that the suffix of `name` says.

    Raises:
        DatasetError: for an unknown format, and for a pickle.
    """
    suffix, packing = split_suffix(name)
    if suffix in PICKLES:
        raise DatasetError(f"{name}: a pickle runs code when it is read, so it is refused; {WORKS}")
    if suffix not in FORMATS:
        raise DatasetError(f"{name}: unknown format {suffix or 'without a suffix'}; {WORKS}")
    if packing and FORMATS[suffix] not in TEXT_FORMATS:
        raise DatasetError(f"{name}: {suffix} files compress inside and are not read through .{packing}; unpack it")
    return DataFile(name, location, FORMATS[suffix], packing)


def split_suffix(name: str) -> tuple[str, str]:
    """Return (the suffix that names the format, in lower case; how the file is packed, or an empty string)."""
    path = PurePosixPath(name.lower())
    packing = path.suffix[1:]
    return (PurePosixPath(path.stem).suffix, packing) if packing in PACKINGS else (path.suffix, "")


def _folder(folder: Path) -> Parts:
    if (folder / "dataset_dict.json").is_file():
        return _saved_splits(folder)
    if (folder / "state.json").is_file():
        return _saved_split(folder)
    names = sorted(str(path) for path in folder.iterdir() if not path.name.startswith("."))
    data = _data_files(name for name in names if split_suffix(name)[0] in FORMATS)
    folders = [name for name in names if Path(name).is_dir()]
    if not data:
        fix = f"for what its folders hold, give '{folder / '**' / '*.jsonl'}'" if folders else WORKS
        raise DatasetError(f"{folder}: is a folder without a data file; {fix}")
    read = {file.name for file in data}
    return Parts(data, tuple(name for name in names if name not in read and name not in folders))


def _data_files(names: Iterable[str]) -> tuple[DataFile, ...]:
    """Return the files among these paths. One that cannot be read is an error: its rows would be missed by nobody."""
    return tuple(_data_file(name, name) for name in names if _is_file(name))


def _is_file(name: str) -> bool:
    try:
        return is_file(Path(name))
    except ValueError as error:
        raise DatasetError(f"{name}: {error}") from None


def _glob(pattern: str) -> Parts:
    """Return the files that match, sorted by name. What matches was asked for, so it must have a known format."""
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a Path would lose how the pattern begins
    files = _data_files(found)
    if not files:
        raise DatasetError(f"{pattern}: no file matches (looked in {Path.cwd()}); check the pattern")
    return Parts(files)


def _saved_split(folder: Path) -> Parts:
    """Return the files of a split as `save_to_disk` of the datasets library leaves it."""
    state = _saved_json(folder / "state.json")
    names = [str(folder / file["filename"]) for file in state.get("_data_files") or []]
    if not names or state.get("_indices_data_files"):
        raise DatasetError(f"{folder}: was saved by another version of datasets; load it and save it again")
    return Parts(tuple(_data_file(name, name) for name in names))


def _saved_splits(folder: Path) -> Parts:
    splits = _saved_json(folder / "dataset_dict.json").get("splits") or []
    if len(splits) != 1:
        folders = " or ".join(str(folder / split) for split in splits)
        raise DatasetError(f"{folder}: holds the splits {', '.join(splits)}; give one of them: {folders}")
    return _saved_split(folder / splits[0])


def _saved_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise cannot_be_read(str(path), error) from None
    except ValueError as error:
        raise DatasetError(f"{path}: is not JSON: {error}; save the data set again") from None
    return values if isinstance(values, dict) else {}


def _is_listed_remotely(name: str) -> bool:
    """Return whether a URL is that of a folder or a glob; a web server has only files."""
    is_known = split_suffix(name)[0] in FORMATS and not glob.has_magic(name)
    return is_url(name) and not name.startswith(("http://", "https://")) and not is_known


def _remote(url: str) -> Parts:
    """Return the file at a URL, or the files of the folder or glob there."""
    if url.startswith(("http://", "https://")):
        address = urlsplit(url)
        # What follows the path may be a signature, which belongs in no message and no manifest.
        name = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"
        return Parts((_data_file(name, url),))
    if not _is_listed_remotely(url):
        return Parts((_data_file(url, url),))
    file_system, path = file_system_of(url, url)
    try:
        if glob.has_magic(path):
            found = sorted(file_system.glob(path))
        else:
            found = sorted(one for one in file_system.ls(path, detail=False) if split_suffix(one)[0] in FORMATS)
        names = [file_system.unstrip_protocol(one) for one in found]
    except UserError:
        raise
    except Exception as error:  # the libraries raise what their many back ends raise
        raise remote_error(url, url, error) from None
    if not names:
        raise DatasetError(f"{url}: no data file is there; {WORKS}")
    return Parts(tuple(_data_file(name, name) for name in names))
