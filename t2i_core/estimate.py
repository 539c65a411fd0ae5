"""What a run will take, said before it starts: batches and padding, disk, memory of the weights, time."""

import shutil
from datetime import timedelta
from pathlib import Path

from t2i_core.drawing import Speed
from t2i_core.manifest import Outcome
from t2i_core.plan import batches_of
from t2i_core.shards import Work
from t2i_core.store import Store
from t2i_core.weights import Model

# Of a photograph at PNG level 1, where no image of this output says better.
BYTES_PER_PIXEL = 1.8
PADDING_WORTH_A_WORD = 0.1


def bytes_per_pixel(outcome: Outcome) -> float:
    """Of the images of this data set that are there, as files."""
    sizes = outcome.known.records(["file_size"])["file_size"].to_numpy()
    size = pixels = 0
    specs_file = outcome.plan.specs_file(Store(outcome.config.output).plans)
    for batch in batches_of(specs_file, ["key", "height", "width"]):
        places = outcome.known.find(batch["key"])
        there = places >= 0
        size += int(sizes[places[there]].sum())
        pixels += int((batch["height"].to_numpy()[there].astype(int) * batch["width"].to_numpy()[there]).sum())
    return size / pixels if pixels else BYTES_PER_PIXEL


def disk(work: Work, per_pixel: float, output: Path) -> tuple[int, int]:
    """(bytes that the images will take, bytes that are free where the output is)."""
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    return int(work.pixels * per_pixel), shutil.disk_usage(there).free


def lines(work: Work, model: Model, needed: int, free: int, speed: Speed | None) -> list[str]:
    """What a dry run says of the work."""
    result = [
        f"work      {work.images} images to make, in {work.batches} batches of {work.batch_size}, {work.shards} shards"
    ]
    if work.padding > PADDING_WORTH_A_WORD:
        result.append(
            f"padding   {work.padding:.0%} of the model's work fills up batches that are not full: "
            "fewer different sizes and settings, or a smaller --batch-size, would save it"
        )
    result.append(f"disk      about {_size(needed)} for the images; {_size(free)} are free")
    if needed > free:
        result[-1] += ": too little"
    result.append(f"weights   {_size(model.weights_bytes)}, by the size of their files")
    if speed is not None:
        seconds = work.effort * speed.seconds / speed.effort
        result += [
            f"time      about {timedelta(seconds=round(seconds))}: {speed.seconds:.3g} s for an image like the first",
            f"memory    {_size(speed.peak_bytes)} at its peak",
        ]
    return result


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
