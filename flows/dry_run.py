"""The end of a dry run: what a run would make, and what that would take."""

import logging
from collections.abc import Callable
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.inventory import Inventory, plan_sentence
from flows.prompts import lines_about_prompts
from flows.resolve import Resolved
from flows.speed import SpeedCache
from t2i_core.errors import MeasureFailed
from t2i_core.generation.interface import LoadConfig
from t2i_core.models.names import denoiser_config
from t2i_core.models.preset_choice import model_title
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.shards import WorkEstimate
from t2i_core.reports.estimate import disk_space, estimate_lines, text_line
from t2i_core.reports.report import prunable

log = logging.getLogger(__name__)


def show_dry_run(
    resolved: Resolved,
    catalog: Catalog,
    work: WorkEstimate,
    speeds: SpeedCache,
    inventory: Inventory,
    fetch: Callable[[Resolved], LoadConfig],
) -> State[Any]:
    """Say what would be made and what it would take; make nothing. `fetch` brings the model to this machine."""
    config, speed = resolved.config, None
    if config.estimate and work.images:
        try:
            speed = speeds.measure(inventory.pending(catalog).first(), fetch(resolved))
            work = inventory.estimate(catalog, speed.batch_size)
        except MeasureFailed as error:
            log.warning("time      not known: %s", error)
    lines = [f"model     {model_title(config.model, resolved.preset)}"]
    if speeds.batch_size() is None:
        lines.append(f"batches   of {work.batch_size} are a guess until --estimate or a run measures them")
    lines += estimate_lines(work, resolved.model.weights_bytes, *disk_space(work, catalog), speed)
    lines += lines_about_prompts(resolved, catalog.plan, catalog.workspace.plans)
    if work.images:
        pending, denoiser = inventory.pending(catalog), denoiser_config(resolved.model.configs)
        line = text_line(pending.first(), resolved.preset, denoiser, pending.longest_prompt())
        lines += [line] if line else []
    if config.prune:
        lines.append(f"prune     would delete {prunable(catalog.unreferenced())}")
    log.info("\n".join(lines))
    return Completed(message=plan_sentence(catalog.plan, work))
