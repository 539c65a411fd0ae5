"""Make the output of a release for `tests/data`: `python -m tests.make_output tests/data/VERSION.tar.gz`.

Each release runs this once, with its own code; `tests/test_old_outputs.py` runs every later version over the result.
The folder holds what an output may hold: several images of a prompt, rows with settings of their own, a row that has
images already, a row that is no JSON, an image that failed, one that was replaced under a new seed, images of two model
settings, and earlier manifests.
"""

import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.prefect_server import serve

# Everything that decides pixels is written out, so that no later default changes what is asked for.
SETTINGS = {
    "dataset": "prompts.jsonl",
    "output": "out",
    "model": "demo",
    "height": 32,
    "width": 32,
    "true_cfg_scale": 2.5,
    "negative_prompt": "",
    "max_sequence_length": 24,
    "dtype": "float32",
    "batch_size": 4,
}
ONE_STEP, TWO_STEPS = {"steps": 1}, {"steps": 2}
FAILS, REPLACED = "a whale that is black", "a boat that was black once"


def conversation(*texts, **more):
    return json.dumps({"conversations": [{"role": "user", "content": text} for text in texts], **more})


LINES = [
    conversation("a fox in the snow"),
    conversation("a cat", "a cat and a flower"),
    conversation("a fox in the snow"),
    conversation("a house by night", generation={"images_per_prompt": 3}),
    conversation("a moon above a house", generation={"seed": 7, "height": 40}),
    conversation("一只狐狸 🦊 \u202bשלום"),
    conversation("mine is there already", images=["mine.png"]),
    "{broken",
    conversation(""),
    conversation(FAILS),
    conversation(REPLACED),
    conversation("a kite", note={"kept": [1, 2.5, None]}),
]


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "prefect"):
        home = Path(folder) / "release"
        home.mkdir()
        os.chdir(home)
        make()
        with tarfile.open(target, "w:gz") as archive:
            archive.add(home, arcname=".")
    print(f"{target}: {target.stat().st_size} bytes")


def make() -> None:
    from flows.text2image import text2image
    from t2i_core.errors import ImageFailure
    from t2i_core.generation import image_writer
    from t2i_core.models.identity import resolve_model

    Path("model.json").write_text(json.dumps(resolve_model("demo").to_json()))
    checked = image_writer.checked_pixels

    def fails_for(*prompts):
        def check(image, spec):
            if spec.prompt in prompts:
                raise ImageFailure("the image is black")
            return checked(image, spec)

        image_writer.checked_pixels = check

    def run(**values):
        return text2image(**SETTINGS | {"retries": 0} | values, return_state=True)

    Path("prompts.jsonl").write_text("\n".join(LINES[1:]) + "\n")
    fails_for(FAILS, REPLACED)
    run(**TWO_STEPS)
    fails_for(FAILS)
    run(**TWO_STEPS, retry_failed=True, reseed=True)
    Path("prompts.jsonl").write_text("\n".join(LINES) + "\n")
    run(**ONE_STEP)
    run(**TWO_STEPS)


if __name__ == "__main__":
    main()
