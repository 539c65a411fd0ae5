"""From a finished output to pages that show its images in a browser, and the report on them.

python -m flows.gallery ./cache_local/demo
"""

if __name__ == "__main__":
    # Before the imports below, so that --help and a wrong flag are answered at once.
    from flows.commands import main

    raise SystemExit(main("gallery"))

import logging
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.outcomes import refused
from flows.signature import takes_options
from t2i_core import __version__
from t2i_core.config import Config
from t2i_core.errors import UserError
from t2i_core.options.gallery import GalleryOptions
from t2i_core.output.finished import FinishedOutput, read_finished
from t2i_core.output.layout import GALLERY, has_gallery
from t2i_core.reports.gallery.folder import PAGE
from t2i_core.reports.gallery.write import gallery_folder, prune_thumbnails, run_facts
from t2i_core.storage.tables import use_system_allocator
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key
from tasks.gallery import write_gallery_task
from tasks.server_wait import waiting_as_asked
from tasks.settings import ConfiguredFlow, apply_settings

# Not `__name__`: `prefect flow serve` loads this file under another module name.
log = logging.getLogger("flows.gallery")
RETRIES = 3
# A run makes up to so many thumbnails of images of earlier versions; a thousand of 1024x1024 take half a minute.
MISSING_THUMBNAILS = 1000


def show_gallery(config: Config, workspace: Workspace, cache: ResultCache, images: int) -> None:
    """Write the gallery of a run with so many images, unless it is left out.

    One that cannot be written does not spoil the run.
    """
    if not has_gallery(config.gallery, images):
        return
    if _write_or_warn(workspace, cache) and config.prune:
        prune_thumbnails(workspace)


def renew_gallery(workspace: Workspace, cache: ResultCache) -> None:
    """Write the gallery anew where there is one, after `images.parquet` got other columns."""
    if gallery_folder(workspace).state() is not None:
        _write_or_warn(workspace, cache)


def _write_or_warn(workspace: Workspace, cache: ResultCache) -> bool:
    """Return whether the gallery shows what the output holds now."""
    try:
        log.info("\n".join(make_gallery(read_finished(workspace), cache, MISSING_THUMBNAILS)))
    except UserError as error:
        log.warning("gallery   not written: %s", error)
        return False
    return True


def make_gallery(finished: FinishedOutput, cache: ResultCache, most_thumbnails: int | None = None) -> list[str]:
    """Write the gallery, unless it is there and shows what the output holds now; return the lines that say so.

    `most_thumbnails`: make up to so many that are missing; None: all of them.

    Raises:
        OutputError: if `gallery/` is not this tool's.
    """
    folder = gallery_folder(finished.workspace)
    folder.check()

    def still_right(stored: dict[str, Any]) -> bool:
        return folder.state() == stored["page"] and (most_thumbnails is not None or not stored["without_thumbnail"])

    provenance = finished.provenance.stat()
    key = cache_key([provenance.st_size, provenance.st_mtime_ns], run_facts(finished.summary), __version__)
    stored = cache.call(write_gallery_task, key, finished, most_thumbnails, is_valid=still_right)
    root = str(finished.workspace.root)
    lines = [f"gallery   {root}/{GALLERY}/{PAGE}"]
    if missing := stored["without_thumbnail"]:
        lines.append(f"          {missing} images have no thumbnail yet: python -m flows.gallery {root} makes them")
    return lines


def _run(options: GalleryOptions) -> State[Any]:
    finished = read_finished(Workspace(options.output))
    lines = make_gallery(finished, ResultCache(finished.workspace.results, RETRIES))
    log.info("\n".join([f"images    {finished.plan.images}", *lines]))
    return Completed(message=f"{finished.plan.images} images in {finished.workspace.root}/{GALLERY}/{PAGE}")


@takes_options(GalleryOptions)
def _gallery(**values: Any) -> Any:  # a `State[Any]`, which another process could not look up
    """Write pages that show the images of a finished output in a browser, and the report on them."""
    apply_settings()
    use_system_allocator()
    try:
        return _run(waiting_as_asked(GalleryOptions.from_values(values)))
    except UserError as error:
        return refused(error)


gallery = ConfiguredFlow(_gallery, name="gallery")
