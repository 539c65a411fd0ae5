"""Which model a run uses, with which adapters and settings: known before any weights are fetched."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flows.command import command_name
from t2i_core.config import DEFAULT_MODEL, DEMO, Config, DatasetOptions, SamplingOptions, parse_lora
from t2i_core.errors import ConfigError, ModelError
from t2i_core.generation.interface import LoadConfig
from t2i_core.models.adapters import Adapter, adapter_fingerprint
from t2i_core.models.as_asked import pixels_version
from t2i_core.models.hub import card_licence, is_commit
from t2i_core.models.identity import ResolvedModel, bundled_identity, folder_fingerprint
from t2i_core.models.prepare import prepare_digest
from t2i_core.models.preset_choice import find_preset
from t2i_core.models.presets import Preset, repository_of
from t2i_core.models.sampling import resolve_sampling
from t2i_core.models.schedulers import check_scheduler
from t2i_core.models.weights import locate
from t2i_core.spec import GenerationSettings
from tasks.caching import ResultCache, cache_key
from tasks.models import fetch_weights_task, resolve_adapter_task, resolve_model_task


@dataclass(frozen=True, slots=True)
class Resolved:
    """A run's model, adapters and settings, known without weights.

    `commits`: the commit of each hub model and adapter, to which the output keeps from now on.
    """

    config: Config
    model: ResolvedModel
    adapters: tuple[Adapter, ...]
    preset: Preset
    settings: GenerationSettings
    commits: Mapping[str, str] = field(default_factory=dict)

    def plan_settings(self) -> dict[str, Any]:
        """Return everything but the data set's content that decides the plan."""
        names = {*DatasetOptions.model_fields, *SamplingOptions.model_fields}
        return {
            "configuration": self.config.model_dump(include=names),
            "settings": asdict(self.settings),
            "preset": asdict(self.preset),
            "pixels_version": pixels_version(self.preset.pipeline_class),
        }

    def weights_are_local(self) -> bool:
        """Return whether all files of the model are on this machine."""
        return locate(self.model, cache_dir=self.config.cache_dir, local_dir=self.config.local_dir) is not None


def resolve(config: Config, cache: ResultCache, commits: Mapping[str, str]) -> Resolved:
    """Return the model's identity, adapters, preset and settings, read from small files only.

    Args:
        commits: those that the output began with; it keeps to them. A branch named by `--revision` is asked each time.

    Raises:
        ConfigError: for settings that the model does not take.
        ModelError: for a model or adapter that cannot be found or used.
    """
    model = _resolve_model(config, cache, commits)
    found = dict(commits)
    if config.revision is None and model.commit:
        found[repository_of(config.model)] = model.commit
    adapters = tuple(_resolve_adapter(config, cache, commits, entry) for entry in config.lora)
    found |= {
        parse_lora(entry)[0]: adapter.commit
        for entry, adapter in zip(config.lora, adapters, strict=True)
        if adapter.commit
    }
    preset = find_preset(config.model, model, bundled_identity())
    sampling = resolve_sampling(config, preset)
    scheduler_options = check_scheduler(
        config.scheduler,
        config.scheduler_options,
        lora=bool(config.lora),
        pipeline_class=model.pipeline_class,
        own=model.configs.get("scheduler", {}),
        steps=sampling.steps,
    )
    settings = GenerationSettings(
        model=model.identity,
        dtype=preset.dtype if config.dtype == "auto" else config.dtype,
        adapters=tuple((adapter.sha256, adapter.weight) for adapter in adapters),
        sampling=replace(sampling, scheduler_options=scheduler_options),
        quantization=None if config.quantization == "none" else config.quantization,
        prepare=prepare_digest(config.prepare) if config.prepare else None,
    )
    return Resolved(config, model, adapters, preset, settings, found)


def fetch(resolved: Resolved, cache: ResultCache) -> LoadConfig:
    """Bring the model's files to this machine; return where they are and how to load them."""
    config, model = resolved.config, resolved.model.to_json()
    adapters = [adapter.to_json() for adapter in resolved.adapters]
    folders = (config.cache_dir, config.local_dir)

    def still_there(stored: dict[str, Any]) -> bool:
        return resolved.weights_are_local() and all(Path(path).is_file() for path in stored["adapters"])

    key = cache_key(model, adapters, folders)
    paths = cache.call(fetch_weights_task, key, model, adapters, *folders, is_valid=still_there)
    weights = [adapter.weight for adapter in resolved.adapters]
    return LoadConfig(
        path=paths["model"],
        dtype=resolved.settings.dtype,
        device=config.device,
        scheduler=resolved.settings.sampling.scheduler,
        scheduler_options=resolved.settings.sampling.scheduler_options,
        adapters=tuple(zip(paths["adapters"], weights, strict=True)),
        lora_partial=config.lora_partial,
        text_encoder=config.text_encoder,
        offload=config.offload,
        compile=config.compile,
        quantization=resolved.settings.quantization,
        prepare=config.prepare,
    )


def default_model_fails(config: Config, why: str, other: str) -> ConfigError:
    """Return the error for a data set whose user named no model, and for whom the default model cannot work."""
    command = f"{command_name()} --dataset {shlex.join(config.dataset_names)}"
    return ConfigError(
        [
            f"model: without --model, images are generated by FLUX.1-dev ({DEFAULT_MODEL}), and {why}",
            "either of these works:",
            f"  {command} --model {DEMO}        (bundled demo model, 64x64, any machine)",
            f"  {command} {other}",
        ]
    )


def _resolve_model(config: Config, cache: ResultCache, commits: Mapping[str, str]) -> ResolvedModel:
    """Return the model. A folder is hashed again only when a file's size or time changed."""
    name = repository_of(config.model)
    pinned = config.revision if config.revision and is_commit(config.revision) else None
    if config.revision is None:
        pinned = commits.get(name)
    content = folder_fingerprint(name) or pinned
    # What is known by its content is never another model; a branch may have moved since it was stored.
    call = cache.call_afresh if content is None else cache.call
    key = cache_key("model", name, config.revision, content)
    try:
        model = ResolvedModel.from_json(call(resolve_model_task, key, name, config.revision, config.cache_dir, pinned))
        # The card is no part of the model's content, and may be newer than what was stored.
        return replace(model, licence=card_licence(Path(model.location))) if model.source == "folder" else model
    except ModelError as error:
        if not config.model_is_implied:
            raise
        raise default_model_fails(config, str(error), "--model flux-dev, after `hf auth login` with access") from error


def _resolve_adapter(config: Config, cache: ResultCache, commits: Mapping[str, str], entry: str) -> Adapter:
    """Return a LoRA, pinned like the model: a file by size and time, one from the hub by its first run's commit."""
    pinned = commits.get(parse_lora(entry)[0])
    content = adapter_fingerprint(entry) or pinned
    call = cache.call_afresh if content is None else cache.call
    key = cache_key("adapter", entry, content)
    return Adapter.from_json(call(resolve_adapter_task, key, entry, config.cache_dir, pinned))
