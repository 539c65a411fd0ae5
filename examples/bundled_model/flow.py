"""Stage 3, flow matching: learn to draw what a caption says.

A picture's latents x0 and noise x1 are joined by a straight line, x_t = (1 - t) x0 + t x1. The transformer sees x_t, t
and the caption, and predicts the velocity x1 - x0 along the line. To draw, the pipeline starts from noise at t = 1 and
follows the predicted velocity down to t = 0 in a few steps (Lipman and others, "Flow Matching for Generative
Modeling", 2023; Esser and others, "Scaling Rectified Flow Transformers", 2024).
"""

import copy
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from captions import caption
from layout import layout_labels, layout_loss
from loop import Schedule, Stage, generator_of, rng_of, save_atomically
from models import build_pipeline, build_transformer, encode_latents, is_block_matrix, pack, position_ids
from optimizers import split_optimizers
from scenes import Lesson, Scene, render, sample_scene
from sheet import PROMPTS, contact_sheet, generate
from text import FORGOTTEN, TextEncoders
from tokenizer import TEXT_LENGTH, build_tokenizer, encode, forget_words
from vae import to_pixels
from world import OBJECTS

BATCH = 32
EMPTY_CAPTIONS = 0.1  # what the pipeline's `true_cfg_scale` steers away from
LAYOUT_WEIGHT = 0.02
CHUNK = 2000
# Each lesson, the share of the stage by which it ends, and its number of chunks of scenes. Moved things teach what a
# thing is apart from its place, but blur what is drawn: the last lesson, in one pose again, makes it crisp.
LESSONS = (
    (Lesson(objects=12, jitter=0.0), 0.17, 4),
    (Lesson(objects=len(OBJECTS), jitter=0.0), 0.48, 8),
    (Lesson(objects=len(OBJECTS), jitter=0.5), 0.87, 16),
    (Lesson(objects=len(OBJECTS), jitter=0.0), 1.0, 8),
)
MODEL_CARD = Path(__file__).with_name("model_card.md")


class Flow(nn.Module):
    """All that stage 3 trains: the transformer and the text encoders."""

    def __init__(self, encoders: TextEncoders) -> None:
        super().__init__()
        self.transformer = build_transformer()
        self.encoders = copy.deepcopy(encoders).requires_grad_(True)


def predict_velocity(
    transformer: FluxTransformer2DModel, noisy: Tensor, times: Tensor, pooled: Tensor, embeddings: Tensor
) -> Tensor:
    """The velocity [B, 64, 32] at noisy latents [B, 64, 32] and times [B] in (0, 1)."""
    return transformer(
        hidden_states=noisy,
        timestep=times,
        pooled_projections=pooled,
        encoder_hidden_states=embeddings,
        img_ids=position_ids(8, 8).to(noisy.device),
        txt_ids=torch.zeros(TEXT_LENGTH, 3, device=noisy.device),
        return_dict=False,
    )[0]


class LatentPool:
    """The scenes of one lesson with their packed latents, which are encoded once and kept on disk in chunks."""

    def __init__(self, vae: AutoencoderKL, folder: Path, *, seed: int, lesson: Lesson, chunks: int) -> None:
        self.scenes: list[Scene] = []
        latents = []
        for chunk in range(chunks):
            rng = rng_of(seed, "pool", lesson, chunk)
            scenes = [sample_scene(rng, lesson) for _ in range(CHUNK)]
            kind = "-varied" if lesson.varied else ""
            path = folder / f"latents-{lesson.objects}-{lesson.jitter}{kind}-{chunk}.pt"
            if not path.exists():
                save_atomically(encode_scenes(vae, scenes).half().cpu(), path)
            self.scenes += scenes
            latents.append(torch.load(path, weights_only=True))
        self.latents = torch.cat(latents)


def encode_scenes(vae: AutoencoderKL, scenes: list[Scene]) -> Tensor:
    """Scenes to packed latents [B, 64, 32]."""
    parts = [scenes[i : i + 50] for i in range(0, len(scenes), 50)]
    return torch.cat([pack(encode_latents(vae, to_pixels([render(scene) for scene in part]))) for part in parts])


def sample_times(batch: int, generator: torch.Generator) -> Tensor:
    """Times in (0, 1), logit-normal around 0.77: most of a picture's layout is decided where there is much noise.

    Stratified: every batch covers all of the distribution, which makes the loss less noisy.
    """
    quantiles = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    normal = torch.special.ndtri(quantiles.clamp(1e-4, 1 - 1e-4))
    return torch.sigmoid(1.2 * normal + 1.2)[torch.randperm(batch, generator=generator)]


def train_flow(folder: Path, vae: AutoencoderKL, encoders: TextEncoders, *, seed: int, steps: int) -> FluxPipeline:
    """Train the transformer together with the text encoders, or resume; returns the pipeline, saved in `folder`."""
    torch.manual_seed(rng_of(seed, "flow weights").getrandbits(63))
    flow = Flow(encoders)
    flow.transformer.compile()  # a fifth faster for the 40 s that compiling takes (it needs a C++ compiler)
    tokenizer = build_tokenizer()
    pools: dict[Lesson, LatentPool] = {}

    def pool_at(step: int) -> LatentPool:
        lesson, _, chunks = next(entry for entry in LESSONS if step < entry[1] * steps)
        chunks = min(chunks, math.ceil(steps * BATCH / CHUNK))  # a short trial needs no more scenes than it draws
        if lesson not in pools:
            pools.clear()
            pools[lesson] = LatentPool(vae, folder, seed=seed, lesson=lesson, chunks=chunks)
        return pools[lesson]

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pool, rng, generator = pool_at(step), rng_of(seed, "flow", step), generator_of(seed, "flow noise", step)
        rows = rng.sample(range(len(pool.scenes)), BATCH)
        scenes = [pool.scenes[row] for row in rows]
        captions = ["" if rng.random() < EMPTY_CAPTIONS else caption(scene, rng) for scene in scenes]
        tokens = forget_words(encode(tokenizer, captions), FORGOTTEN, generator)
        pooled, embeddings = flow.encoders(tokens)
        matching = matching_loss(flow.transformer, pool.latents[rows].float(), pooled, embeddings, generator)

        worded = [row for row, text in enumerate(captions) if text]
        labels = layout_labels([scenes[row] for row in worded])
        readings = flow.encoders.read(pooled[worded], embeddings[worded])
        layout = torch.stack([layout_loss(logits, labels) for logits in readings]).sum()
        return matching + LAYOUT_WEIGHT * layout, {"flow": matching.item(), "layout": layout.item()}

    rng = rng_of(seed, "flow validation")
    held_out = [sample_scene(rng, held_out=True) for _ in range(128)]
    held_out_latents = encode_scenes(vae, held_out)
    held_out_tokens = encode(tokenizer, [caption(scene, rng) for scene in held_out])

    @torch.no_grad()
    def evaluate(average: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(average, Flow)
        pipeline = _pipeline(vae, average)
        contact_sheet(generate(pipeline, list(PROMPTS), seeds=range(len(PROMPTS))), PROMPTS, folder / "sheet.png")
        save_pipeline(pipeline, folder / "pipeline")
        generator = generator_of(seed, "flow validation noise")
        pooled, embeddings = average.encoders(held_out_tokens)
        matching = matching_loss(average.transformer, held_out_latents, pooled, embeddings, generator)
        return {"flow on held-out scenes": matching.item()}

    average = Stage(
        name="flow",
        folder=folder,
        module=flow,
        optimizers=split_optimizers(flow, is_block_matrix, muon_lr=0.02, adam_lr=2e-3),
        schedule=Schedule(steps=steps),
        loss=loss,
        evaluate=evaluate,
    ).run()
    assert isinstance(average, Flow)
    return _pipeline(vae, average)


def matching_loss(
    transformer: FluxTransformer2DModel,
    latents: Tensor,
    pooled: Tensor,
    embeddings: Tensor,
    generator: torch.Generator,
    couple: Callable[[Tensor], Tensor] = lambda noise: noise,
) -> Tensor:
    """The mean squared error of the predicted velocity at random times; latents and noise are [B, 64, 32].

    `couple` makes the noise fit the latents: see `coupling.py`.
    """
    times = sample_times(len(latents), generator).to(latents.device)
    noise = couple(torch.randn(latents.shape, generator=generator)).to(latents.device)
    share = times[:, None, None]
    noisy = (1 - share) * latents + share * noise
    return (predict_velocity(transformer, noisy, times, pooled, embeddings) - (noise - latents)).square().mean()


def _pipeline(vae: AutoencoderKL, flow: Flow) -> FluxPipeline:
    return build_pipeline(vae, flow.encoders.clip, flow.encoders.t5, flow.transformer)


def save_pipeline(pipeline: FluxPipeline, folder: Path) -> None:
    """Store a half-precision copy with its model card (to be run in float32); `folder` is replaced as a whole."""
    partial, old = folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")
    for path in (partial, old):
        shutil.rmtree(path, ignore_errors=True)
    parts = (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.transformer)
    build_pipeline(*(copy.deepcopy(part).half() for part in parts)).save_pretrained(partial)
    shutil.copy(MODEL_CARD, partial / "README.md")
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)
