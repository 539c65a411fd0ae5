"""The task that writes the gallery."""

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from prefect import task

from t2i_core.output.finished import FinishedOutput
from t2i_core.reports.gallery.write import gallery_folder, write_gallery
from tasks.caching import TASK_OPTIONS, VersionedKey
from tasks.progress import Progress, progress

# With so many images it takes long enough to be looked at.
SHOWN_FROM = 10_000


@task(
    name="write gallery",
    task_run_name="write gallery",
    cache_policy=VersionedKey(version="gallery-v1"),
    **TASK_OPTIONS,
)
def write_gallery_task(cache_key: str, finished: FinishedOutput, most_thumbnails: int | None) -> dict[str, Any]:
    """Write the gallery; return what was written, and how its page looks on disk."""
    with ExitStack() as stack:
        shown: list[Progress] = []

        def begin(total: int) -> None:
            if total >= SHOWN_FROM:
                shown.append(stack.enter_context(progress(total, ["gallery"])))

        def count(images: int) -> None:
            for item in shown:
                item.add_images(images)

        written = write_gallery(finished, most_thumbnails, on_start=begin, on_images=count)
    return asdict(written) | {"page": gallery_folder(finished.workspace).state()}
