"""The measured speed of a model, and the batch size that `batch_size: auto` takes from it."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

from flows.checks import device_of
from flows.workers import Workers
from t2i_core.config import Config
from t2i_core.errors import MeasureFailed
from t2i_core.generation.interface import LoadConfig, Speed
from t2i_core.planning.pending import Pending
from t2i_core.spec import GenerationSettings, ImageSpec
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key, read_by
from tasks.generation import SPEED_KEY, measure_speed_task

log = logging.getLogger(__name__)

# The fields of settings that came after outputs held keys of speeds, with their defaults.
YOUNGER = {"attention": None, "tf32": False, "step_cache": None, "scheduler_options": None}
# The batch size until `auto` has been measured.
UNMEASURED_BATCH_SIZE = 4

_IS_SPEED = read_by(Speed.from_json)


@dataclass(frozen=True, slots=True)
class SpeedCache:
    """The speeds that earlier runs of an output measured, and the measuring of new ones."""

    config: Config
    settings: GenerationSettings
    cache: ResultCache
    workers: Workers
    run: str

    def batch_size(self) -> int | None:
        """Return the batch size as configured, or as an earlier run of this output measured it; None if none did."""
        if self.config.batch_size != "auto":
            return self.config.batch_size
        if not self.cache.holds(measure_speed_task, self._key(None), _IS_SPEED):
            return None
        return Speed.from_json(self.cache.read(f"{SPEED_KEY}/{self._key(None)}") or {}).batch_size

    def measured_batch_size(self, pending: Pending, load_config: LoadConfig) -> int:
        """Return how many images a batch has: as configured, or for `auto` as it was or is now measured."""
        if self.config.batch_size != "auto":
            return self.config.batch_size
        try:
            return self.measure(pending.first(), load_config).batch_size
        except MeasureFailed as error:
            otherwise = self.batch_size() or UNMEASURED_BATCH_SIZE
            log.warning("batches   of %d, for none could be measured: %s", otherwise, error)
            return otherwise

    def measure(self, spec: ImageSpec, load_config: LoadConfig) -> Speed:
        """Measure once what an image like `spec` costs: in batches as configured, or for `auto` in the fastest ones.

        The measured batch size belongs to the output, so its key names no device; a measured speed does name it.
        """
        if self.config.batch_size == "auto":
            batch_size, key = None, self._key(None)
        else:
            batch_size = self.config.batch_size
            device = self.config.dask_scheduler or self.workers.ask(device_of, self.config)
            key = self._key(batch_size, device, spec.call_group)
        arguments = (load_config, spec, batch_size, self.run, Workspace(self.config.output).root.absolute())
        return Speed.from_json(
            self.cache.call(measure_speed_task, key, *arguments, is_valid=_IS_SPEED, elsewhere=self.workers.call)
        )

    def _key(self, batch_size: int | None, *more: object) -> str:
        tuning: list[object] = [self.config.text_encoder, self.config.offload, self.config.compile]
        if self.config.compile_mode != "default":
            tuning.append(self.config.compile_mode)
        settings = _without_younger(asdict(self.settings))
        settings["sampling"] = _without_younger(settings["sampling"])
        return cache_key(settings, tuning, batch_size, *more)


def _without_younger(values: dict[str, Any]) -> dict[str, Any]:
    """Return settings without those that are younger than stored keys and at their default."""
    return {name: value for name, value in values.items() if (name, value) not in YOUNGER.items()}
