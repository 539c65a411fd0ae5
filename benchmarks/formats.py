"""What a stored image costs in each format: bytes without its texts, and milliseconds of one core to encode it.

python -m benchmarks.formats FOLDER          the pictures in a folder and those below it, such as an output's images
python -m benchmarks.formats FOLDER --side 1024     each enlarged to that width first
"""

import argparse
import time
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image

from t2i_core.storage.formats import Encoding, decode_image, encode_image, pixels_digest, without_texts
from t2i_core.storage.webp import EFFORT, METHOD

WAYS = {
    "png, level 1": Encoding(),
    "png, level 6": Encoding(png_compress_level=6),
    "png, level 9": Encoding(png_compress_level=9),
    f"webp, method {METHOD}, effort {EFFORT}": Encoding("webp"),
    "jpeg, quality 95": Encoding("jpeg"),
    "jpeg, quality 90": Encoding("jpeg", jpeg_quality=90),
}
SUFFIXES = {".png", ".webp", ".jpg", ".jpeg"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, help="enlarge each picture to this width first")
    parser.add_argument("--limit", type=int, default=20, help="pictures at most")
    asked = parser.parse_args()
    paths = sorted(path for path in asked.folder.rglob("*") if path.suffix in SUFFIXES)[: asked.limit]
    pictures = [load(path, asked.side) for path in paths]
    print(f"{len(pictures)} pictures, {mean(p.shape[0] * p.shape[1] for p in pictures) / 1e6:.3f} megapixels each")
    for name, encoding in WAYS.items():
        sizes, seconds = [], []
        for pixels in pictures:
            record = {"pixels_sha256": pixels_digest(pixels)}
            start = time.thread_time()
            data = encode_image(pixels, record, encoding).data
            seconds.append(time.thread_time() - start)
            sizes.append(len(without_texts(data, encoding.format)))
            assert decode_image(data) is not None
        print(f"{name:28} {mean(sizes) / 1000:9.1f} kB {1000 * mean(seconds):8.1f} ms")


def load(path: Path, side: int | None) -> np.ndarray:
    with Image.open(path) as picture:
        picture = picture.convert("RGB")
        if side:
            picture = picture.resize((side, side * picture.height // picture.width), Image.Resampling.LANCZOS)
        return np.asarray(picture)


if __name__ == "__main__":
    main()
