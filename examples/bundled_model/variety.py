"""Stage 4, variety: one caption gets many pictures, so that seeds differ visibly.

Stage 3 ends with one pose for every caption, and its pictures of one caption are the same for every seed. Here place,
size and direction of the things, horizon and sky follow from the noise (`VARIED` in scenes.py, coupling.py). All moves
are whole image tokens: the transformer learns where a token goes, and knows already what it shows. The text encoders
are kept. Batches are large: a GPU takes as long for a small one.
"""

import copy
from functools import partial
from pathlib import Path

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from captions import caption
from coupling import couple, shares_of
from flow import CHUNK, EMPTY_CAPTIONS, LatentPool, encode_scenes, matching_loss, save_pipeline
from loop import Schedule, Stage, generator_of, rng_of
from models import build_pipeline, is_block_matrix
from optimizers import split_optimizers
from scenes import VARIED, sample_scene
from sheet import PROMPTS, contact_sheet, generate
from text import FORGOTTEN
from tokenizer import encode, forget_words

BATCH = 256
CHUNKS = 96
SEEDS_SHOWN = 4


def train_variety(folder: Path, pipeline: FluxPipeline, *, seed: int, steps: int, device: torch.device) -> FluxPipeline:
    """Train the transformer of a pipeline on, or resume, on `device`; returns the pipeline, saved in `folder`."""
    pipeline.to(device)
    torch.manual_seed(rng_of(seed, "variety").getrandbits(63))
    transformer: FluxTransformer2DModel = copy.deepcopy(pipeline.transformer).requires_grad_(True)
    transformer.compile()
    chunks = min(CHUNKS, -(-steps * BATCH // CHUNK))
    pool = LatentPool(pipeline.vae, folder, seed=seed, lesson=VARIED, chunks=chunks)
    shares = shares_of(pool.scenes)

    @torch.no_grad()
    def read(captions: list[str], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        tokens = encode(pipeline.tokenizer, captions)
        if generator is not None:
            tokens = forget_words(tokens, FORGOTTEN, generator)
        tokens = tokens.to(device)
        pooled = pipeline.text_encoder(tokens).pooler_output
        return pooled, pipeline.text_encoder_2(tokens)[0]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, generator = rng_of(seed, "variety", step), generator_of(seed, "variety noise", step)
        rows = rng.sample(range(len(pool.scenes)), BATCH)
        scenes = [pool.scenes[row] for row in rows]
        captions = ["" if rng.random() < EMPTY_CAPTIONS else caption(scene, rng) for scene in scenes]
        pooled, embeddings = read(captions, generator)
        latents, to_scenes = pool.latents[rows].to(device).float(), partial(couple, shares=shares[rows])
        return matching_loss(transformer, latents, pooled, embeddings, generator, to_scenes), {}

    rng = rng_of(seed, "variety validation")
    held_out = [sample_scene(rng, VARIED, held_out=True) for _ in range(128)]
    held_out_latents, held_out_shares = encode_scenes(pipeline.vae, held_out), shares_of(held_out)
    held_out_texts = read([caption(scene, rng) for scene in held_out])

    def with_transformer(average: nn.Module) -> FluxPipeline:
        assert isinstance(average, FluxTransformer2DModel)
        return build_pipeline(pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2, average)

    @torch.no_grad()
    def evaluate(average: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(average, FluxTransformer2DModel)
        varied = with_transformer(average)
        prompts = [prompt for prompt in PROMPTS for _ in range(SEEDS_SHOWN)]
        images = generate(varied, prompts, seeds=range(len(prompts)))
        contact_sheet(images, prompts, folder / "sheet.png", columns=2 * SEEDS_SHOWN)
        save_pipeline(varied, folder / "pipeline")
        generator = generator_of(seed, "variety validation noise")
        to_scenes = partial(couple, shares=held_out_shares)
        matching = matching_loss(average, held_out_latents, *held_out_texts, generator, to_scenes)
        return {"flow on held-out scenes": matching.item()}

    average = Stage(
        name=f"variety-{BATCH}",  # checkpoints of other batches have another schedule
        folder=folder,
        module=transformer,
        optimizers=split_optimizers(transformer, is_block_matrix, muon_lr=0.035, adam_lr=2e-3),
        schedule=Schedule(steps=steps),
        loss=loss,
        evaluate=evaluate,
    ).run()
    return with_transformer(average)
