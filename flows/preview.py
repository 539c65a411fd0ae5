"""The end of a preview: a contact sheet to look at, and what is left to make."""

import logging
from typing import Any

from prefect.client.schemas.objects import State

from flows.outcomes import ended
from t2i_core.config import Config
from t2i_core.output.accounting import exceeds
from t2i_core.output.layout import PREVIEW
from t2i_core.output.own_files import OwnFiles
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.pending import Pending
from t2i_core.planning.shards import WorkEstimate, estimate_work
from t2i_core.reports.contact_sheet import write_contact_sheet
from t2i_core.reports.estimate import rest_line

log = logging.getLogger(__name__)


def show_preview(
    config: Config,
    catalog: Catalog,
    sample: frozenset[str],
    work: WorkEstimate,
    seconds: float,
) -> State[Any]:
    """Write the contact sheet of a sample, and say what is left to make.

    Args:
        sample: the keys of the images of the preview.
        work: what this run made, in `seconds`.
    """
    pictures = list(catalog.pictures(only=sample))
    files, total = OwnFiles(catalog.workspace, replace=config.replace), catalog.plan.images
    write_contact_sheet(files, PREVIEW, pictures, catalog.workspace.images, config.model, total)
    sheet = f"{config.output.rstrip('/')}/{PREVIEW}"
    failures = {key: reason for key, reason in catalog.failures().items() if key in sample}
    rest = estimate_work(Pending(catalog), work.batch_size, config.save_interval)
    lines = [f"preview   {len(pictures)} of {total} images: {sheet}", rest_line(rest, work, seconds)]
    lines += [f"failed    {reason}" for reason in dict.fromkeys(failures.values())]
    log.info("\n".join(lines))
    message = f"preview: {len(pictures)} of {len(sample)} images, see {sheet}"
    return ended(message, too_many=exceeds(len(failures), len(sample), config.max_failures))
