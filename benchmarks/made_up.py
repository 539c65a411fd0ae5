"""An output folder with tiny made-up images, so that a re-run over many rows can be timed without making them.

python -m benchmarks.made_up ROWS FOLDER
"""

import json
import os
import sys
from itertools import chain
from pathlib import Path

import numpy as np

from t2i_core.config import Config
from t2i_core.dataset.parser import read_rows
from t2i_core.models.identity import bundled_identity
from t2i_core.models.presets import PRESETS
from t2i_core.models.sampling import resolve_sampling
from t2i_core.planning.planner import write_plan
from t2i_core.spec import GenerationSettings, ImageSpec
from t2i_core.storage.formats import Encoding, encode_image, pixels_digest
from t2i_core.storage.tables import read_rows as read_table_rows
from t2i_core.storage.workspace import Workspace


def main() -> None:
    rows, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True)
    dataset = folder / "prompts.jsonl"
    with dataset.open("w", encoding="utf-8") as file:
        for i in range(rows):
            message = {"role": "user", "content": f"a photograph of object number {i} on a wooden table at noon"}
            file.write(json.dumps({"conversations": [message]}) + "\n")
    config = Config.from_values({"dataset": str(dataset), "model": "demo", "output": str(folder / "out")})
    preset = PRESETS["demo"]
    sampling = resolve_sampling(config, preset)
    settings = GenerationSettings(model=bundled_identity(), dtype=preset.dtype, sampling=sampling)
    plan = write_plan("made_up", read_rows(config), folder, config, settings, preset)
    images = Workspace(config.output).images
    os.fsync = lambda _: None  # made-up images may be lost
    facts = {"run": "made-up", "created": "", "batch_size": 4, "seconds": 0.0, "device": "none", "versions": {}}
    for i, row in enumerate(chain.from_iterable(map(read_table_rows, plan.specs_files(folder)))):
        spec = ImageSpec.from_row(row)
        pixels = np.full((4, 4, 3), i % 251, np.uint8)
        header = facts | {"model_name": "demo", "key": spec.key, "spec": spec.canonical()}
        images.write(spec.key, encode_image(pixels, header | {"pixels_sha256": pixels_digest(pixels)}, Encoding()).data)


if __name__ == "__main__":
    main()
