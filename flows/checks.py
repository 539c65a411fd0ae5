"""What a run refuses and announces before it fetches weights, loads the model, or writes to its output."""

import logging
import re
from pathlib import Path

from prefect.runtime import deployment

from flows.resolve import Resolved, default_model_fails
from t2i_core.config import Config
from t2i_core.errors import OutputError
from t2i_core.models.preset_choice import licence_of
from t2i_core.models.sampling import doubtful_settings
from t2i_core.options.values import DEMO
from tasks.process import import_engine

log = logging.getLogger(__name__)

# What a process worker calls the working folder that it makes for a deployment without one, and deletes.
_WORKERS_FOLDER = re.compile(r"tmp\w+prefect")


def check_output_folder(config: Config) -> None:
    """Refuse a relative output of a deployed run whose working folder is deleted after it.

    Raises:
        OutputError: naming that folder.
    """
    here = Path.cwd()
    if deployment.id and not Path(config.output).is_absolute() and _WORKERS_FOLDER.fullmatch(here.name):
        raise OutputError(
            f"output: {config.output} is relative, and the folder of this run ({here}) is deleted after it; "
            "write an absolute path"
        )


def device_of(config: Config) -> str:
    """Return the device that a run on this machine uses.

    Raises:
        ConfigError: for one that is not there.
    """
    from t2i_core.engine.device import resolve_device

    return resolve_device(config.device)


def check_machine(resolved: Resolved, processes: int) -> list[str]:
    """Refuse what this machine cannot run, before weights are fetched or loaded; return lines to warn of the rest.

    `processes`: how many load the model here, each on a card of its own where there are any.

    Raises:
        ConfigError: for a device or a library that is not there, or the default model on a machine without a GPU.
    """
    # Another thread may import it at this moment. diffusers puts another module into its place when it is imported, and
    # who waits for that import alone gets the first one, without its names.
    import_engine()
    from t2i_core.engine.tuning import check_offload, check_quantization, check_tf32

    config, settings = resolved.config, resolved.settings
    device = device_of(config)
    check_quantization(settings.quantization, device, settings.dtype)
    check_offload(config.offload, device)
    check_tf32(settings.tf32, device, settings.dtype)
    _check_denoiser(resolved, device)
    if config.model_is_implied and resolved.preset.name != DEMO and device == "cpu":
        size = resolved.model.weights_bytes / 1e9
        raise default_model_fails(
            config, f"this machine has no GPU for it ({size:.0f} GB of weights)", "--device cpu --model flux-dev"
        )
    lines = _about_memory(resolved, device, processes)
    if device == "cpu" and config.device == "auto" and resolved.preset.name != DEMO:
        lines.append(
            "device    torch finds no GPU on this machine: its CPU makes the images; --device cpu says that you mean "
            "it, --device cuda refuses it"
        )
    if resolved.settings.dtype == "float16" and device == "cpu":
        lines.append("dtype     float16 can be slow on a CPU; --dtype float32 may be faster, and makes other images")
    return lines


def announce_guess(resolved: Resolved) -> None:
    """Say which settings are taken for a model without a preset, why, and what of the user's may have no effect."""
    config, preset, sampling = resolved.config, resolved.preset, resolved.settings.sampling
    if not preset.is_guess:
        return
    taken = {name: getattr(sampling, name) for name in ("steps", "guidance_scale", "true_cfg_scale")}
    values = [
        f"{name} {value:g}" for name, value in taken.items() if value is not None and getattr(config, name) is None
    ]
    if not (config.width or config.height or config.sizes):
        values.append(f"size {sampling.width}x{sampling.height}")
    if config.dtype == "auto":
        values.append(f"dtype {resolved.settings.dtype}")
    if values:
        log.info("model     %s are taken for %s: %s (%s)", preset.about, config.model, ", ".join(values), preset.reason)
    for doubt in doubtful_settings(config, sampling, preset):
        log.warning("settings  %s", doubt)


def _check_denoiser(resolved: Resolved, device: str) -> None:
    """Refuse what would make the denoiser faster and cannot work with this one, as its configuration shows.

    Raises:
        ConfigError: naming the option.
    """
    config, settings = resolved.config, resolved.settings
    if not (settings.attention or settings.step_cache or config.compile):
        return
    from t2i_core.engine.attention import check_attention
    from t2i_core.engine.compilation import check_compilation
    from t2i_core.engine.denoiser import empty_denoiser
    from t2i_core.engine.step_cache import check_step_cache

    denoiser = empty_denoiser(resolved.model.configs)
    if settings.attention:
        check_attention(settings.attention, denoiser, device, settings.dtype)
    if denoiser is None:
        return
    if settings.step_cache:
        check_step_cache(settings.step_cache, denoiser)
    if config.compile:
        check_compilation(denoiser, resolved.model.pipeline_class)


def announce_download(resolved: Resolved) -> None:
    """Say which pipeline a single file was taken for; and what is about to be downloaded, how much, which licence."""
    model, config = resolved.model, resolved.config
    if config.base is None and any(checkpoint.name == config.model for checkpoint in model.checkpoints):
        log.info("model     %s is taken for a model of %s; --base names another", config.model, model.location)
    if not resolved.weights_are_local():
        licence = licence_of(model, resolved.preset)
        log.info("download  %s, %.1f GB; licence: %s", model.location, model.download_bytes / 1e9, licence)


def warn_of_disk(needed: int, free: int) -> None:
    """Say that the disk is too small for what is to be made, both in bytes."""
    if needed > free:
        log.warning("disk      about %.1f GB are needed, %.1f GB are free", needed / 1e9, free / 1e9)


def _about_memory(resolved: Resolved, device: str, processes: int) -> list[str]:
    """Return a line where the weights are larger than the memory that is free, where no option makes up for it."""
    from t2i_core.engine.device import free_memory

    config, model = resolved.config, resolved.model
    free = free_memory(device)
    copies = processes if device == "cpu" else 1
    fits = free is None or free >= model.weights_bytes * copies
    if free is None or fits or config.offload != "none" or resolved.settings.quantization:
        return []
    less = "--quantization takes less" if device == "cpu" else "--quantization and --offload take less"
    if device != "cpu" and model.pipeline_class == "FluxPipeline" and config.text_encoder != "resident":
        less = f"the text encoders come only to encode; {less}"
    size = f"{model.weights_bytes / 1e9:.1f} GB" + (f" in each of {copies} processes" if copies > 1 else "")
    return [f"memory    the weights are {size}, {device} has {free / 1e9:.1f} GB free: {less}"]
