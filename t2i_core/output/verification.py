"""Whether an output is what it says: every stored image decoded; records, names, images.parquet, manifest compared."""

import errno
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import DamagedImage
from t2i_core.output.bare_copies import BareCopies
from t2i_core.output.finished import FinishedOutput
from t2i_core.output.layout import PROVENANCE, Layout
from t2i_core.output.manifest import manifest_lines
from t2i_core.output.provenance import PICTURE_FACTS, provenance_of
from t2i_core.planning.catalog import Catalog, CatalogImage, CatalogRow
from t2i_core.storage.adoption import Adopters
from t2i_core.storage.files import open_regular
from t2i_core.storage.formats import read_header, read_image
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.keys import as_keys, find
from t2i_core.storage.tables import read_rows
from t2i_core.storage.workspace import Workspace

# Of a record, what the header of its image says, too.
_FACTS = ["key", "pixels_sha256", "decoded_sha256", "run", "created", "seed", "replaces"]
# No fault of the output: there is no room for what waits on disk, or too much is open.
_OF_THIS_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}
# Of a row of images.parquet, what a later run over the same images has otherwise.
_OF_A_RUN = ("status", "error")


@dataclass(slots=True)
class Verification:
    """What was found.

    Attributes:
        images: how many stored images were decoded.
        damaged: key -> what is wrong with the stored image.
        records: keys of images of which the record table says something else than their headers.
        names: name of a named image -> what is wrong with it.
        rows: what is wrong in images.parquet and the manifest, a line each.
    """

    images: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    records: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    headers: list[pa.Table] = field(default_factory=list)  # what those of whole images say: the columns `_FACTS`

    @property
    def faults(self) -> int:
        """How many faults were found."""
        return len(self.damaged) + len(self.records) + len(self.names) + len(self.rows)

    def lines(self, images: ImageStore) -> Iterator[str]:
        """Yield a line for each fault."""
        for key, damage in self.damaged.items():
            yield f"damaged   {images.location(key)}: {damage}"
        for key in self.records:
            yield f"record    {images.location(key)}: what is recorded of it is not what its header says"
        for name, fault in self.names.items():
            yield f"name      {name}: {fault}"
        for fault in self.rows:
            yield f"files     {fault}"


def verify_images(images: ImageStore, keys: list[str], on_images: Callable[[int], None]) -> Verification:
    """Decode stored images by all cores, and hash their pixels; `on_images` is told how many more are done.

    An image is damaged if it is torn or no image, if its pixels are not those that its record names, or if its record
    is that of another image.
    """
    found = Verification()
    with Adopters(images) as adopters:
        for portion, records in adopters.portions(keys):
            whole = set(records["key"].to_pylist())
            found.damaged |= {key: _damage(key, images) for key in portion if key not in whole}
            found.headers.append(records.select(_FACTS))
            found.images += len(portion)
            on_images(len(portion))
    return found


def verify_files(found: Verification, root: Path, finished: FinishedOutput, catalog: Catalog) -> None:
    """Compare records, names, images.parquet and manifest in the folder `root` with the stored images; note the faults.

    What follows from a stored image that is damaged is no fault of its own.

    Raises:
        OSError: the disk is full, or too many files are open.
    """
    found.records += _wrong_records(found, catalog)
    form = finished.layout.form
    names = _Names(root, catalog)
    try:
        provenance = read_rows(root / PROVENANCE)
        with open_regular(root / form.name) as manifest:
            for row, line, expected in _rows(catalog, finished.layout):
                whole = True
                for image, right in zip(row.images, expected, strict=True):
                    stored = next(provenance, {})
                    if {image.key, image.picture, stored.get("key")} & found.damaged.keys():
                        whole = False
                    elif image.picture is None and stored.get("path") is not None:
                        whole = False
                        found.rows.append(f"{image.name}: its stored image is gone")
                    elif _differs(stored, right):
                        found.rows.append(f"{PROVENANCE}: what it says of {image.name} is not what its image says")
                    elif finished.layout.named and image.picture is not None and (fault := names.fault(image)):
                        found.names[image.name] = fault
                if line is not None and manifest.readline() != (line + "\n").encode() and whole:
                    found.rows.append(f"{form.name}: the line of row {row.row} is not what a run writes")
            found.rows += _what_is_left(manifest, form.name)
    except OSError as error:
        if error.errno in _OF_THIS_MACHINE:
            raise
        found.rows.append(f"{error.filename or form.name}: {error.strerror or error}")
    except pa.ArrowException as error:
        found.rows.append(f"{PROVENANCE} cannot be read: {' '.join(str(error).split())}")


def _rows(catalog: Catalog, layout: Layout) -> Iterator[tuple[CatalogRow, str | None, list[dict[str, Any]]]]:
    """Yield each row, its line in the manifest, and what images.parquet says of its images."""
    for chunk in catalog.row_chunks(PICTURE_FACTS):
        images = provenance_of(chunk, catalog, layout)
        lines = manifest_lines(chunk, images["path"], layout.form)
        values = images.to_pylist()
        for row, line, (start, end) in zip(catalog.rows_of(chunk), lines, pairwise(chunk.edges.tolist()), strict=True):
            yield row, line, values[start:end]


def make_room(found: Verification, workspace: Workspace) -> None:
    """Delete what is damaged, so that the run that follows makes it again; nothing that this tool did not write."""
    for key in found.damaged:
        workspace.images.delete(key)
    if found.records:  # then what is recorded comes from the headers of images
        shutil.rmtree(workspace.records, ignore_errors=True)
    if found.names:  # a copy that is remembered as right is looked at again
        (workspace.hidden / "checked-names").unlink(missing_ok=True)
    for name in found.names:
        if _is_ours(workspace.root / name):
            (workspace.root / name).unlink(missing_ok=True)


def _damage(key: str, images: ImageStore) -> str:
    data = images.read(key)
    if data is None:
        return "it cannot be read"
    try:
        record = read_image(data).record
    except DamagedImage as error:
        return str(error)
    return "its header has another key" if record.get("key") != key else "its header is no record of this tool"


def _wrong_records(found: Verification, catalog: Catalog) -> list[str]:
    """Return the keys of whole images of which the record table says something else than their headers."""
    if not found.headers:
        return []
    headers, records = pa.concat_tables(found.headers), catalog.index.facts(_FACTS)
    place = find(as_keys(records["key"]), as_keys(headers["key"]))
    records, headers = records.filter(pa.array(place >= 0)), headers.take(pa.array(place[place >= 0]))
    wrong = pa.array([False] * len(records))
    for name in _FACTS:
        recorded, said = (pc.fill_null(table[name].cast(pa.string()), "") for table in (records, headers))
        wrong = pc.or_(wrong, pc.not_equal(recorded, said))
    keys: list[str] = records["key"].filter(wrong).to_pylist()
    return keys


class _Names:
    """The named images in a folder, compared with stored ones."""

    def __init__(self, root: Path, catalog: Catalog) -> None:
        self._root, self._images = root, catalog.workspace.images
        self._bare = BareCopies(Workspace(root))

    def fault(self, image: CatalogImage) -> str | None:
        """Return what is wrong with a named image; None where it is its stored image, or a copy of it."""
        path, stored = self._root / image.name, self._images.stat(image.picture or "")
        try:
            status = path.lstat()
        except OSError as error:
            return error.strerror or str(error)
        if stored is not None and status.st_ino == stored.inode:
            return None
        try:
            with open_regular(path) as file:
                content = file.read()
        except OSError as error:
            return error.strerror or str(error)
        key = image.picture or ""
        if content == self._images.read(key) or self._bare.is_copy_of(image.name, key):
            return None
        return "it is not the image that its row asks for, or is damaged"


def _differs(stored: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Return whether a row of images.parquet says something else; a column that it lacks says nothing."""
    columns = stored.keys() & expected.keys()
    return not columns or any(stored[name] != expected[name] for name in columns if name not in _OF_A_RUN)


def _what_is_left(manifest: BinaryIO, name: str) -> Iterator[str]:
    if manifest.readline():
        yield f"{name} has more lines than the data set has rows"


def _is_ours(path: Path) -> bool:
    """Return whether a named file is an image of this tool."""
    try:
        with open_regular(path) as file:
            return read_header(file) is not None
    except OSError:
        return False
