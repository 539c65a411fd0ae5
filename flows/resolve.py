"""Which model a run uses, with which adapters and settings: known before any weights are fetched."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from prefect import Task

from flows.command import command_name
from t2i_core.config import Config, parse_lora
from t2i_core.errors import ConfigError, ModelError
from t2i_core.generation.interface import LoadConfig, LocalCheckpoint
from t2i_core.models.adapters import Adapter, adapter_fingerprint
from t2i_core.models.as_asked import pixels_version
from t2i_core.models.checkpoints import checkpoint_fingerprint, with_checkpoints
from t2i_core.models.hub import card_licence, is_commit
from t2i_core.models.identity import Checkpoint, ModelFile, ResolvedModel, bundled_identity, folder_fingerprint
from t2i_core.models.loaded_files import LoadedFile, state_now
from t2i_core.models.local_files import ModelSource
from t2i_core.models.pipeline_files import Wanted, variants_of
from t2i_core.models.prepare import prepare_digest
from t2i_core.models.preset_choice import find_preset
from t2i_core.models.presets import Preset
from t2i_core.models.request import CheckpointRequest, ModelRequest, model_request
from t2i_core.models.sampling import resolve_sampling
from t2i_core.models.schedulers import check_scheduler
from t2i_core.models.weights import locate
from t2i_core.options.dataset import DatasetOptions
from t2i_core.options.sampling import SamplingOptions
from t2i_core.options.speed import ATTENTION_PACKAGES
from t2i_core.options.values import DEFAULT_MODEL, DEMO
from t2i_core.output.remake import LOADED
from t2i_core.spec import GenerationSettings
from tasks.caching import ResultCache, cache_key, read_by
from tasks.models import fetch_weights_task, resolve_adapter_task, resolve_checkpoint_task, resolve_model_task

FoundT = TypeVar("FoundT")


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

    @property
    def model_name(self) -> str:
        """What records call the model: the names that the user wrote."""
        names = [self.config.model]
        if any(checkpoint.name == self.config.model for checkpoint in self.model.checkpoints):
            names.append(f"base {self.config.base or self.model.location}")
        if self.config.transformer:
            names.append(f"transformer {self.config.transformer}")
        return ", ".join(names)

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that name what is loaded, as the user wrote them, for the records."""
        values = {name: getattr(self.config, name) for name in LOADED}
        return {name: value for name, value in values.items() if value not in (None, False, [])}

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
    request = model_request(config)
    model = _resolve_model(config, request, cache, commits)
    found = dict(commits)
    if config.revision is None and model.commit:
        found[request.pipeline] = model.commit
    found |= {checkpoint.name: checkpoint.commit for checkpoint in model.checkpoints if checkpoint.commit}
    adapters = tuple(_resolve_adapter(config, cache, commits, entry) for entry in config.lora)
    found |= {
        parse_lora(entry)[0]: adapter.commit
        for entry, adapter in zip(config.lora, adapters, strict=True)
        if adapter.commit
    }
    preset = find_preset(request.named, model, bundled_identity())
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
        attention=None if config.attention == "native" else config.attention,
        tf32=config.tf32,
        step_cache=None if config.step_cache == "none" else config.step_cache,
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
    return load_config(resolved, cache.call(fetch_weights_task, key, model, adapters, *folders, is_valid=still_there))


def load_elsewhere(resolved: Resolved) -> LoadConfig:
    """Return how other machines load the model: each fetches it, and puts its own paths in place of these."""
    config, digest = resolved.config, resolved.settings.prepare
    prepare = (config.prepare, digest) if config.prepare and digest else None
    source = ModelSource(resolved.model, resolved.adapters, config.cache_dir, config.local_dir, prepare)
    checkpoints = [str(Path(one.location) / one.path) for one in resolved.model.checkpoints]
    adapters = [adapter.location for adapter in resolved.adapters]
    paths = {"model": resolved.model.location, "checkpoints": checkpoints, "adapters": adapters}
    return replace(load_config(resolved, paths), files=(), source=source)


def pixel_packages(config: Config) -> tuple[str, ...]:
    """Return the packages whose versions decide the pixels of a run, on every machine that takes part."""
    packages = ["torch", "diffusers", "transformers", "tokenizers"]
    packages += ["peft"] if config.lora else []
    packages += {"fp8": ["torchao"], "int8": ["torchao"], "nf4": ["bitsandbytes"]}.get(config.quantization, [])
    packages += [ATTENTION_PACKAGES[config.attention]] if config.attention in ATTENTION_PACKAGES else []
    return tuple(packages)


def load_config(resolved: Resolved, paths: Mapping[str, Any]) -> LoadConfig:
    """Return how to load the model from these paths of the model, its checkpoints and its adapters."""
    config = resolved.config
    weights = [adapter.weight for adapter in resolved.adapters]
    return LoadConfig(
        files=tuple(_loaded_files(resolved, paths)),
        path=paths["model"],
        dtype=resolved.settings.dtype,
        device=config.device,
        scheduler=resolved.settings.sampling.scheduler,
        scheduler_options=resolved.settings.sampling.scheduler_options,
        variant=_variant_of(resolved.model.files, config),
        checkpoints=tuple(
            LocalCheckpoint(path, checkpoint.components, _variant_of(checkpoint.files, config))
            for path, checkpoint in zip(paths["checkpoints"], resolved.model.checkpoints, strict=True)
        ),
        adapters=tuple(zip(paths["adapters"], weights, strict=True)),
        lora_partial=config.lora_partial,
        text_encoder=config.text_encoder,
        offload=config.offload,
        compile=config.compile,
        compile_mode=config.compile_mode,
        quantization=resolved.settings.quantization,
        prepare=config.prepare,
        prepare_sha256=resolved.settings.prepare,
        attention=resolved.settings.attention,
        tf32=resolved.settings.tf32,
        step_cache=resolved.settings.step_cache,
    )


def _loaded_files(resolved: Resolved, paths: Mapping[str, Any]) -> Iterator[LoadedFile]:
    """Yield the files that are loaded, in the state in which they were hashed; those of the hub as they are now."""
    folders: list[tuple[str, ResolvedModel | Checkpoint]] = [(paths["model"], resolved.model)]
    for path, checkpoint in zip(paths["checkpoints"], resolved.model.checkpoints, strict=True):
        folders.append((path.removesuffix(checkpoint.path), checkpoint))
    for folder, one in folders:
        for file in one.files:
            path = Path(folder, file.path)
            yield LoadedFile(str(path), file.sha256, (not one.commit and file.state) or state_now(path))
    for path, adapter in zip(paths["adapters"], resolved.adapters, strict=True):
        yield LoadedFile(path, adapter.sha256, adapter.state or state_now(Path(path)))


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


def _variant_of(files: Sequence[ModelFile], config: Config) -> str | None:
    """Return the variant to load these files by: diffusers refuses one that none of them has."""
    return config.variant if config.variant in variants_of(file.path for file in files) else None


def _resolve_model(
    config: Config, request: ModelRequest, cache: ResultCache, commits: Mapping[str, str]
) -> ResolvedModel:
    """Return the model, with its checkpoints. Files are hashed again only when one may have changed."""
    try:
        checkpoints = [_resolve_checkpoint(config, one, cache, commits) for one in request.checkpoints]
        return with_checkpoints(_resolve_pipeline(config, request, cache, commits), request, checkpoints)
    except ModelError as error:
        if config.model_is_implied:
            fix = "--model flux-dev, after `hf auth login` with access"
            raise default_model_fails(config, str(error), fix) from error
        if request.checkpoints and config.base is None and request.named != config.model:
            fix = "--base names another pipeline, or a folder with its configuration"
            raise ModelError(f"{error}; {config.model} needs files of {request.named}: {fix}") from error
        raise


def _resolve_pipeline(
    config: Config, request: ModelRequest, cache: ResultCache, commits: Mapping[str, str]
) -> ResolvedModel:
    name, wanted = request.pipeline, request.wanted
    pinned = config.revision if config.revision and is_commit(config.revision) else None
    if config.revision is None:
        pinned = commits.get(name)
    content = folder_fingerprint(name, wanted) or pinned
    # The key of a model without such options is the one of earlier versions.
    options = [] if wanted == Wanted() else [asdict(wanted)]
    key = cache_key("model", name, config.revision, content, *options)
    arguments = (name, config.revision, config.cache_dir, pinned, wanted)
    model = _called(ResolvedModel.from_json, cache, content, resolve_model_task, key, *arguments)
    # The card is no part of the model's content, and may be newer than what was stored.
    return replace(model, licence=card_licence(Path(model.location))) if model.source == "folder" else model


def _resolve_checkpoint(
    config: Config, request: CheckpointRequest, cache: ResultCache, commits: Mapping[str, str]
) -> Checkpoint:
    """Return a checkpoint, pinned like the model: by the states of its files, or by its first run's commit."""
    pinned = commits.get(request.name)
    content = checkpoint_fingerprint(request, config.variant) or pinned
    key = cache_key(request.name, request.components, config.variant, content)
    arguments = (request, config.variant, config.cache_dir, pinned)
    return _called(Checkpoint.from_json, cache, content, resolve_checkpoint_task, key, *arguments)


def _resolve_adapter(config: Config, cache: ResultCache, commits: Mapping[str, str], entry: str) -> Adapter:
    """Return a LoRA, pinned like the model: a file by its state, one from the hub by its first run's commit."""
    pinned = commits.get(parse_lora(entry)[0])
    content = adapter_fingerprint(entry) or pinned
    key = cache_key("adapter", entry, content)
    return _called(Adapter.from_json, cache, content, resolve_adapter_task, key, entry, config.cache_dir, pinned)


def _called(
    read: Callable[[Any], FoundT], cache: ResultCache, content: object, task: Task[..., Any], key: str, *arguments: Any
) -> FoundT:
    """Return what a task finds, read from its result; stored, where the `content` of what it looks at is known.

    What is known by its content is never another model; a branch may have moved since it was stored.
    """
    if content is None:
        return read(cache.call_afresh(task, key, *arguments))
    return read(cache.call(task, key, *arguments, is_valid=read_by(read)))
