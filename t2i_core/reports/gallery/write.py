"""Write the gallery and the report of an output."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from t2i_core.output.layout import GALLERY, PROVENANCE, REPORT
from t2i_core.reports.gallery.data import Command, Source, first_of_equal_pixels, write_data
from t2i_core.reports.gallery.folder import GalleryFolder
from t2i_core.reports.gallery.missing import make_thumbnails, missing_thumbnails
from t2i_core.reports.gallery.page import render_page
from t2i_core.reports.gallery.statistics import report_numbers
from t2i_core.storage.files import write_text
from t2i_core.storage.thumbnail_store import ThumbnailStore
from t2i_core.storage.workspace import Workspace


@dataclass(frozen=True, slots=True)
class GalleryWritten:
    """What was written."""

    images: int
    files: int  # that are new or changed, of scripts and thumbnails
    without_thumbnail: int  # pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryRequest:
    """What a gallery is written of.

    Attributes:
        prefix: what stands before each path in `images.parquet`.
        run: what `run.json` holds.
        command: returns the command that makes an image again.
        thumbnails: make up to so many thumbnails that are missing; None: all of them.
    """

    workspace: Workspace
    prefix: str
    run: Mapping[str, Any]
    command: Command
    thumbnails: int | None


def write_gallery(request: GalleryRequest, on_images: Callable[[int], None]) -> GalleryWritten:
    """Write `gallery/` and `report.json` from `images.parquet`. The page comes last: until then, the old one stands.

    `on_images` is told how many images are done; of each image twice, where its thumbnail has to be made.

    Raises:
        OutputError: if `gallery/` is not this tool's.
    """
    root = request.workspace.root
    folder = GalleryFolder(root / GALLERY)
    folder.check()
    source = _source(request)
    missing = list(islice(missing_thumbnails(source), request.thumbnails))
    if missing:
        make_thumbnails(source, missing, on_images)
        source = replace(source, thumbnails=source.store.index())
    gallery = write_data(source, folder, on_images)
    numbers = report_numbers(source, gallery, request.run)
    write_text(root / REPORT, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    title, subtitle = _titles(request.run)
    folder.finish(render_page(gallery, numbers, title=title, subtitle=subtitle))
    return GalleryWritten(gallery.counts.images, folder.written, gallery.counts.without_thumbnail)


def _source(request: GalleryRequest) -> Source:
    root = request.workspace.root
    store = ThumbnailStore(root)
    table = root / PROVENANCE
    return Source(
        table=table,
        prefix=request.prefix,
        images=request.workspace.images,
        store=store,
        thumbnails=store.index(),
        twins=first_of_equal_pixels(table),
        command=request.command,
    )


def _titles(run: Mapping[str, Any]) -> tuple[str, str]:
    """Return the data set's name, and the model's."""
    data_set, model = run.get("data_set", {}), run.get("model", {})
    name = data_set.get("name", "Images")
    title = name if isinstance(name, str) else f"{name[0]} and {len(name) - 1} more"
    return title, str(model.get("about") or model.get("name") or "")
