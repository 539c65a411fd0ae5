"""The first steps of the flow: whose output this is, and which model with which settings."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t2i_core.config import DEFAULT_MODEL, DEMO, Config, DatasetOptions, SamplingOptions, parse_lora
from t2i_core.dataset import fingerprint
from t2i_core.errors import ConfigError, ModelError
from t2i_core.manifest import Outcome
from t2i_core.output import OutputIdentity, open_output, save_identity
from t2i_core.plan import PLAN_VERSION, Recipe
from t2i_core.presets import Preset, find_preset, repository_of
from t2i_core.sampling import resolve_sampling
from t2i_core.store import Store
from t2i_core.weights import Adapter, Model, bundled_identity, folder_fingerprint, is_commit, locate
from tasks.caching import ResultCache, cache_key
from tasks.model import resolve_adapter_task, resolve_model_task

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
            "version": PLAN_VERSION,
            "configuration": self.config.model_dump(include=set(names)),
            "recipe": asdict(self.recipe),
            "preset": self.preset.name,
        }

    def weights_are_there(self) -> bool:
        """Whether all files of the model are on this machine."""
        return locate(self.model, cache_dir=self.config.cache_dir, local_dir=self.config.local_dir) is not None

    def announce_download(self) -> None:
        """Before gigabytes move: what, how big, which licence. A default model that cannot run here is refused."""
        if self.weights_are_there():
            return
        size = self.model.weights_bytes / 1e9
        if self.config.model_is_implied and size > 1 and not _has_accelerator(self.config.device):
            raise _default_model_fails(
                self.config,
                f"this machine has no GPU for it ({size:.0f} GB of weights)",
                "--device cpu --model flux-dev",
            )
        licence = self.preset.licence_note or self.model.licence or "not stated"
        print(f"download  {self.model.location}, {size:.1f} GB; licence: {licence}", flush=True)


def claim_output(config: Config, store: Store) -> tuple[OutputIdentity, str]:
    """(what the output folder is for, the input's content hash)."""
    content = fingerprint(config)
    return open_output(store, config.dataset, content, replace=config.replace), content


def resolve(config: Config, cache: ResultCache, identity: OutputIdentity, store: Store) -> Resolved:
    """Model identity, adapters, preset and settings; from small files only.

    A folder is hashed again only when a file's size or time changed. An output keeps the commit of its first run; a
    branch named by `--revision` is asked each time.
    """
    name = repository_of(config.model)
    pinned = config.revision if config.revision and is_commit(config.revision) else None
    if config.revision is None:
        pinned = identity.commits.get(name)
    content = folder_fingerprint(name) if name == DEMO or Path(name).is_dir() else pinned
    key = cache_key("model", name, content)
    arguments = (name, config.revision, config.cache_dir, pinned)
    try:
        model = Model.from_json(cache.call(resolve_model_task, key, lambda _: content is not None, *arguments))
    except ModelError as error:
        if not config.model_is_implied:
            raise
        raise _default_model_fails(config, str(error), "--model flux-dev, after `hf auth login` with access") from error
    if config.revision is None:
        _pin(name, model.commit, identity, store)
    adapters = tuple(_resolve_adapter(config, cache, identity, store, entry) for entry in config.lora)
    preset = find_preset(config.model, model, bundled_identity())
    sampling = resolve_sampling(config, preset)
    dtype = preset.dtype if config.dtype == "auto" else config.dtype
    recipe = Recipe(model.identity, dtype, tuple((a.sha256, a.weight) for a in adapters), sampling)
    return Resolved(config, model, adapters, preset, recipe)


def unreferenced(outcome: Outcome, store: Store) -> tuple[int, int]:
    """(how many stored images the manifest does not name, their bytes)."""
    extra = _unreferenced(outcome)
    return len(extra), pc.sum(extra["file_size"]).as_py() or 0


def prune(outcome: Outcome, store: Store) -> None:
    """Delete the stored images that the manifest does not name."""
    for key in _unreferenced(outcome)["key"].to_pylist():
        store.image_path(key).unlink(missing_ok=True)


def _unreferenced(outcome: Outcome) -> pa.Table:
    specs_file = outcome.plan.specs_file(Store(outcome.config.output).plans)
    keys = pq.read_table(specs_file, columns=["key"])["key"].combine_chunks()
    used = outcome.known.effective(keys)
    made = outcome.known.made
    return made.filter(pc.invert(pc.is_in(made["key"], value_set=used)))


def _resolve_adapter(config: Config, cache: ResultCache, identity: OutputIdentity, store: Store, entry: str) -> Adapter:
    """A LoRA, pinned like the model: by size and time of a file, by the commit of its first run from the hub."""
    name, _ = parse_lora(entry)
    file = Path(name)
    pinned = identity.commits.get(name)
    content = [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else pinned
    key = cache_key("adapter", entry, content)
    arguments = (entry, config.cache_dir, pinned)
    adapter = Adapter.from_json(cache.call(resolve_adapter_task, key, lambda _: content is not None, *arguments))
    _pin(name, adapter.commit, identity, store)
    return adapter


def _pin(name: str, commit: str | None, identity: OutputIdentity, store: Store) -> None:
    if commit and identity.commits.get(name) != commit:
        identity.commits[name] = commit
        save_identity(store, identity)


def _has_accelerator(device: str) -> bool:
    from t2i_core.engine.load import resolve_device

    return resolve_device(device) != "cpu"


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
