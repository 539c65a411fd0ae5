"""Step caches: denoising steps that reuse what earlier ones computed. Faster, and another image.

This tool offers the caches of diffusers that decide by the number of the step alone. First-block caches decide by a
mean over the batch, so an image would depend on its batch mates.
"""

from typing import Any

from diffusers import MagCacheConfig, TaylorSeerCacheConfig
from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

from t2i_core.engine.denoiser import denoiser_of
from t2i_core.errors import ConfigError

# Denoisers with which a cache was tried: an image is the same alone and in a batch.
TRIED = {
    "magcache": {"FluxTransformer2DModel"},
    "taylorseer": {"FluxTransformer2DModel", "QwenImageTransformer2DModel"},
}
# MagCache takes ratios that were measured with the model. diffusers has those of FLUX.1, whose blocks these are.
FLUX_BLOCKS = {"num_layers": 19, "num_single_layers": 38}


class FluxMagCache(MagCacheConfig):  # type: ignore[misc]
    """MagCache with the ratios of FLUX.1, for calls of `steps` steps."""

    def __init__(self, steps: int) -> None:
        super().__init__(mag_ratios=FLUX_MAG_RATIOS, num_inference_steps=steps)


def check_step_cache(kind: str, denoiser: Any) -> None:
    """Refuse a cache with a denoiser, also one without weights, for which it is not known to work.

    Raises:
        ConfigError: naming the denoiser.
    """
    name = type(denoiser).__name__
    if name not in TRIED[kind]:
        known = ", ".join(sorted(TRIED[kind]))
        raise ConfigError([f"step_cache: {kind} was tried with {known} alone, and this is {name}; leave it out"])
    if kind == "magcache" and any(denoiser.config.get(key) != blocks for key, blocks in FLUX_BLOCKS.items()):
        raise ConfigError(
            [
                "step_cache: magcache needs ratios that were measured with the model, and has those of FLUX.1 alone; "
                "use taylorseer, or leave it out"
            ]
        )


def add_step_cache(kind: str, denoiser: Any) -> None:
    """Add a cache to the denoiser."""
    if kind == "magcache":
        denoiser.enable_cache(FluxMagCache(28))  # any number: `begin_call` sets that of each call
    else:
        denoiser.enable_cache(TaylorSeerCacheConfig(taylor_factors_dtype=denoiser.dtype))


def begin_call(pipeline: Any, steps: int) -> None:
    """Make the denoiser's step cache, if it has one, ready for a call of `steps` steps.

    diffusers empties a cache at the end of a call, but not if the call ended with an error.
    """
    denoiser = denoiser_of(pipeline)
    if not getattr(denoiser, "is_cache_enabled", False):
        return
    config = denoiser._cache_config
    if isinstance(config, FluxMagCache) and config.num_inference_steps != steps:
        denoiser.disable_cache()
        denoiser.enable_cache(FluxMagCache(steps))
    denoiser._reset_stateful_cache()
