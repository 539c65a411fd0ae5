"""What a run finds: the images that are there, and those that it has to make."""

from collections.abc import Iterator
from dataclasses import dataclass

from flows.records import collect_index
from t2i_core.config import Config
from t2i_core.output.layout import CONTACT_SHEET
from t2i_core.output.references import find_images
from t2i_core.planning.catalog import Catalog, Picture
from t2i_core.planning.growing import GrowingCatalog
from t2i_core.planning.parts import Part
from t2i_core.planning.pending import Pending
from t2i_core.planning.plan import Plan
from t2i_core.planning.shards import WorkEstimate, estimate_work
from t2i_core.reports.report import SHEET_IMAGES
from t2i_core.reports.summary_page import THUMBNAILS
from t2i_core.storage.image_store import Scan
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache


@dataclass(slots=True)
class Inventory:
    """What of a data set is there and what is pending, for a run, or for its part.

    `again`: the keys of the images that `only` names, once the plan is known.
    """

    config: Config
    part: Part | None
    run: str
    workspace: Workspace
    cache: ResultCache
    workers: int
    again: frozenset[str] | None = None

    def first(self, plan: Plan) -> Catalog:
        """Return the catalog that a run begins with, and note which images it is to make again."""
        catalog = self.collect(plan)
        if self.config.only:
            self.again = find_images(catalog, self.config.only)
        return catalog

    def collect(self, plan: Plan) -> Catalog:
        """Join the plan with what is known of images, checked against the files."""
        return Catalog(self.workspace, plan, *self.known(), self.run)

    def known(self) -> tuple[RecordIndex, Scan]:
        """Return what is known of images, and the files that it was checked against."""
        return collect_index(self.workspace, self.cache, self.run if self.config.refresh else None)

    def shown(self, catalog: Catalog, work: WorkEstimate) -> Iterator[Picture]:
        """Yield the images that are there by now and that the run decodes later, for its contact sheet and its page."""
        if self.part is not None:
            return
        if (sample := self.sample(catalog)) is not None:
            yield from catalog.pictures(only=sample)
        elif work.images or not (self.workspace.root / CONTACT_SHEET).is_file():
            yield from catalog.spread_pictures(SHEET_IMAGES)
            yield from catalog.spread_pictures(THUMBNAILS)

    def pending(self, catalog: Catalog | GrowingCatalog) -> Pending:
        """Return the images that the run has to make."""
        only = self.sample(catalog) if isinstance(catalog, Catalog) else None
        retry_failed, reseed = self.config.retry_failed, self.config.reseed
        return Pending(catalog, retry_failed, reseed, only=only, part=self.part, again=self.again)

    def sample(self, catalog: Catalog) -> frozenset[str] | None:
        """Return the keys of the images that a preview makes; None for a run that makes all."""
        return catalog.sample(self.config.preview) if self.config.preview else None

    def estimate(self, catalog: Catalog, batch_size: int) -> WorkEstimate:
        """Count what there is to make, in batches of `batch_size`."""
        return estimate_work(self.pending(catalog), batch_size, self.config.save_interval, self.workers)


def plan_sentence(plan: Plan, work: WorkEstimate) -> str:
    """Return what a data set has, and how many of its images are to be made."""
    return (
        f"{plan.rows} rows: {plan.usable} usable, {plan.skipped} skipped (have images), {plan.rejected} rejected; "
        f"{plan.images} images, {work.images} of them to make"
    )
