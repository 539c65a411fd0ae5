"""Stage 1, the autoencoder: learn to write a picture as few numbers and to read it back.

FLUX never draws pixels. It draws latents, which a variational autoencoder turns into pixels, so no picture can be
sharper than the autoencoder's. The encoder gives every latent a mean and a variance; the decoder gets a sample of it.
A small penalty (KL) keeps the latents near a standard normal distribution: without it they would spread out until the
sampling noise meant nothing, and the flow of stage 3 would have to hit single points.
"""

from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn

from loop import Schedule, Stage, generator_of, rng_of
from models import build_vae
from optimizers import split_optimizers
from scenes import SIZE, Scene, render, sample_scene

KL_WEIGHT = 3e-3
CROP = 32
CROP_BATCH, FULL_BATCH = 16, 4
FULL_FROM = 0.6  # share of the stage after which whole pictures follow the crops


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Pictures to [B, 3, H, W], float32 in [-1, 1]."""
    array = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(array).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_image(pixels: Tensor) -> Image.Image:
    """[3, H, W] in [-1, 1] to a picture."""
    array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array)


def psnr(pixels: Tensor, target: Tensor) -> float:
    """Peak signal-to-noise ratio in decibels, the mean over pictures [B, 3, H, W] in [-1, 1]."""
    error = (pixels.clamp(-1, 1) - target).square().mean((1, 2, 3))
    return (10 * torch.log10(4 / error)).mean().item()


def train_vae(folder: Path, *, seed: int, steps: int) -> AutoencoderKL:
    """Train the autoencoder, or resume it, and set its shift and scale; returns it ready to encode and decode."""
    torch.manual_seed(rng_of(seed, "vae weights").getrandbits(63))
    vae = build_vae()
    rng = rng_of(seed, "vae validation")
    held_out = to_pixels([render(sample_scene(rng, held_out=True)) for _ in range(64)])

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = rng_of(seed, "vae", step)
        pixels = _crops(rng) if step < FULL_FROM * steps else _pictures(rng)
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample(generator_of(seed, "vae noise", step))).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        error = reconstruction_error(decoded, pixels)
        return error + KL_WEIGHT * kl, {"error": error.item(), "kl": kl.item()}

    @torch.no_grad()
    def evaluate(average: nn.Module, step: int) -> dict[str, float]:
        assert isinstance(average, AutoencoderKL)
        latents = average.encode(held_out).latent_dist.mean
        decoded = average.decode(latents).sample
        _save_comparison(held_out, decoded, folder / "vae.png")
        return {"psnr": psnr(decoded, held_out), "latent deviation": latents.std().item()}

    stage = Stage(
        name="vae",
        folder=folder,
        module=vae,
        optimizers=split_optimizers(vae, lambda _, weight: weight.ndim == 4, muon_lr=0.02, adam_lr=2e-3),
        schedule=Schedule(steps=steps),
        loss=loss,
        evaluate=evaluate,
    )
    average = stage.run()
    assert isinstance(average, AutoencoderKL)
    _normalize(average, rng_of(seed, "vae statistics"))
    return average


def reconstruction_error(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Absolute and squared error, and the error of the differences between neighbours, which keeps edges sharp."""
    error = decoded - pixels
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + error.square().mean() + edges


def _pictures(rng: Random) -> Tensor:
    return to_pixels([render(sample_scene(rng)) for _ in range(FULL_BATCH)])


def _crops(rng: Random) -> Tensor:
    """Crops around things: the backgrounds, which are easily learned, fill most of a whole picture."""
    return to_pixels([_crop(rng, sample_scene(rng)) for _ in range(CROP_BATCH)])


def _crop(rng: Random, scene: Scene) -> Image.Image:
    placed = rng.choice(scene.placed)
    left, top = (
        min(max(centre - CROP // 2 + rng.randint(-10, 10), 0), SIZE - CROP) // 4 * 4 for centre in (placed.x, placed.y)
    )
    return render(scene).crop((left, top, left + CROP, top + CROP))


@torch.no_grad()
def _normalize(vae: AutoencoderKL, rng: Random) -> None:
    """Record the shift and scale that bring the latents to mean 0 and deviation 1, as FLUX's VAE does."""
    pictures = [render(sample_scene(rng)) for _ in range(512)]
    parts = [vae.encode(to_pixels(pictures[i : i + 64])).latent_dist.mean for i in range(0, len(pictures), 64)]
    latents = torch.cat(parts)
    vae.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1 / latents.std().item())


def _save_comparison(pixels: Tensor, decoded: Tensor, path: Path) -> None:
    """A sheet of sixteen pictures, each above what the autoencoder makes of it."""
    sheet = Image.new("RGB", (8 * SIZE, 4 * SIZE))
    for index in range(16):
        column, row = index % 8, index // 8 * 2
        sheet.paste(to_image(pixels[index]), (column * SIZE, row * SIZE))
        sheet.paste(to_image(decoded[index]), (column * SIZE, (row + 1) * SIZE))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)
