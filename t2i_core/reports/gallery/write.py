"""Write the gallery and the report of an output."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from t2i_core.options.gallery import GalleryOptions
from t2i_core.output.finished import FinishedOutput, read_finished
from t2i_core.output.layout import GALLERY
from t2i_core.reports.gallery.data import Source, write_data
from t2i_core.reports.gallery.folder import REPORT, GalleryFolder
from t2i_core.reports.gallery.missing import make_thumbnails, missing_thumbnails
from t2i_core.reports.gallery.page import render_page
from t2i_core.reports.gallery.statistics import report_numbers
from t2i_core.storage.files import write_text
from t2i_core.storage.thumbnail_store import ThumbnailStore
from t2i_core.storage.workspace import Workspace

# Of the accounting: what does not change when the same run is done again.
_ROWS = ("rows", "rows_skipped", "rows_failed", "rows_rejected", "rows_pending")


@dataclass(frozen=True, slots=True)
class GalleryWritten:
    """What was written.

    files: how many scripts and chunks of thumbnails are new.
    without_thumbnail: pictures that have none.
    """

    images: int
    files: int
    without_thumbnail: int


def gallery_folder(workspace: Workspace) -> GalleryFolder:
    """Return the folder of an output's gallery."""
    return GalleryFolder(workspace.root / GALLERY)


def check_options(options: GalleryOptions) -> None:
    """Refuse what is no finished output, or has a folder `gallery/` of somebody else.

    Raises:
        OutputError: naming it.
    """
    workspace = Workspace(options.output)
    read_finished(workspace)
    gallery_folder(workspace).check()


def prune_thumbnails(workspace: Workspace) -> None:
    """Delete the chunks of thumbnails that the gallery does not show: those of images that the data set lost."""
    store = ThumbnailStore(workspace.root)
    shown = gallery_folder(workspace).thumbnails()
    for name in store.index().chunks:
        if name not in shown:
            store.delete(name)


def run_facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the gallery says of the run, from what `run.json` holds; it stays where a later run makes nothing."""
    accounting = summary.get("accounting", {})
    return {
        "data_set": summary.get("data_set", {}).get("name"),
        "model": {name: summary.get("model", {}).get(name) for name in ("name", "about", "licence")},
        "rows": {name: accounting[name] for name in _ROWS if name in accounting},
    }


def write_gallery(
    finished: FinishedOutput,
    most_thumbnails: int | None,
    *,
    on_start: Callable[[int], None],
    on_images: Callable[[int], None],
) -> GalleryWritten:
    """Write `gallery/` from `images.parquet`. The page comes last: until then, the old gallery stands.

    Args:
        finished: the output.
        most_thumbnails: make up to so many thumbnails that are missing; None: all of them.
        on_start: told how many images there are to go through, those whose thumbnail has to be made twice.
        on_images: told how many are done.

    Raises:
        OutputError: if `gallery/` is not this tool's.
    """
    folder = gallery_folder(finished.workspace)
    folder.claim()
    source = _source(finished)
    missing = list(islice(missing_thumbnails(source), most_thumbnails))
    on_start(finished.plan.images + len(missing))
    if missing:
        make_thumbnails(source, missing, on_images)
        source = replace(source, thumbnails=source.store.index())
    with finished.workspace.lock():  # another run would replace images.parquet, or remove scripts that are in use
        return _write_files(finished, source, folder, on_images)


def _write_files(
    finished: FinishedOutput, source: Source, folder: GalleryFolder, on_images: Callable[[int], None]
) -> GalleryWritten:
    gallery = write_data(source, folder, on_images)
    facts = run_facts(finished.summary)
    numbers = report_numbers(source, gallery, facts)
    write_text(folder.folder / REPORT, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    title = _title(facts["data_set"])
    subtitle = str(facts["model"]["about"] or facts["model"]["name"] or "")
    folder.finish(render_page(gallery, numbers, title=title, subtitle=subtitle))
    return GalleryWritten(gallery.counts.images, folder.written, gallery.counts.without_thumbnail)


def _source(finished: FinishedOutput) -> Source:
    store = ThumbnailStore(finished.workspace.root)
    return Source(
        table=finished.provenance,
        prefix=finished.layout.form.prefix,
        images=finished.workspace.images,
        store=store,
        thumbnails=store.index(),
    )


def _title(data_set: object) -> str:
    """Return the name of a data set, or the first of its names."""
    if isinstance(data_set, list):
        return f"{data_set[0]} and {len(data_set) - 1} more"
    return str(data_set or "Images")
