"""Generates images as people do without this tool, with the demo model on this machine, and prints the seconds.

    python -m benchmarks.plain_loop {plain,reference} PROMPTS.txt FOLDER BATCH_SIZE

`plain`: a diffusers loop that saves PNGs. `reference`: as DataFlow-MM's pipeline does it, with attention slicing,
images saved one by one while the model waits, and paths kept for a manifest that is written at the end. The clock
starts before torch is imported and stops after the last file is written, as the flow's own clock does.
"""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    started = time.perf_counter()
    import torch
    from diffusers import DiffusionPipeline

    from t2i_core.bundled import DEMO_MODEL
    from t2i_core.models.presets import PRESETS

    way, prompts = sys.argv[1], Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()
    folder, batch_size = Path(sys.argv[3]), int(sys.argv[4])
    demo = PRESETS["demo"]
    folder.mkdir(parents=True)
    pipeline = DiffusionPipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if way == "reference":
        pipeline.enable_attention_slicing()
    rows = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        images = pipeline(
            batch,
            negative_prompt=[demo.negative_prompt] * len(batch),
            true_cfg_scale=demo.true_cfg_scale,
            num_inference_steps=demo.steps,
            height=demo.height,
            width=demo.width,
            max_sequence_length=demo.max_sequence_length,
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(batch))],
        ).images
        for i, image in enumerate(images):
            path = folder / f"{start + i}.png"
            image.save(path)
            rows.append({"prompt": batch[i], "images": [str(path)]})
    if way == "reference":
        (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
