"""What a file of an output says of itself: whether this tool wrote it, told by its content alone.

That is asked where no note of it is left (`own_files.py`): of an earlier version's output, after `.t2i` was emptied but
for the images, and where a file was edited by hand. Nothing here raises for a file of whatever content.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from t2i_core.output.layout import CONTACT_SHEET, FAILURES, PREVIEW, PROVENANCE, RUN, ManifestForm
from t2i_core.storage.files import open_regular, read_regular
from t2i_core.storage.formats import read_header
from t2i_core.storage.png import HEADER
from t2i_core.storage.suffixes import SUFFIXES
from t2i_core.storage.workspace import Workspace

# What a run itself names an image, relative to the output, at the end of a path.
_OURS = re.compile(
    r"(?:([^/]+_condition\d+)/\1_\d+|\.t2i/images/[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64})\.(png|webp|jpg)$"
)
# So many rows of a file are looked at.
_ROWS = 1000
_LONGEST_LINE = 1 << 20
_RUN_FIELDS = {"state", "run", "configuration", "accounting"}
_FAILURE_FIELDS = {"row", "line", "field", "value", "reason"}
_PROVENANCE_COLUMNS = {"row", "condition", "image", "key", "prompt", "path", "status", "pixels_sha256"}

# The sizes of sheets and previews until release 0.1.0, which said nothing of themselves: columns and rows of cells.
_SHEETS_WITHOUT_COMMENT = {(columns * 200 + 8, rows * 240 + 32) for columns in range(1, 7) for rows in range(1, 50)}


def read_run(path: Path) -> dict[str, Any] | None:
    """Return what a run.json of ours holds; None for any other file, and where there is none."""
    try:
        values = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(values, dict) and values.keys() >= _RUN_FIELDS and isinstance(values["configuration"], dict)
    return values if is_ours else None


def form_of(manifest: Path) -> ManifestForm | None:
    """Return the form of a manifest of ours, by the first image that it names; None for any other file."""
    for row in _rows(manifest):
        for column, paths in row.items():
            for path in paths if isinstance(paths, list) else []:
                if isinstance(path, str) and (match := _OURS.search(path)):
                    prefix = path[: match.start()]
                    if not prefix or prefix.endswith("/"):
                        return ManifestForm(manifest.name, prefix, column)
    return None


def is_manifest_of_ours(path: Path) -> bool:
    """Return whether a file names images as a manifest of ours does."""
    return form_of(path) is not None


def has_images_of_ours(workspace: Workspace) -> bool:
    """Return whether there is an image of ours in the store, by the header of one."""
    return next(headers(workspace), None) is not None


def headers(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Yield the records that stored images carry, one read each; in the order of keys, which is none of time or row."""
    for path in (workspace.hidden / "images").glob("??/??/*"):
        try:
            if path.suffix not in SUFFIXES.values() or not path.is_file():  # a pipe would be waited for
                continue
            with open_regular(path) as file:
                header = read_header(file)
        except OSError:
            continue
        if header is not None and header.get("key") == path.stem:
            yield header


def _is_failures(path: Path) -> bool:
    """Return whether each row is one of a failure. An empty file is one of a run without failures."""
    try:
        return path.stat().st_size == 0 or all(row.keys() >= _FAILURE_FIELDS for row in _rows(path, strict=True))
    except (OSError, ValueError):
        return False


def _is_provenance(path: Path) -> bool:
    try:
        with pa.OSFile(str(path)) as file:
            return set(pq.read_schema(file).names) >= _PROVENANCE_COLUMNS
    except (OSError, pa.ArrowException):
        return False


def _is_sheet(path: Path) -> bool:
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            return image.info.get("comment") == HEADER.encode() or image.size in _SHEETS_WITHOUT_COMMENT
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def _rows(path: Path, *, strict: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the first JSON objects of a file of lines. `strict`: ValueError for a line that is none."""
    try:
        with open_regular(path) as lines:
            for line in islice(iter(lambda: lines.readline(_LONGEST_LINE), b""), _ROWS):
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if isinstance(row, dict):
                    yield row
                elif strict:
                    raise ValueError(path)
    except OSError:
        return


recognisers: Mapping[str, Callable[[Path], bool]] = {
    RUN: lambda path: read_run(path) is not None,
    FAILURES: _is_failures,
    PROVENANCE: _is_provenance,
    CONTACT_SHEET: _is_sheet,
    PREVIEW: _is_sheet,
}
