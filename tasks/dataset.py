"""The task that loads the data set: rows -> a plan on disk."""

from dataclasses import asdict
from typing import Any

from prefect import task

from t2i_core.config import Config
from t2i_core.dataset.parser import read_rows
from t2i_core.dataset.sources import Parts
from t2i_core.models.presets import Preset
from t2i_core.planning.planner import write_plan
from t2i_core.spec import GenerationSettings
from t2i_core.storage.workspace import Workspace
from tasks.caching import TASK_OPTIONS, VersionedKey


@task(
    name="load data set",
    task_run_name="load {config.dataset_title}",
    cache_policy=VersionedKey(version="plan-v5"),
    **TASK_OPTIONS,
)
def load_dataset_task(
    cache_key: str, config: Config, settings: GenerationSettings, preset: Preset, found: Parts
) -> dict[str, Any]:
    """Stream rows, reject bad ones with reasons, write every image spec with its key; return totals, no prompts."""
    rows, plans = read_rows(config, found), Workspace(config.output).plans
    return asdict(write_plan(cache_key, rows, plans, config, settings, preset))
