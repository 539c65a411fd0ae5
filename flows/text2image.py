"""From a file of prompts to images and a manifest.

python -m flows.text2image --dataset prompts.jsonl --model flux-dev
"""

if __name__ == "__main__":
    # Before the imports below, so that --help and a wrong flag are answered at once; and so that the flow always
    # lives in an importable module: what lives in `__main__` is pickled by value for other processes.
    from flows.cli import main

    raise SystemExit(main())

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from flows.again import not_made_again
from flows.checks import announce_download, announce_guess, check_machine, check_output_folder, warn_of_disk
from flows.gallery import make_gallery
from flows.generating import Generating
from flows.housekeeping import prune, remove_old_plans
from flows.launchers import find_part, with_own_device
from flows.outcomes import ended, finished, refused
from flows.parts import end_part, show_status
from flows.preflight import check_at_once
from flows.preview import show_preview
from flows.prompts import lines_about_prompts
from flows.read_only import with_place_to_write
from flows.records import collect_index, records_key, scan_images
from flows.resolve import Resolved, fetch, load_elsewhere, pixel_packages, resolve
from flows.runners import RunToJoin, find_workers
from flows.signature import takes_options
from flows.speed import SpeedCache
from flows.system_errors import as_users
from t2i_core.config import Config
from t2i_core.dataset.sources import Parts, find_parts, fingerprint, hashed
from t2i_core.errors import MeasureFailed, UserError
from t2i_core.generation.image_writer import RunContext
from t2i_core.generation.interface import LoadConfig
from t2i_core.models.names import denoiser_config
from t2i_core.models.preset_choice import model_title
from t2i_core.output.accounting import Accounting, exceeds
from t2i_core.output.finished import read_finished
from t2i_core.output.identity import claim_output, open_output
from t2i_core.output.layout import CONTACT_SHEET, Layout, has_gallery
from t2i_core.output.manifest import check_names, manifest_is_right, write_manifest
from t2i_core.output.part_marks import PartMarks, PartState
from t2i_core.output.references import find_images
from t2i_core.planning.catalog import Catalog, Picture
from t2i_core.planning.pending import Pending
from t2i_core.planning.plan import Plan
from t2i_core.planning.shards import Shard, WorkEstimate, estimate_work, make_shards, shard_sizes
from t2i_core.reports.estimate import disk_space, estimate_lines, text_line
from t2i_core.reports.gallery.write import prune_thumbnails
from t2i_core.reports.pictures import delete_damaged
from t2i_core.reports.report import SHEET_IMAGES, Report, prunable, write_report
from t2i_core.reports.summary_page import THUMBNAILS
from t2i_core.storage.formats import Encoding
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.run_marks import RunMarks
from t2i_core.storage.tables import use_system_allocator
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key, data
from tasks.dataset import load_dataset_task
from tasks.generation import generate_shard_task
from tasks.manifest import write_manifest_task
from tasks.process import THIS_PROCESS
from tasks.progress import progress
from tasks.records import collect_records
from tasks.reports import name_flow_run, publish_now, publish_task, report_task
from tasks.settings import ConfiguredFlow, apply_settings
from tasks.stopping import CancelledInPrefect, heeding_cancel, ignoring_sigterm, runner_process

# Not `__name__`: `prefect flow serve` loads this file under another module name.
log = logging.getLogger("flows.text2image")

# A runner kills 30 s after it asked to stop; the manifest still has to be written within them.
STOP_SECONDS = 15
# The batch size until `auto` has been measured.
UNMEASURED_BATCH_SIZE = 4
# A run makes up to so many thumbnails of images of earlier versions; a thousand of 1024x1024 take half a minute.
MISSING_THUMBNAILS = 1000


class Text2Image:
    """One run: the stages of the flow in their order, and what they hand to each other."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.part = find_part(config.part) if config.part else None
        self.run = str(flow_run.get_id())
        self.runner = runner_process()
        self.workspace = Workspace(config.output)
        self.cache = ResultCache(self.workspace.results, config.retries)
        self.startup_seconds = THIS_PROCESS.startup_seconds()
        self.started = time.perf_counter()
        self.generating = Generating(find_workers(config), RunMarks(self.workspace.running, self.run))
        self.again: frozenset[str] | None = None  # the keys of the images that `only` names

    def __call__(self) -> State[Any]:
        """Run the stages; leave no process behind."""
        try:
            return self.stages()
        finally:
            self.generating.end()

    def stages(self) -> State[Any]:
        """Run the stages, like a table of contents."""
        THIS_PROCESS.start_run(self.run)
        name_flow_run(self.config)
        check_output_folder(self.config)
        check_at_once(self.config)
        found = hashed(find_parts(self.config.dataset))
        identity = open_output(self.workspace, self.config, fingerprint(found))
        resolved = resolve(self.config, self.cache, identity.commits)
        announce_guess(resolved)
        plan = self.load_dataset(resolved, found)
        name_flow_run(self.config, plan.prompts)
        if not self.config.only_looks:
            claim_output(self.workspace, replace(identity, commits=resolved.commits))
            self.workspace.remove_stale_files()
            self.mark(PartState.RUNNING)
        catalog = self.collect(plan)
        if self.config.status:
            return show_status(catalog)
        if self.config.only:
            self.again = find_images(catalog, self.config.only)
        return self.work(resolved, plan, catalog)

    def work(self, resolved: Resolved, plan: Plan, catalog: Catalog) -> State[Any]:
        """Make what is missing, and write what a run leaves, also where it is stopped; or only say what there is."""
        speeds = SpeedCache(self.config, resolved.settings, self.cache, self.generating.workers)
        work = self.estimate(catalog, speeds.batch_size() or UNMEASURED_BATCH_SIZE)
        if not self.config.only_looks and delete_damaged(self.shown(catalog, work), self.workspace.images):
            catalog = self.collect(plan)
            work = self.estimate(catalog, work.batch_size)
        log.info("plan      %s", _plan_sentence(plan, work))
        try:
            if self.config.only_looks:
                return self.show_dry_run(resolved, catalog, work, speeds)
            if work.images:
                check_names(catalog, self.config)
                work = self.generate(resolved, catalog, work, speeds)
                catalog = self.collect(plan)
            if (sample := self.sample(catalog)) is not None:
                return show_preview(self.config, catalog, sample, self.generating.errors, work, self.generating.seconds)
            if self.part is not None:
                self.mark(PartState.FINISHED)
                return end_part(self.part, replace(catalog, errors=self.generating.errors), self.config.max_failures)
            return self.finish(resolved, catalog, work)
        except CancelledInPrefect:
            return Cancelled(message=self.stop(resolved, plan, work))
        except (KeyboardInterrupt, TerminationSignal):
            if not self.config.only_looks:
                self.stop(resolved, plan, work)
            raise

    def load_dataset(self, resolved: Resolved, found: Parts) -> Plan:
        """Turn rows into image specs with their keys, on disk. `found`: what the data set consists of, hashed."""

        def still_there(stored: dict[str, Any]) -> bool:
            return Plan(**stored).exists(self.workspace.plans)

        key = cache_key(fingerprint(found), resolved.plan_settings(), found.row_files)
        if not (self.config.only_looks or self.cache.holds(load_dataset_task, key, still_there)):
            self.start_workers(resolved)  # a new plan has new images
        arguments = (self.config, resolved.settings, resolved.preset, found)
        return Plan(**self.cache.call(load_dataset_task, key, *arguments, is_valid=still_there))

    def collect(self, plan: Plan) -> Catalog:
        """Join the plan with what is known of images, checked against the files."""
        index, scan = collect_index(self.workspace, self.cache, self.run if self.config.refresh else None)
        return Catalog(self.workspace, plan, index, scan, self.run)

    def shown(self, catalog: Catalog, work: WorkEstimate) -> Iterator[Picture]:
        """Yield the images that are there and that this run decodes later, for its contact sheet and its page."""
        if self.part is not None:
            return
        if (sample := self.sample(catalog)) is not None:
            yield from catalog.pictures(only=sample)
        elif work.images or not (self.workspace.root / CONTACT_SHEET).is_file():
            yield from catalog.spread_pictures(SHEET_IMAGES)
            yield from catalog.spread_pictures(THUMBNAILS)

    def pending(self, catalog: Catalog) -> Pending:
        """Return the images that this run has to make."""
        only = self.sample(catalog)
        retry_failed, reseed = self.config.retry_failed, self.config.reseed
        return Pending(catalog, retry_failed, reseed, only=only, part=self.part, again=self.again)

    def sample(self, catalog: Catalog) -> frozenset[str] | None:
        """Return the keys of the images that a preview makes; None for a run that makes all."""
        return catalog.sample(self.config.preview) if self.config.preview else None

    def estimate(self, catalog: Catalog, batch_size: int) -> WorkEstimate:
        """Count what there is to make, in batches of `batch_size`."""
        workers = self.generating.workers.count
        return estimate_work(self.pending(catalog), batch_size, self.config.save_interval, workers)

    def fetch(self, resolved: Resolved) -> LoadConfig:
        """Bring the model's files to this machine, if it can run the model; or let other machines do so."""
        self.start_workers(resolved)
        if self.config.dask_scheduler:
            return load_elsewhere(resolved)
        resolved = replace(resolved, config=with_own_device(self.config))
        announce_download(resolved)
        check_machine(resolved)
        return fetch(resolved, self.cache)

    def start_workers(self, resolved: Resolved) -> None:
        """Start the processes that generate, and check them, beside whatever comes next."""
        elsewhere = load_elsewhere(resolved).source if self.config.dask_scheduler else None
        packages = pixel_packages(self.config)
        output = self.workspace.root.absolute()
        self.generating.start(RunToJoin(self.run, output, self.config.device, packages, elsewhere))

    def generate(self, resolved: Resolved, catalog: Catalog, work: WorkEstimate, speeds: SpeedCache) -> WorkEstimate:
        """Make what is pending, shard by shard through a sliding window; return the work as it was then counted."""
        for line in lines_about_prompts(resolved, catalog):
            log.warning(line)
        load_config = self.fetch(resolved)
        if self.config.batch_size == "auto":
            try:
                speed = speeds.measure(self.pending(catalog).first(), load_config)
                work = self.estimate(catalog, speed.batch_size)
            except MeasureFailed as error:
                log.warning("batches   of %d, for none could be measured: %s", work.batch_size, error)
        warn_of_disk(*disk_space(work, catalog))
        context = RunContext(
            run=self.run,
            refresh=self.config.refresh or self.again is not None,
            model_name=resolved.model_name,
            commit=resolved.model.commit,
            tuning=load_config.tuning(),
            encoding=Encoding(self.config.image_format, self.config.png_compress_level, self.config.jpeg_quality),
            options=resolved.options,
            sampler=resolved.model.configs.get("scheduler", {}).get("_class_name"),
            thumbnails=has_gallery(self.config.gallery, catalog.plan.images),
        )
        # The images of a shard are missing, so a stored result of this very shard is stale.
        task = self.cache.bind(generate_shard_task, refresh=True)
        images, workers = self.workspace.images.absolute(), self.generating.workers

        def submit(shard: Shard, place: str) -> PrefectFuture[Any]:
            return workers.submit(task, shard.digest, *data(shard, images, load_config, context), place=place)

        sizes = shard_sizes(work.batches, self.config.save_interval, workers.count)
        shards = make_shards(self.pending(catalog), work.batch_size, sizes)
        with heeding_cancel(self.runner), progress(work.images, self.config.dataset_names) as shown:
            self.generating(shards, submit, shown)
        self.generating.record_deaths(self.cache, context)
        return work

    def finish(self, resolved: Resolved, catalog: Catalog, work: WorkEstimate) -> State[Any]:
        """Write manifest and report; return the state that says how it went."""
        # What `only` leaves out may not be made yet.
        catalog = replace(catalog, errors=self.generating.errors, interrupted=self.again is not None)

        def still_right(stored: dict[str, Any]) -> bool:
            return manifest_is_right(stored["files"], catalog, self.config)

        layout = Layout.of(self.config, catalog.plan.images)
        key = cache_key(
            catalog.plan.digest,
            [catalog.index.name, catalog.index.only_run],
            sorted(self.generating.errors.items()),
            asdict(layout),
        )
        stored = self.cache.call(write_manifest_task, key, catalog, self.config, is_valid=still_right)
        accounting = Accounting(**stored["accounting"])
        same_images = stored["run"] != self.run
        if same_images:
            accounting = accounting.all_reused()
        elif layout.named:
            self.workspace.checked_images.carry_over(catalog.scan, self.workspace.images.scan())
        report = self.report("finished", resolved, catalog, work, accounting)
        if self.config.prune:
            prune(self.workspace, report.unreferenced)
        remove_old_plans(catalog)
        report_task(*data(report, catalog, same_images))
        log.log(logging.ERROR if report.too_many_failures else logging.INFO, report.summary())
        self.show_gallery(catalog)
        shown = publish_task(*data(report, catalog), return_state=True)
        if not shown.is_completed():
            log.warning("the summary is not in Prefect: %s", shown.message)
        if self.again is not None and (left := not_made_again(catalog, self.again)):
            allowed = self.config.max_failures
            log.error("again     %s", left.message)
            return ended(left.message, too_many=exceeds(left.count, len(self.again), allowed))
        return finished(report)

    def show_gallery(self, catalog: Catalog) -> None:
        """Write the gallery, unless it is left out. One that cannot be written does not spoil the run."""
        if not has_gallery(self.config.gallery, catalog.plan.images):
            return
        try:
            log.info("\n".join(make_gallery(read_finished(self.workspace), self.cache, MISSING_THUMBNAILS)))
            if self.config.prune:
                prune_thumbnails(self.workspace)
        except UserError as error:
            log.warning("gallery   not written: %s", error)

    @ignoring_sigterm()
    def stop(self, resolved: Resolved, plan: Plan, work: WorkEstimate) -> str:
        """Wait until the batch in flight ended at its next denoising step, then write the files without Prefect.

        Return the sentence that says how far the run came. A preview has no files to write.

        Prefect raises the signal again when the flow's body ends, so all that must still happen happens here. A step
        that takes longer than `STOP_SECONDS` is not waited for.
        """
        self.generating.stop(STOP_SECONDS)
        if self.config.preview or self.part is not None:
            self.mark(PartState.STOPPED)
            log.info("stopped   run the same command again to go on")
            return f"stopped: the {'part' if self.part else 'preview'} is not complete"
        scan = scan_images(self.workspace)
        table = collect_records(records_key(scan, self.cache), self.config.output, scan)
        # With --refresh, too, images of other runs count: what the run did not come to still has its earlier picture.
        index = RecordIndex(self.workspace.records / table)
        catalog = Catalog(self.workspace, plan, index, scan, self.run, self.generating.errors, interrupted=True)
        report = self.report("interrupted", resolved, catalog, work, write_manifest(catalog, self.config))
        write_report(report, catalog)
        log.info(report.summary())
        publish_now(report, catalog)
        return report.message()

    def show_dry_run(self, resolved: Resolved, catalog: Catalog, work: WorkEstimate, speeds: SpeedCache) -> State[Any]:
        """Say what would be made and what it would take; make nothing."""
        speed = None
        if self.config.estimate and work.images:
            try:
                speed = speeds.measure(self.pending(catalog).first(), self.fetch(resolved))
                work = self.estimate(catalog, speed.batch_size)
            except MeasureFailed as error:
                log.warning("time      not known: %s", error)
        lines = [f"model     {model_title(self.config.model, resolved.preset)}"]
        if speeds.batch_size() is None:
            lines.append(f"batches   of {work.batch_size} are a guess until --estimate or a run measures them")
        lines += estimate_lines(work, resolved.model.weights_bytes, *disk_space(work, catalog), speed)
        lines += lines_about_prompts(resolved, catalog)
        if work.images:
            pending, denoiser = self.pending(catalog), denoiser_config(resolved.model.configs)
            line = text_line(pending.first(), resolved.preset, denoiser, pending.longest_prompt())
            lines += [line] if line else []
        if self.config.prune:
            lines.append(f"prune     would delete {prunable(catalog.unreferenced())}")
        log.info("\n".join(lines))
        return Completed(message=_plan_sentence(catalog.plan, work))

    def mark(self, state: PartState) -> None:
        """Note how this run's part stands, where it makes one."""
        if self.part is not None:
            PartMarks(self.workspace).note(self.part, state, self.run)

    def report(
        self, state: str, resolved: Resolved, catalog: Catalog, work: WorkEstimate, accounting: Accounting
    ) -> Report:
        """Return the report of this run."""
        return Report(
            state=state,
            run=self.run,
            config=self.config,
            model=resolved.model,
            preset=resolved.preset,
            work=work,
            accounting=accounting,
            startup_seconds=self.startup_seconds,
            seconds=time.perf_counter() - self.started,
            generating_seconds=self.generating.seconds,
            timings=dict(self.generating.timings),
            unreferenced=catalog.unreferenced(),
            workers=len(self.generating.made_by),
        )


def _plan_sentence(plan: Plan, work: WorkEstimate) -> str:
    return (
        f"{plan.rows} rows: {plan.usable} usable, {plan.skipped} skipped (have images), {plan.rejected} rejected; "
        f"{plan.images} images, {work.images} of them to make"
    )


@takes_options(Config)
def _text2image(**values: Any) -> Any:  # a `State[Any]`, which another process could not look up
    """Turn a data set of prompts into images and a manifest."""
    apply_settings()
    use_system_allocator()
    try:
        with with_place_to_write(Config.from_values(values)) as config:
            return Text2Image(config)()
    except (UserError, OSError) as error:
        return refused(as_users(error, values))


text2image = ConfiguredFlow(_text2image, name="text2image")
