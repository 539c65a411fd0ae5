"""The data set -> a plan on disk."""

from dataclasses import asdict
from typing import Any

from prefect import task

from t2i_core.config import Config
from t2i_core.dataset import read_rows
from t2i_core.plan import Recipe, write_plan
from t2i_core.presets import Preset
from t2i_core.store import Store
from tasks.caching import TASK_OPTIONS, RecipeKey


@task(
    name="load data set",
    task_run_name="load {config.dataset}",
    cache_policy=RecipeKey(recipe="plan-v2"),
    **TASK_OPTIONS,
)
def load_dataset_task(cache_key: str, config: Config, recipe: Recipe, preset: Preset) -> dict[str, Any]:
    """Stream rows, reject bad ones with reasons, write every image spec with its key. Returns totals, no prompts."""
    return asdict(write_plan(cache_key, read_rows(config), Store(config.output).plans, config, recipe, preset))
