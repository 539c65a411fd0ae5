"""What a run will take, said before it starts: batches and padding, disk, weights, time and memory."""

import shutil
from datetime import timedelta

from t2i_core.generation.interface import Speed
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.shards import WorkEstimate

# The file of a photograph at PNG level 1, where no image of this output tells better.
BYTES_PER_PIXEL = 1.8
# Padding below this share of the work is not worth a line.
PADDING_SHOWN = 0.1


def disk_space(work: WorkEstimate, catalog: Catalog) -> tuple[int, int]:
    """Return (bytes that the images will take, bytes that are free where the output is)."""
    per_pixel = catalog.bytes_per_pixel() or BYTES_PER_PIXEL
    output = catalog.workspace.root.absolute()
    existing = next(folder for folder in (output, *output.parents) if folder.exists())
    return int(work.pixels * per_pixel), shutil.disk_usage(existing).free


def estimate_lines(
    work: WorkEstimate, weights_bytes: int, needed: int, free: int, speed: Speed | None = None
) -> list[str]:
    """Return what a dry run says of the work.

    `needed` and `free` are `disk_space`'s; `weights_bytes` is the size of the model's files; `speed` was measured with
    the model, or is None.
    """
    result = [
        f"work      {work.images} images to make, in {work.batches} batches of {work.batch_size}, {work.shards} shards"
    ]
    if work.padding > PADDING_SHOWN:
        result.append(
            f"padding   {work.padding:.0%} of the model's work fills up batches that are not full: "
            "fewer different sizes and settings, or a smaller --batch-size, would save it"
        )
    result.append(f"disk      about {_size(needed)} for the images; {_size(free)} are free")
    if needed > free:
        result[-1] += ": too little"
    result.append(f"weights   {_size(weights_bytes)}, by the size of their files")
    if speed is not None:
        seconds = work.pixel_steps * speed.seconds / speed.pixel_steps
        result += [
            f"time      about {timedelta(seconds=round(seconds))}: {speed.seconds:.3g} s for an image like the first",
            f"memory    {_size(speed.peak_bytes)} at its peak",
        ]
    return result


def rest_line(rest: WorkEstimate, made: WorkEstimate, seconds: float) -> str:
    """Return what is left to make after a preview that made `made` in `seconds`, and how long that takes."""
    if not rest.images:
        return "rest      nothing is left to make"
    line = f"rest      {rest.images} images"
    if made.pixel_steps and seconds:
        line += f", about {timedelta(seconds=round(rest.pixel_steps * seconds / made.pixel_steps))} at this speed"
    return line + "; run the same command without --preview"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
