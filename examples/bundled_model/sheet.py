"""Drawing with the pipeline, and contact sheets of what it drew."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from diffusers import FluxPipeline
from PIL import Image, ImageDraw, ImageFont

from scenes import SIZE
from tokenizer import TEXT_LENGTH

# The reference's two example prompts first; then objects, shapes, places, relations, and one beyond the model's world.
PROMPTS = (
    "A fox darting between snow-covered pines at dusk",
    "A kite surfer riding emerald waves under a cloudy sky",
    "a red circle on white",
    "a blue square on a yellow background",
    "a green triangle to the left of a purple star on white",
    "a white star above a red circle on black",
    "an orange diamond on a gray background",
    "a fox in the snow at night",
    "a cat sitting in a meadow by day",
    "a boat on the sea at sunset",
    "a house in the desert under a starry sky",
    "a penguin between two houses on snow",
    "a moon above a house at night",
    "a castle next to a palm tree on the beach",
    "an owl over a mushroom in the park at twilight",
    "a whale on the waves by day",
    "a turtle to the right of a frog on the grass",
    "a butterfly above a sunflower under a blue sky",
    "a rabbit",
    "a red car on a pink background",
    "a cactus in the desert on a sunny day",
    "an apple on a blue background",
    "a balloon above a castle at dawn",
    "Two foxes, one kite: a Picasso-style castle!",
)


def generate(
    pipeline: FluxPipeline, prompts: Sequence[str], *, seeds: Iterable[int], steps: int = 12, batch: int = 16
) -> list[Image.Image]:
    """Draw every prompt with its own seed, guided away from the empty prompt."""
    images: list[Image.Image] = []
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for start in range(0, len(prompts), batch):
        part = list(prompts[start : start + batch])
        images += pipeline(
            part,
            negative_prompt=[""] * len(part),
            true_cfg_scale=2.5,
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            max_sequence_length=TEXT_LENGTH,
            generator=generators[start : start + batch],
        ).images
    return images


def contact_sheet(images: Sequence[Image.Image], captions: Sequence[str], path: Path, *, columns: int = 6) -> None:
    """Save pictures, three times enlarged, with their captions below."""
    width, height = SIZE * 3 + 6, SIZE * 3 + 34
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (image, text) in enumerate(zip(images, captions, strict=True)):
        left, top = number % columns * width, number // columns * height
        sheet.paste(image.resize((SIZE * 3, SIZE * 3), Image.Resampling.NEAREST), (left, top))
        lines = "\n".join(textwrap.wrap(text, 36)[:2])
        pen.text((left + 2, top + SIZE * 3 + 1), lines, fill="black", font=font)
    sheet.save(path)
