"""The tasks about a model: which one it is, and its files."""

from typing import Any

from prefect import task

from t2i_core.models.adapters import Adapter, resolve_adapter
from t2i_core.models.checkpoints import resolve_checkpoint
from t2i_core.models.identity import ResolvedModel, resolve_model
from t2i_core.models.local_files import ModelSource, fetch_files
from t2i_core.models.pipeline_files import Wanted
from t2i_core.models.request import CheckpointRequest
from t2i_core.models.scorer_model import ScorerModel, fetch_scorer_model, resolve_scorer_model
from tasks.caching import TASK_OPTIONS, VersionedKey
from tasks.process import interruptible


@task(
    name="resolve model", task_run_name="resolve {name}", cache_policy=VersionedKey(version="model-v2"), **TASK_OPTIONS
)
def resolve_model_task(
    cache_key: str, name: str, revision: str | None, cache_dir: str | None, commit: str | None, wanted: Wanted
) -> dict[str, Any]:
    """Return the model as small files tell it: no weights, no torch."""
    return resolve_model(name, revision=revision, cache_dir=cache_dir, commit=commit, wanted=wanted).to_json()


@task(
    name="resolve checkpoint",
    task_run_name="resolve {request.name}",
    cache_policy=VersionedKey(version="checkpoint-v1"),
    **TASK_OPTIONS,
)
def resolve_checkpoint_task(
    cache_key: str, request: CheckpointRequest, variant: str | None, cache_dir: str | None, commit: str | None
) -> dict[str, Any]:
    """Return a checkpoint with the hashes of its files."""
    return resolve_checkpoint(request, variant=variant, cache_dir=cache_dir, commit=commit).to_json()


@task(
    name="resolve adapter",
    task_run_name="resolve {entry}",
    cache_policy=VersionedKey(version="adapter-v1"),
    **TASK_OPTIONS,
)
def resolve_adapter_task(cache_key: str, entry: str, cache_dir: str | None, commit: str | None) -> dict[str, Any]:
    """Return a LoRA's content hash and weight."""
    return resolve_adapter(entry, cache_dir=cache_dir, commit=commit).to_json()


@task(
    name="fetch weights",
    task_run_name="fetch weights of {model[name]}",
    cache_policy=VersionedKey(version="weights-v1"),
    **TASK_OPTIONS,
)
def fetch_weights_task(
    cache_key: str,
    model: dict[str, Any],
    adapters: list[dict[str, Any]],
    cache_dir: str | None,
    local_dir: str | None,
) -> dict[str, Any]:
    """Return local paths of the model's folder, its checkpoints and the adapters' files; download what is missing."""
    loras = tuple(Adapter.from_json(adapter) for adapter in adapters)
    source = ModelSource(ResolvedModel.from_json(model), loras, cache_dir, local_dir)
    return interruptible(lambda: fetch_files(source))


@task(
    name="resolve scorer",
    task_run_name="resolve {name}",
    cache_policy=VersionedKey(version="scorer-v1"),
    **TASK_OPTIONS,
)
def resolve_scorer_model_task(cache_key: str, name: str, cache_dir: str | None) -> dict[str, Any]:
    """Return a CLIP or SigLIP model with the hashes of its files."""
    return resolve_scorer_model(name, cache_dir).to_json()


@task(
    name="fetch scorer",
    task_run_name="fetch {model[name]}",
    cache_policy=VersionedKey(version="scorer-files-v1"),
    **TASK_OPTIONS,
)
def fetch_scorer_model_task(cache_key: str, model: dict[str, Any], cache_dir: str | None) -> str:
    """Return the local folder of a CLIP or SigLIP model; download what is missing."""
    return str(interruptible(lambda: fetch_scorer_model(ScorerModel.from_json(model), cache_dir)))
