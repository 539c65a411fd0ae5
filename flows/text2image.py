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
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.again import not_made_again
from flows.checks import announce_download, announce_guess, check_machine, check_output_folder, warn_of_disk
from flows.dry_run import show_dry_run
from flows.gallery import show_gallery
from flows.generating import Generating, record_death
from flows.housekeeping import current_results, hold_plan, pruned, remove_old_plans
from flows.inventory import Inventory, plan_sentence
from flows.launchers import find_part, with_own_device
from flows.outcomes import ended, finished, refused
from flows.parts import begin_part, end_part, makes, note_part, show_status
from flows.planning import Planning
from flows.preflight import check_at_once
from flows.preview import show_preview
from flows.prompts import warn_of_prompts
from flows.read_only import with_place_to_write
from flows.records import collect_at_once
from flows.resolve import Resolved, fetch, load_elsewhere, pixel_packages, resolve
from flows.runners import find_workers
from flows.signature import takes_options
from flows.speed import UNMEASURED_BATCH_SIZE, SpeedCache
from flows.system_errors import as_users
from flows.verification import repair_as_asked, verify
from flows.workers import RunToJoin
from t2i_core.config import Config
from t2i_core.dataset.sources import find_parts, fingerprint, hashed
from t2i_core.errors import UserError
from t2i_core.generation.image_writer import RunContext
from t2i_core.generation.interface import LoadConfig
from t2i_core.output.accounting import Accounting, exceeds
from t2i_core.output.identity import claim_output, open_output
from t2i_core.output.layout import Layout, has_gallery
from t2i_core.output.manifest import check_names, manifest_is_right, write_manifest
from t2i_core.output.part_marks import PartState
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.growing import GrowingCatalog
from t2i_core.planning.pending import Pending
from t2i_core.planning.plan import Plan
from t2i_core.planning.shards import Shard, WorkEstimate, growing_shard_sizes, make_shards
from t2i_core.reports.estimate import disk_space
from t2i_core.reports.pictures import delete_damaged
from t2i_core.reports.report import Report, write_report
from t2i_core.storage.formats import Encoding
from t2i_core.storage.leases import Lease
from t2i_core.storage.run_marks import RunMarks
from t2i_core.storage.tables import use_system_allocator
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key, data, read_by
from tasks.generation import generate_shard_task
from tasks.manifest import accounting_of, write_manifest_task
from tasks.process import THIS_PROCESS, result_of
from tasks.progress import progress
from tasks.reports import name_flow_run, publish_now, publish_task, report_task
from tasks.server_wait import WAIT, waiting_as_asked
from tasks.settings import ConfiguredFlow, apply_settings
from tasks.stopping import Cancel, after_cancel, heeding_cancel, ignoring_sigterm, runner_process, second_means_now

# Not `__name__`: `prefect flow serve` loads this file under another module name.
log = logging.getLogger("flows.text2image")

# A runner kills 30 s after it asked to stop; the manifest still has to be written within them.
STOP_SECONDS = 15
# So long a run waits for its plan before it makes images of what is planned by then.
EARLY_SECONDS = 3.0


class Text2Image:
    """One run: the stages of the flow in their order, and what they hand to each other."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.part = find_part(config.part) if config.part else None
        self.run = str(flow_run.get_id())
        self.workspace = Workspace(config.output)
        self.lease = Lease(self.workspace.leases, self.run)
        self.cache = ResultCache(self.workspace.results, config.retries)
        self.startup_seconds = THIS_PROCESS.startup_seconds()
        self.started = time.perf_counter()
        self.counted: Future[WorkEstimate] | None = None  # of a data set that is still read
        self.cancel, self.stopped = Cancel(), "stopped: it was cancelled"
        self.generating = Generating(find_workers(config), RunMarks(self.workspace.running, self.run))
        workers = self.generating.workers.count
        self.inventory = Inventory(config, self.part, self.run, self.workspace, self.cache, workers)

    def __call__(self) -> State[Any]:
        """Run the stages; leave neither a process nor a lease behind."""
        try:
            with heeding_cancel(self.cancel, runner_process()):
                state = self.stages()
            if not self.cancel.pressed:
                return state
        except (Exception, TerminationSignal) as error:  # Prefect takes no other end of a run that was cancelled
            if not self.cancel.pressed:
                raise
            self.stopped = after_cancel(error, self.stopped)
        finally:
            try:
                self.generating.end()
            finally:
                self.lease.end()
        return Cancelled(message=self.stopped)

    def stages(self) -> State[Any]:
        """Run the stages, like a table of contents."""
        THIS_PROCESS.start_run(self.run)
        name_flow_run(self.config)
        check_output_folder(self.config)
        check_at_once(self.config)
        found = hashed(find_parts(self.config.dataset))
        identity = open_output(self.workspace, self.config, fingerprint(found))
        repair_as_asked(self.workspace, self.config)
        resolved = resolve(self.config, self.cache, identity.commits)
        announce_guess(resolved)
        planning = Planning(resolved, found, self.workspace, self.cache)
        hold_plan(self.workspace, self.lease, planning.digest, makes(self.part, self.config))
        if not self.config.only_looks and planning.is_new():  # asked before its thread may have written it
            self.start_workers(resolved)  # a new plan has new images
        with planning:
            waits = self.config.only_looks or self.config.preview or self.config.only or self.config.replace
            plan = planning.plan() if waits else planning.begun(EARLY_SECONDS)
            if not self.config.only_looks:
                claim_output(self.workspace, replace(identity, commits=resolved.commits), take_over=self.config.replace)
                self.workspace.remove_stale_files()
                begin_part(self.part, self.workspace, self.lease, self.run, planning.digest)
            if self.config.status and plan:
                return show_status(self.inventory.collect(plan))
            return self.work(resolved, planning, plan)

    def work(self, resolved: Resolved, planning: Planning, plan: Plan | None) -> State[Any]:
        """Make what is missing, and write what a run leaves, also where it is stopped; or only say what there is.

        `plan`: None as long as the data set is still read.
        """
        catalog = self.inventory.first(plan) if plan else None
        speeds = SpeedCache(self.config, resolved.settings, self.cache, self.generating.workers, self.run)
        work = None
        try:
            if catalog is None:
                work = self.generate_early(resolved, planning, speeds)
                catalog = self.inventory.collect(planning.plan())
            name_flow_run(self.config, catalog.plan.prompts)
            if work is None:
                work = self.inventory.estimate(catalog, speeds.batch_size() or UNMEASURED_BATCH_SIZE)
                if not self.config.only_looks and delete_damaged(
                    self.inventory.shown(catalog, work), self.workspace.images
                ):
                    catalog = self.inventory.collect(catalog.plan)
                    work = self.inventory.estimate(catalog, work.batch_size)
                log.info("plan      %s", plan_sentence(catalog.plan, work))
                if self.config.only_looks:
                    return show_dry_run(resolved, catalog, work, speeds, self.inventory, self.fetch)
                if work.images:
                    check_names(catalog, self.config)
                    # The earlier catalog goes before the next one comes: each of a million images takes 100 MB.
                    plan, work, catalog = catalog.plan, self.generate(resolved, catalog, work, speeds), None
                    catalog = self.inventory.collect(plan)
            # What `only` leaves out may not be made yet.
            catalog = replace(catalog, errors=self.generating.errors, interrupted=self.inventory.again is not None)
            if (sample := self.inventory.sample(catalog)) is not None:
                return show_preview(self.config, catalog, sample, work, self.generating.seconds)
            if self.part is not None:
                state = PartState.STOPPED if self.generating.gave_up else PartState.FINISHED
                note_part(self.part, self.workspace, self.run, planning.digest, state)
                return end_part(self.part, catalog, self.config)
            return self.finish(resolved, catalog, work)
        except BaseException as error:
            if not (isinstance(error, KeyboardInterrupt | TerminationSignal) or self.cancel.pressed):
                raise
            self.cancel.end()
            THIS_PROCESS.stop.set()  # `--estimate` measures until then
            if not self.config.only_looks:
                with ignoring_sigterm(), second_means_now(self.config):
                    self.stopped = self.stop(resolved, planning, work)
            raise

    def fetch(self, resolved: Resolved) -> LoadConfig:
        """Bring the model's files to this machine, if it can run the model; or let other machines do so."""
        self.start_workers(resolved)
        if self.config.dask_scheduler:
            return load_elsewhere(resolved)
        if self.config.has_one_device:
            resolved = replace(resolved, config=self.generating.workers.ask(with_own_device, self.config))
        announce_download(resolved)
        for line in self.generating.workers.ask(check_machine, resolved, self.generating.workers.count):
            log.warning(line)
        return fetch(resolved, self.cache)

    def start_workers(self, resolved: Resolved) -> None:
        """Start the processes that generate, and check them, beside whatever comes next."""
        elsewhere = load_elsewhere(resolved).source if self.config.dask_scheduler else None
        output = self.workspace.root.absolute()
        self.generating.start(RunToJoin(self.run, output, self.config.device, pixel_packages(self.config), elsewhere))

    def generate(self, resolved: Resolved, catalog: Catalog, work: WorkEstimate, speeds: SpeedCache) -> WorkEstimate:
        """Make what is pending; return the work as it was then counted."""
        warn_of_prompts(resolved, catalog.plan, self.workspace.plans, self.generating.workers)
        load_config, pending = self.fetch(resolved), self.inventory.pending(catalog)
        batch_size = speeds.measured_batch_size(pending, load_config)
        if batch_size != work.batch_size:
            work = self.inventory.estimate(catalog, batch_size)
        warn_of_disk(*disk_space(work, catalog))
        counted: Future[WorkEstimate] = Future()
        counted.set_result(work)
        self.make(resolved, load_config, pending, batch_size, counted, lambda: catalog.plan.images)
        return work

    def generate_early(self, resolved: Resolved, planning: Planning, speeds: SpeedCache) -> WorkEstimate | None:
        """Make what is pending while the data set is still read; return the work, or None where nothing was pending."""
        index, scan = self.inventory.known()
        pending = self.inventory.pending(GrowingCatalog(self.workspace.plans, planning.digest, planning.growth, index))
        if next(pending.requests(), None) is None:
            return None
        log.info("plan      the data set is still read; images of its first rows are made meanwhile")
        load_config = self.fetch(resolved)
        batch_size = speeds.measured_batch_size(pending, load_config)

        def count(plan: Plan) -> WorkEstimate:
            catalog = Catalog(self.workspace, plan, index, scan, self.run)
            check_names(catalog, self.config)
            work = self.inventory.estimate(catalog, batch_size)
            log.info("plan      %s", plan_sentence(plan, work))
            warn_of_disk(*disk_space(work, catalog))
            return work

        self.counted = planning.then(count)
        planning.then(lambda plan: warn_of_prompts(resolved, plan, self.workspace.plans, self.generating.workers))
        self.make(resolved, load_config, pending, batch_size, self.counted, planning.growth.images)
        return result_of(self.counted)

    def make(
        self,
        resolved: Resolved,
        load_config: LoadConfig,
        pending: Pending,
        batch_size: int,
        counted: "Future[WorkEstimate]",
        planned: Callable[[], int],
    ) -> None:
        """Make what is pending, shard by shard through a sliding window.

        `counted`: the work, once it is known. `planned`: how many images the data set has, as far as it is read.
        """
        context = RunContext(
            run=self.run,
            refresh=self.config.refresh or self.inventory.again is not None,
            model_name=resolved.model_name,
            commit=resolved.model.commit,
            tuning=load_config.tuning(),
            encoding=Encoding(self.config.image_format, self.config.png_compress_level, self.config.jpeg_quality),
            options=resolved.options,
            sampler=resolved.model.configs.get("scheduler", {}).get("_class_name"),
        )
        # The images of a shard are missing, so a stored result of this very shard is stale.
        task = self.cache.bind(generate_shard_task, refresh=True)
        images, workers = self.workspace.images.absolute(), self.generating.workers

        def submit(shard: Shard, place: str) -> PrefectFuture[Any]:
            own = replace(context, thumbnails=has_gallery(self.config.gallery, planned()))
            return workers.submit(task, shard.digest, *data(shard, images, load_config, own), place=place)

        def work() -> WorkEstimate | None:
            return counted.result() if counted.done() else None

        def batches() -> int | None:
            return found.batches if (found := work()) else None

        sizes = growing_shard_sizes(batches, self.config.save_interval, workers.count)
        begun = work()
        shards = make_shards(pending, batch_size, sizes, begun.shards if begun else None)
        with self.cancel.looked_at(), progress(begun.images if begun else None, self.config.dataset_names) as shown:
            counted.add_done_callback(shown.expect)
            self.generating(shards, submit, shown, partial(record_death, self.cache, context, workers))

    def finish(self, resolved: Resolved, catalog: Catalog, work: WorkEstimate) -> State[Any]:
        """Write manifest and report; return the state that says how it went."""

        def still_right(stored: dict[str, Any]) -> bool:
            return read_by(accounting_of)(stored) and manifest_is_right(stored["files"], catalog, self.config)

        layout = Layout.of(self.config, catalog.plan.images)
        key = cache_key(
            catalog.plan.digest,
            [catalog.index.name, catalog.index.only_run],
            sorted(self.generating.errors.items()),
            asdict(layout),
        )
        stored = self.cache.call(write_manifest_task, key, catalog, self.config, is_valid=still_right)
        accounting = accounting_of(stored)
        same_images = stored["run"] != self.run
        if same_images:
            accounting = accounting.all_reused()
        elif layout.named or self.workspace.checked_images.touched(catalog.scan):
            self.workspace.checked_images.carry_over(catalog.scan, self.workspace.images.scan())
        report = self.report("finished", resolved, catalog, work, accounting)
        if self.config.prune:
            report = pruned(report, catalog, self.lease, stored["files"])
        remove_old_plans(catalog, self.lease)
        self.cache.forget_others(current_results(catalog, key))
        report_task(*data(report, catalog, same_images))
        log.log(logging.ERROR if report.too_many_failures else logging.INFO, report.summary())
        show_gallery(self.config, self.workspace, self.cache, catalog.plan.images)
        shown = publish_task(*data(report, catalog), return_state=True)
        if not shown.is_completed() and not WAIT.given_up:
            log.warning("the summary is not in Prefect: %s", shown.message)
        if self.inventory.again is not None and (left := not_made_again(catalog, self.inventory.again)):
            allowed = self.config.max_failures
            log.error("again     %s", left.message)
            return ended(left.message, too_many=exceeds(left.count, len(self.inventory.again), allowed))
        return finished(report)

    def stop(self, resolved: Resolved, planning: Planning, work: WorkEstimate | None) -> str:
        """Wait until the batch in flight ended at its next denoising step, then write the files, without tasks.

        Return the sentence that says how far the run came. A preview and a part have no files to write, nor has a run
        that did not read its data set to the end.

        Prefect raises the signal again when the flow's body ends, so all that must still happen happens here. A step
        that takes longer than `STOP_SECONDS` is not waited for.
        """
        self.generating.stop(STOP_SECONDS)
        plan = planning.written()
        if work is None and self.counted is not None and plan is not None:
            work = self.counted.result()
        if self.config.preview or self.part is not None:
            if self.part is not None:
                note_part(self.part, self.workspace, self.run, planning.digest, PartState.STOPPED)
            log.info("stopped   run the same command again to go on")
            return f"stopped: the {'part' if self.part else 'preview'} is not complete"
        if plan is None or work is None:
            log.info("stopped   before the data set was read to its end; run the same command again to go on")
            return "stopped: the data set was not read to its end; images that were made are kept"
        # With --refresh, too, images of other runs count: what the run did not come to still has its earlier picture.
        index, scan = collect_at_once(self.workspace, self.cache)
        catalog = Catalog(self.workspace, plan, index, scan, self.run, self.generating.errors, interrupted=True)
        report = self.report("interrupted", resolved, catalog, work, write_manifest(catalog, self.config))
        write_report(report, catalog)
        log.info(report.summary())
        publish_now(report, catalog)
        return report.message()

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
            workers=len(self.generating.standing.made_by),
        )


@takes_options(Config)
def _text2image(**values: Any) -> Any:  # a `State[Any]`, which another process could not look up
    """Turn a data set of prompts into images and a manifest."""
    apply_settings()
    use_system_allocator()
    try:
        asked = waiting_as_asked(Config.from_values(values))
        with with_place_to_write(asked) as config:
            return verify(config, asked) if config.only_verifies else Text2Image(config)()
    except (UserError, OSError) as error:
        return refused(as_users(error, values))


text2image = ConfiguredFlow(_text2image, name="text2image")
