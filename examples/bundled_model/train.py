"""Train the demo model: a whole FLUX pipeline from nothing, on two CPU cores, in one command.

    python examples/bundled_model/train.py --out training/

Stop it at any time; the same command goes on where it was.
"""

import argparse
import logging
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from diffusers import FluxPipeline

from flow import train_flow
from text import train_text_encoders
from vae import train_vae
from variety import train_variety


@dataclass(frozen=True)
class Steps:
    """How long each stage trains, in optimizer steps."""

    vae: int = 3500
    text: int = 6000
    flow: int = 11500
    variety: int = 5440

    def scaled(self, scale: float) -> "Steps":
        """A shorter or longer training of the same kind."""
        return Steps(*(max(2, round(steps * scale)) for steps in astuple(self)))


def main() -> None:
    """Run the stages one after another; a stage that is done only loads its result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, sheets, log and pipeline")
    parser.add_argument("--seed", type=int, default=0, help="decides weights, scenes and noise (default 0)")
    parser.add_argument("--device", default="cpu", help="where stage 4 runs, such as cuda (default cpu)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="all steps times this; 0.002 tries every stage quickly"
    )
    parser.add_argument(
        "--from", dest="start", type=Path, help="a trained pipeline: only stage 4 runs, and starts from it"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.StreamHandler(), logging.FileHandler(arguments.out / "train.log")],
    )
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU; a CPU takes no notice
    steps = Steps().scaled(arguments.scale)
    if arguments.start:
        pipeline = FluxPipeline.from_pretrained(arguments.start, dtype=torch.float32)
    else:
        vae = train_vae(arguments.out, seed=arguments.seed, steps=steps.vae)
        encoders = train_text_encoders(arguments.out, seed=arguments.seed, steps=steps.text)
        pipeline = train_flow(arguments.out, vae, encoders, seed=arguments.seed, steps=steps.flow)
    device = torch.device(arguments.device)
    train_variety(arguments.out, pipeline, seed=arguments.seed, steps=steps.variety, device=device)
    logging.info("done: the pipeline is in %s", arguments.out / "pipeline")


if __name__ == "__main__":
    main()
