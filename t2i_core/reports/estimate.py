"""What a run will take, said before it starts: batches and padding, disk, weights, tokens, time and memory."""

import shutil
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from t2i_core.generation.interface import Speed
from t2i_core.models.presets import Preset
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.shards import WorkEstimate
from t2i_core.spec import ImageSpec

# The file of a photograph at PNG level 1, where no image of this output tells better.
BYTES_PER_PIXEL = 1.8
# Padding below this share of the work is not worth a line.
PADDING_SHOWN = 0.1
# Pipelines that put every text, padded to `max_sequence_length`, into one sequence with the image's tokens, each of
# which stands for `size_multiple` pixels squared; with the tokens of a text that come on top (CLIP's for SD3).
JOINT_SEQUENCES = {
    **dict.fromkeys(("FluxPipeline", "ChromaPipeline", "Flux2Pipeline", "Flux2KleinPipeline"), 0),
    **{"QwenImagePipeline": 16, "StableDiffusion3Pipeline": 77},
}
# A shorter text that saves less than this share of the denoising is not worth a line.
TEXT_SHOWN = 0.05
# A token of any of the models' tokenizers has three bytes of a text or more on average, but for templates around it.
BYTES_PER_TOKEN = 3
TEMPLATE_TOKENS = 64


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


def text_line(spec: ImageSpec, preset: Preset, denoiser: Mapping[str, Any], longest_prompt: int) -> str | None:
    """Return what half the text tokens would save for an image like `spec`; None where that is little, or cuts prompts.

    `denoiser` is the configuration of the model's transformer, `longest_prompt` the bytes of the data set's longest.
    """
    length = spec.max_sequence_length
    if preset.pipeline_class not in JOINT_SEQUENCES or not length:
        return None
    width = (denoiser.get("num_attention_heads") or 0) * (denoiser.get("attention_head_dim") or 0)
    if not width:
        return None
    half = length // 2
    if longest_prompt / BYTES_PER_TOKEN + TEMPLATE_TOKENS > half:
        return None
    text = length + JOINT_SEQUENCES[preset.pipeline_class]
    tokens = text + spec.height * spec.width // preset.size_multiple**2
    fewer = tokens - length + half
    # A layer takes 24 * width**2 operations for each token, and 4 * width for each pair of tokens.
    saved = 1 - fewer * (6 * width + fewer) / (tokens * (6 * width + tokens))
    if saved < TEXT_SHOWN:
        return None
    return (
        f"text      {text} of {tokens} tokens of an image like the first are text, padding included: "
        f"--max-sequence-length {half} would save about {saved:.0%} of the denoising, and generate other images; "
        f"the longest prompt here has about {longest_prompt // BYTES_PER_TOKEN} tokens at most"
    )


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
