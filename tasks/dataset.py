"""The task that loads the data set: rows -> a plan on disk."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from prefect import task
from prefect.states import Cancelled

from t2i_core.config import Config
from t2i_core.dataset.parser import read_rows
from t2i_core.dataset.rows import Row
from t2i_core.dataset.sources import Parts
from t2i_core.errors import Stopped
from t2i_core.models.presets import Preset
from t2i_core.planning.growing import Growth
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
    cache_key: str, config: Config, settings: GenerationSettings, preset: Preset, found: Parts, growth: Growth
) -> Any:
    """Stream rows, reject bad ones with reasons, write every image spec with its key; return totals, no prompts.

    `growth` is told of each segment that can be read, and tells whether to stop.
    """

    def rows() -> Iterator[Row]:
        for row in read_rows(config, found):
            if growth.should_stop():
                raise Stopped
            yield row

    plans = Workspace(config.output).plans
    try:
        return asdict(write_plan(cache_key, rows(), plans, config, settings, preset, growth.note))
    except Stopped:
        return Cancelled(message="stopped; the next run reads the data set again")
