"""What people write without this tool: a diffusers loop over prompts that saves PNGs. Prints its seconds.

    python -m benchmarks.plain_loop PROMPTS.txt FOLDER BATCH_SIZE

The clock starts before torch is imported and stops after the last image is saved, as the flow's own clock does.
"""

import sys
import time
from pathlib import Path


def main() -> None:
    started = time.perf_counter()
    import torch
    from diffusers import DiffusionPipeline

    from t2i_core.presets import PRESETS
    from t2i_core.weights import BUNDLED

    prompts = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    folder, batch_size = Path(sys.argv[2]), int(sys.argv[3])
    demo = PRESETS["demo"]
    folder.mkdir(parents=True)
    pipeline = DiffusionPipeline.from_pretrained(BUNDLED, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
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
            image.save(folder / f"{start + i}.png")
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main()
