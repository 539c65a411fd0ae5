"""The first steps of the flow: whose output this is, and which model with which settings."""

import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect.runtime import deployment

from t2i_core.config import DEFAULT_MODEL, DEMO, Config, DatasetOptions, SamplingOptions, parse_lora
from t2i_core.dataset import fingerprint
from t2i_core.errors import ConfigError, ModelError, OutputError
from t2i_core.manifest import Outcome
from t2i_core.output import OutputIdentity, open_output
from t2i_core.pipelines import check_scheduler
from t2i_core.plan import Plan, Recipe, batches_of
from t2i_core.prepare import prepare_digest
from t2i_core.presets import Preset, find_preset, repository_of
from t2i_core.sampling import resolve_sampling
from t2i_core.store import Store, remove_if_stale
from t2i_core.weights import Adapter, Model, bundled_identity, folder_fingerprint, is_commit, locate
from tasks.caching import ResultCache, cache_key
from tasks.model import resolve_adapter_task, resolve_model_task

log = logging.getLogger(__name__)

# What a process worker calls the working folder that it makes for a deployment without one, and deletes.
_WORKERS_FOLDER = re.compile(r"tmp\w+prefect")

COMMAND = "python -m flows.text2image"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A run's model, adapters and settings, known without weights."""

    config: Config
    model: Model
    adapters: tuple[Adapter, ...]
    preset: Preset
    recipe: Recipe

    def plan_settings(self) -> dict[str, Any]:
        """Everything but the input's content that decides the plan."""
        names = [*DatasetOptions.model_fields, *SamplingOptions.model_fields]
        return {
            "configuration": self.config.model_dump(include=set(names)),
            "recipe": asdict(self.recipe),
            "preset": asdict(self.preset),
        }

    def weights_are_there(self) -> bool:
        """Whether all files of the model are on this machine."""
        return locate(self.model, cache_dir=self.config.cache_dir, local_dir=self.config.local_dir) is not None

    def device(self) -> str:
        """The device this machine would use."""
        from t2i_core.engine.device import resolve_device

        return resolve_device(self.config.device)

    def check_machine(self) -> None:
        """Before weights are fetched or loaded: what the settings need is there, and the default model has its GPU."""
        from t2i_core.engine.tuning import check_installed, check_offload

        check_installed(self.recipe.quantization)
        device = self.device()
        check_offload(self.config.offload, device)
        size = self.model.weights_bytes / 1e9
        if self.config.model_is_implied and self.preset.name != DEMO and device == "cpu":
            raise _default_model_fails(
                self.config,
                f"this machine has no GPU for it ({size:.0f} GB of weights)",
                "--device cpu --model flux-dev",
            )
        self._warn_of_memory(device)

    def _warn_of_memory(self, device: str) -> None:
        from t2i_core.engine.device import free_memory

        free = free_memory(device)
        if (
            free is None
            or free >= self.model.weights_bytes
            or self.config.offload != "none"
            or self.recipe.quantization
        ):
            return
        less = "--quantization takes less" if device == "cpu" else "--quantization and --offload take less"
        if device != "cpu" and self.model.pipeline_class == "FluxPipeline" and self.config.text_encoder != "resident":
            less = f"the text encoders come only to encode; {less}"
        size = self.model.weights_bytes / 1e9
        log.warning("memory    the weights are %.1f GB, %s has %.1f GB free: %s", size, device, free / 1e9, less)

    def announce(self) -> None:
        """Before minutes or gigabytes go: a model without a preset; a download, how big, under which licence."""
        if not self.preset.repository:
            log.info("model     %s: %s", self.model.name, self.preset.about)
        if self.weights_are_there():
            return
        size = self.model.weights_bytes / 1e9
        licence = self.preset.licence_note or self.model.licence or "not stated"
        log.info("download  %s, %.1f GB; licence: %s", self.model.location, size, licence)


def check_output(config: Config, store: Store) -> OutputIdentity:
    """What the output folder is for; with the input's content hash. Nothing is claimed yet.

    Raises:
        OutputError: also where a deployed run would write into a working folder that is deleted after it.
    """
    here = Path.cwd()
    if deployment.id and not Path(config.output).is_absolute() and _WORKERS_FOLDER.fullmatch(here.name):
        raise OutputError(
            f"output: {config.output} is relative, and the folder of this run ({here}) is deleted after it; "
            "write an absolute path"
        )
    return open_output(store, config, fingerprint(config))


def resolve(config: Config, cache: ResultCache, identity: OutputIdentity) -> Resolved:
    """Model identity, adapters, preset and settings; from small files only.

    A folder is hashed again only when a file's size or time changed. An output keeps the commit of its first run; a
    branch named by `--revision` is asked each time.
    """
    name = repository_of(config.model)
    pinned = config.revision if config.revision and is_commit(config.revision) else None
    if config.revision is None:
        pinned = identity.commits.get(name)
    content = folder_fingerprint(name) if name == DEMO or Path(name).is_dir() else pinned
    key = cache_key("model", name, config.revision, content)
    arguments = (name, config.revision, config.cache_dir, pinned)
    try:
        model = Model.from_json(cache.call(resolve_model_task, key, lambda _: content is not None, *arguments))
    except ModelError as error:
        if not config.model_is_implied:
            raise
        raise _default_model_fails(config, str(error), "--model flux-dev, after `hf auth login` with access") from error
    if config.revision is None and model.commit:
        identity.commits[name] = model.commit
    if config.scheduler:
        check_scheduler(config.scheduler)
    adapters = tuple(_resolve_adapter(config, cache, identity, entry) for entry in config.lora)
    preset = find_preset(config.model, model, bundled_identity())
    sampling = resolve_sampling(config, preset)
    dtype = preset.dtype if config.dtype == "auto" else config.dtype
    recipe = Recipe(
        model.identity,
        dtype,
        tuple((a.sha256, a.weight) for a in adapters),
        sampling,
        quantization=None if config.quantization == "none" else config.quantization,
        prepare=prepare_digest(config.prepare) if config.prepare else None,
    )
    return Resolved(config, model, adapters, preset, recipe)


def unreferenced(outcome: Outcome, store: Store) -> tuple[int, int]:
    """(how many stored images the manifest does not name, their bytes)."""
    extra = _unreferenced(outcome, store)
    if not extra.any():
        return 0, 0
    sizes = outcome.known.records(["file_size"])["file_size"].to_numpy()
    return int(extra.sum()), int(sizes[extra].sum())


def prune(outcome: Outcome, store: Store) -> None:
    """Delete the stored images that the manifest does not name, and the earlier manifests that do."""
    with store.lock():
        for manifest in store.manifests.glob("*.jsonl"):
            manifest.unlink(missing_ok=True)
        for key in outcome.known.keys[_unreferenced(outcome, store)]:
            store.image_path(key.decode()).unlink(missing_ok=True)


def remove_old_plans(plan: Plan, store: Store) -> None:
    """Delete plans of earlier versions of the data set that no run can still be reading."""
    current = {plan.rows_file(store.plans), plan.specs_file(store.plans)}
    for path in store.plans.glob("*.parquet"):
        if path not in current:
            remove_if_stale(path)


def _unreferenced(outcome: Outcome, store: Store) -> npt.NDArray[np.bool_]:
    """Mask over the known images."""
    extra = np.ones(len(outcome.known.keys), bool)
    for batch in batches_of(outcome.plan.specs_file(store.plans), ["key"]):
        places = outcome.known.find(batch["key"])
        extra[places[places >= 0]] = False
    return extra


def _resolve_adapter(config: Config, cache: ResultCache, identity: OutputIdentity, entry: str) -> Adapter:
    """A LoRA, pinned like the model: by size and time of a file, by the commit of its first run from the hub."""
    name, _ = parse_lora(entry)
    file = Path(name)
    pinned = identity.commits.get(name)
    content = [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else pinned
    key = cache_key("adapter", entry, content)
    arguments = (entry, config.cache_dir, pinned)
    adapter = Adapter.from_json(cache.call(resolve_adapter_task, key, lambda _: content is not None, *arguments))
    if adapter.commit:
        identity.commits[name] = adapter.commit
    return adapter


def _default_model_fails(config: Config, why: str, other: str) -> ConfigError:
    command = f"{COMMAND} --dataset {config.dataset}"
    return ConfigError(
        [
            f"model: without --model a data set is drawn by FLUX.1-dev ({DEFAULT_MODEL}), and {why}",
            "either of these works:",
            f"  {command} --model {DEMO}        (bundled demo model, 64x64, any machine)",
            f"  {command} {other}",
        ]
    )
