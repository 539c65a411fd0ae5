"""Files of others under the names of images: `sample0_condition0/sample0_condition0_0.png` may be the user's picture.

Names are too many for a note of each (`own_files.py`): an image of ours says in its first bytes that it is one.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from t2i_core.errors import OutputError
from t2i_core.output.bare_copies import BareCopies
from t2i_core.output.layout import PROVENANCE
from t2i_core.output.named_links import NamedImage
from t2i_core.planning.catalog import Catalog
from t2i_core.storage.files import open_regular
from t2i_core.storage.formats import read_header
from t2i_core.storage.png import HEADER
from t2i_core.storage.tables import read_chunks
from t2i_core.storage.workspace import Workspace

# In PNG and JPEG it comes before the pixels, so that a torn image of ours has it, too.
_MARK = HEADER.encode()
_BEGINNING = 128  # bytes


def refuse_foreign_names(workspace: Workspace, images: Iterable[NamedImage], own_inodes: Iterable[int] = ()) -> None:
    """Refuse the first of these names under which there is a file of somebody else.

    `own_inodes`: of stored images, whose other names need not be read.

    Raises:
        OutputError: naming it.
    """
    bare = BareCopies(workspace)
    inodes, listed, folders = frozenset(own_inodes), None, dict[str, bool]()
    for image in images:
        folder = image.name.rpartition("/")[0]
        if folder not in folders:
            folders = {folder: _is_foreign_folder(workspace.root / folder)}  # names of a folder follow each other
        found = folder if folders[folder] else None
        is_copy = found is None and bare.knows_any and bare.key_of(image.name) is not None
        if found is None and not is_copy and _may_be_foreign(workspace.root / image.name, inodes):
            listed = _listed(workspace) if listed is None else listed
            is_remade = image.name in listed and _is_remade(workspace, image.key)
            found = None if is_remade or bare.is_copy_of(image.name, image.key) else image.name
        if found is not None:
            raise OutputError(
                f"output: {workspace.root} holds {found}, which this tool did not write; "
                "choose another --output, or add --replace to overwrite it"
            )


def names_of(catalog: Catalog) -> Iterator[NamedImage]:
    """Yield the name of every image that the data set asks for, made or not, and its key."""
    for chunk in catalog.chunks(["name"]):
        keys = catalog.index.picture_keys(chunk.specs["key"])
        yield from map(NamedImage, chunk.specs["name"].to_pylist(), keys.to_pylist())


def _is_foreign_folder(folder: Path) -> bool:
    """Return whether there is something else than a folder: a link to one leads out of the output."""
    try:
        return not stat.S_ISDIR(os.lstat(folder).st_mode)
    except FileNotFoundError:
        return False


def _may_be_foreign(path: Path, own_inodes: frozenset[int]) -> bool:
    try:
        status = os.lstat(path)
        if status.st_ino in own_inodes:
            return False
        if not stat.S_ISREG(status.st_mode):
            return True
        with open_regular(path) as file:
            if _MARK in file.read(_BEGINNING):
                return False
            file.seek(0)
            return read_header(file) is None
    except FileNotFoundError:
        return False


def _listed(workspace: Workspace) -> frozenset[str]:
    """Return the names that the last run gave its images, as its images.parquet has them."""
    try:
        chunks = read_chunks(workspace.root / PROVENANCE, ["path"])
        paths = [path for chunk in chunks for path in chunk["path"].to_pylist() if path]
    except (OSError, ValueError, KeyError):  # none, or none of ours; an Arrow error is a ValueError
        return frozenset()
    return frozenset("/".join(PurePosixPath(path).parts[-2:]) for path in paths)


def _is_remade(workspace: Workspace, key: str) -> bool:
    """Return whether an image was made again since its name was listed, or is about to be: it was found to be damaged.

    Its name is the other name of the damaged file, whatever that holds now.
    """
    stored = workspace.images.stat(key)
    return stored is None or stored.mtime_ns > (workspace.root / PROVENANCE).stat().st_mtime_ns
