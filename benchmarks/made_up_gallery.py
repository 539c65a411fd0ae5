"""A made-up output of any size, to look at its gallery and to measure what it costs to write it.

python -m benchmarks.made_up_gallery OUTPUT --images 100000
"""

import argparse
import hashlib
import json
import random
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from t2i_core.output.finished import FinishedOutput
from t2i_core.output.layout import PROVENANCE, Layout, ManifestForm
from t2i_core.output.provenance import SCHEMA
from t2i_core.planning.plan import Plan
from t2i_core.reports.gallery.write import write_gallery
from t2i_core.spec import ImageSpec
from t2i_core.storage.files import atomic_write
from t2i_core.storage.formats import Encoding, encode_image
from t2i_core.storage.tables import write_rows
from t2i_core.storage.thumbnail_store import ThumbnailStore, ThumbnailWriter
from t2i_core.storage.thumbnails import make_thumbnail
from t2i_core.storage.workspace import Workspace

PER_PROMPT = 4
# Images whose files are there; of the others there are thumbnails alone.
STORED = 200
ADJECTIVES = ["tiny", "giant", "glass", "wooden", "neon", "ancient", "golden", "frosted", "paper", "mossy"]
THINGS = ["fox", "owl", "lighthouse", "sailboat", "teapot", "robot", "violin", "mountain", "dragon", "bicycle"]
PLACES = (
    "in a snowy forest", "under a starry sky", "on a quiet beach at dawn", "inside a cathedral of books",
    "beside a neon market in the rain", "above the clouds", "in a field of sunflowers",
)  # fmt: skip
# Prompts of rows 3, 4, ...
HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">",
    "\"'`${document.title='pwned'}{{7*7}}{% raw %} & &lt; <b>bold</b>",
    "مرحبا بالعالم \u202e evil.exe txt\u202c \u2066RTL",
    "a\x00b NUL \x01\x07 \u2028 line \u2029 paragraph \ufeff",
    "word " * 2000 + "END",
    "🦊" * 500,
    "\n\n\t  \n",
    "#image=5&q=%22 ../../../etc/passwd --prompt $(reboot) `id` \\",
)
SIZES = ((1024, 1024), (1024, 1024), (832, 1216), (1216, 832))
SCORES = (pa.field("score_clip", pa.float64()), pa.field("score_stats_sharpness", pa.float64()))


def make_output(root: Path, images: int) -> FinishedOutput:
    """Write `images.parquet`, thumbnails and some images of an output that no model made; return it."""
    workspace = Workspace(root)
    thumbnails = ThumbnailWriter(ThumbnailStore(root))
    pictures = [_picture(number) for number in range(100)]
    looks = [make_thumbnail(picture, "") for picture in [*pictures, np.full_like(pictures[0], 90)]]

    def rows():
        for position in range(images):
            row = _row(position)
            if "path" in row:
                blank = position % 1500 == 7
                look = looks[-1] if blank else looks[position % len(pictures)]
                thumbnails.add(replace(look, pixels_sha256=row["pixels_sha256"]))
                if position < STORED:
                    size = (row["width"] // 4, row["height"] // 4)
                    picture = np.asarray(Image.fromarray(pictures[position % len(pictures)]).resize(size))
                    workspace.images.write(row["key"], encode_image(picture, {"key": row["key"]}, Encoding()).data)
            yield row

    with atomic_write(root / PROVENANCE) as file:
        write_rows(file, pa.schema([*SCHEMA, *SCORES]), rows())
    thumbnails.close()
    summary = {
        "data_set": {"name": "prompts/<b>many</b> & more.jsonl"},
        "model": {"name": "flux-dev", "about": "FLUX.1-dev"},
        "accounting": {"rows": images // PER_PROMPT, "rows_rejected": 3},
    }
    plan = Plan("made-up", rows=0, usable=0, skipped=0, rejected=0, prompts=0, images=images)
    return FinishedOutput(workspace, plan, Layout(ManifestForm("manifest.jsonl", "", "images"), named=True), summary)


def prompt_of(row: int) -> str:
    """Return the prompt of a row."""
    if 3 <= row < 3 + len(HOSTILE):
        return HOSTILE[row - 3]
    chance = random.Random(row)
    words = (chance.choice(ADJECTIVES), chance.choice(THINGS), chance.choice(PLACES))
    return f"a {words[0]} {words[1]} {words[2]}, variation {row}"


def _row(position: int) -> dict:
    row, image = divmod(position, PER_PROMPT)
    prompt, chance = prompt_of(row), random.Random(position)
    width, height = SIZES[row % len(SIZES)]
    spec = ImageSpec(
        prompt=prompt, seed=chance.getrandbits(32) if position % 50 else 2**62 + position, height=height, width=width,
        steps=28, guidance_scale=3.5 if row % 10 else 7.0, model="a" * 64, dtype="bfloat16",
    )  # fmt: skip
    failed = position % 1013 == 5
    made = {} if failed else {
        "path": f"sample{row}_condition0/sample{row}_condition0_{image}.png",
        # Some images have the pixels of the first one.
        "pixels_sha256": hashlib.sha256(b"%d" % (position if position % 997 else 0)).hexdigest(),
        "file_size": 1_400_000 + chance.randrange(200_000),
        "seconds": round(chance.gammavariate(60, 0.1), 4),
        "run": "run-1",
        "created": "2026-01-01T00:00:00+00:00",
        "model_name": "flux-dev",
        "score_clip": chance.gauss(0.29, 0.03),
        "score_stats_sharpness": chance.random(),
    }  # fmt: skip
    return spec.to_row() | {
        "row": row, "condition": 0, "image": image, "key": spec.key, "status": "failed" if failed else "generated",
        "error": "the image is black; try another seed" if failed else None, "prompt_lengths": _lengths(prompt),
        "device": "a card", "versions": '{"torch": "2.9"}', **made,
    }  # fmt: skip


def _lengths(prompt: str) -> list[dict]:
    words = prompt.split(" ")
    return [
        {
            "encoder": encoder, "tokens": min(len(words), limit), "limit": limit, "unknown": 0, "unread": 0.0,
            "cut": " ".join(words[limit:]) or None,
        }
        for encoder, limit in (("CLIPTextModel", 77), ("T5EncoderModel", 512))
    ]  # fmt: skip


def _picture(number: int) -> np.ndarray:
    chance = np.random.default_rng(number)
    slope = np.linspace(0, 1, 512)[:, None, None]
    pixels = chance.integers(20, 250, 3) * slope + chance.integers(20, 250, 3) * (1 - slope)
    pixels = pixels * np.ones((512, 512, 1)) + chance.normal(0, 6, (512, 512, 3))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(chance.integers(2, 9)):
        x, y, radius = (int(n) for n in chance.integers((0, 0, 20), (512, 512, 140)))
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=tuple(map(int, chance.integers(0, 255, 3))))
    return np.asarray(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    finished = make_output(arguments.output, arguments.images)
    for what in ("all of it", "again, unchanged"):
        started, used = time.perf_counter(), time.process_time()
        written = write_gallery(finished, 0, on_start=lambda total: None, on_images=lambda count: None)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{what}: {seconds:.1f} s, {used:.1f} s of them on the CPU, {1000 * used / arguments.images:.3f} s for "
            f"1,000 images; {written.files} files written, at most {peak:.0f} MiB"
        )
    size = sum(path.stat().st_size for path in (arguments.output / "gallery").rglob("*") if path.is_file())
    pixels = _picture(0).repeat(2, axis=0).repeat(2, axis=1)
    used = time.process_time()
    for _ in range(50):
        make_thumbnail(pixels, "")
    print(f"gallery/: {size / 1e6:.0f} MB; a thumbnail of 1024x1024: {(time.process_time() - used) / 50 * 1000:.1f} ms")
    print(json.dumps({"page": str(arguments.output / "gallery/index.html")}))


if __name__ == "__main__":
    main()
