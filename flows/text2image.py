"""From a file of prompts to images and a manifest.

python -m flows.text2image --dataset prompts.jsonl --model flux-dev
"""

if __name__ == "__main__":
    # Before the imports below, so that --help and a wrong flag are answered at once; and so that the flow always
    # lives in an importable module: what lives in `__main__` is pickled by value for other processes.
    from flows.cli import main

    raise SystemExit(main())

import inspect
import logging
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.steps import Resolved, check_output, prune, remove_old_plans, resolve, unreferenced
from t2i_core.config import Config, parameters
from t2i_core.drawing import Speed, Weights
from t2i_core.errors import MeasureFailed, UserError
from t2i_core.estimate import bytes_per_pixel, disk
from t2i_core.estimate import lines as work_lines
from t2i_core.generate import Making
from t2i_core.manifest import Accounting, Outcome, manifest_is_right, write_manifest
from t2i_core.output import save_identity
from t2i_core.plan import Plan
from t2i_core.records import Known
from t2i_core.report import Report, write_report
from t2i_core.shards import Order, Selection, Shard, Work, count_work, first_missing, make_shards
from t2i_core.store import Scan, Store
from tasks.caching import ResultCache, cache_key, data
from tasks.dataset import load_dataset_task
from tasks.generation import (
    SHARD_RECIPE,
    SPEED_RECIPE,
    THIS_PROCESS,
    generate_shard_task,
    in_window,
    measure_speed_task,
)
from tasks.manifest import write_manifest_task
from tasks.model import fetch_weights_task
from tasks.records import collect_records, collect_records_task
from tasks.reporting import name_flow_run, progress, publish_now, publish_task, report_task
from tasks.stopping import CancelledInPrefect, heeding_cancel, ignoring_sigterm

# By name: where Prefect loads the flow from this file, as `prefect flow serve` does, the module is called otherwise.
log = logging.getLogger("flows.text2image")

# Names of final states that are not a plain success; the command line turns them into exit codes.
REFUSED = "Refused"
TOO_MANY_FAILURES = "TooManyFailures"

# Shards submitted and unfinished: one that draws, one whose last images are being written, and one that is next.
WINDOW = 3
# A runner kills 30 s after it asked to stop; the manifest still has to be written within them.
STOP_SECONDS = 15
# What a dry run reckons with where batch_size is `auto` and nothing was measured yet.
UNMEASURED_BATCH_SIZE = 4


class Text2Image:
    """One run: the steps of the flow in their order, and what they hand to each other."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.run = str(flow_run.get_id())
        self.store = Store(config.output)
        self.cache = ResultCache(self.store.results, config.retries)
        self.started = time.perf_counter()
        self.generating_seconds = 0.0
        self.errors: dict[str, str] = {}
        self.timings: Counter[str] = Counter()  # seconds by stage, of the shards that ended well

    def __call__(self) -> State[Any]:
        """The table of contents."""
        THIS_PROCESS.stop.clear()  # of an earlier run in this process
        name_flow_run(self.config)
        identity = check_output(self.config, self.store)
        resolved = resolve(self.config, self.cache, identity)
        plan = self.load_dataset(resolved, identity.fingerprint)
        name_flow_run(self.config, plan.prompts)
        foresees = self.config.dry_run or self.config.estimate
        if not foresees:
            save_identity(self.store, identity)
            self.store.remove_stale()
        known = self.collect()
        selection = Selection(known, self.config.retry_failed, self.config.reseed)
        work = self.count(plan, selection, self.known_batch_size(resolved))
        log.info("plan      %s", _plan_sentence(plan, work))
        try:
            if foresees:
                return self.foresee(resolved, plan, selection, work)
            if work.images:
                work = self.generate(resolved, plan, selection, work)
                known = self.collect()
            return self.finish(resolved, plan, known, work)
        except CancelledInPrefect:
            return Cancelled(message=self.stop(resolved, plan, work).message())
        except (KeyboardInterrupt, TerminationSignal):
            if not foresees:
                self.stop(resolved, plan, work)
            raise

    def load_dataset(self, resolved: Resolved, fingerprint: str) -> Plan:
        """Rows -> image specs with their keys, on disk."""
        key = cache_key(fingerprint, resolved.plan_settings())

        def still_true(stored: dict[str, Any]) -> bool:
            return Plan(**stored).exists(self.store.plans)

        stored = self.cache.call(load_dataset_task, key, still_true, self.config, resolved.recipe, resolved.preset)
        return Plan(**stored)

    def collect(self) -> Known:
        """What is known of images, checked against the files."""
        self.scan = scan = self.store.scan()
        key = self._records_key(scan)

        def still_true(name: str) -> bool:
            return (self.store.records / name).is_file()

        name = self.cache.call(collect_records_task, key, still_true, self.config.output, scan)
        return Known(self.store.records / name, only_run=self.run if self.config.refresh else None)

    def known_batch_size(self, resolved: Resolved) -> int:
        """As configured, or as measured by an earlier run of this output; until then a guess, good for a dry run."""
        if self.config.batch_size != "auto":
            return self.config.batch_size
        return self._measured_batch_size(resolved) or UNMEASURED_BATCH_SIZE

    def _measured_batch_size(self, resolved: Resolved) -> int | None:
        stored = self.cache.read(f"{SPEED_RECIPE}/{self._speed_key(resolved, None)}")
        return Speed(**stored).batch_size if stored else None

    def count(self, plan: Plan, selection: Selection, batch_size: int) -> Work:
        """What there is to make, in batches of `batch_size`."""
        return count_work(plan.specs_file(self.store.plans), selection, batch_size, self.config.save_interval)

    def fetch(self, resolved: Resolved) -> Weights:
        """The model's files on this machine, and how to load them."""
        resolved.announce()
        resolved.check_machine()
        model, adapters = resolved.model.to_json(), [adapter.to_json() for adapter in resolved.adapters]
        places = (self.config.cache_dir, self.config.local_dir)

        def still_true(stored: dict[str, Any]) -> bool:
            return resolved.weights_are_there() and all(Path(path).is_file() for path in stored["adapters"])

        key = cache_key(model, adapters, places)
        paths = self.cache.call(fetch_weights_task, key, still_true, model, adapters, *places)
        return Weights(
            path=paths["model"],
            dtype=resolved.recipe.dtype,
            device=self.config.device,
            scheduler=resolved.recipe.sampling.scheduler,
            adapters=tuple((p, a.weight) for p, a in zip(paths["adapters"], resolved.adapters, strict=True)),
            text_encoder=self.config.text_encoder,
            offload=self.config.offload,
            compile=self.config.compile,
            quantization=resolved.recipe.quantization,
            prepare=self.config.prepare,
        )

    def measure(self, resolved: Resolved, plan: Plan, selection: Selection, weights: Weights) -> Speed:
        """What an image costs; in batches as configured, or for `auto` in those that are best. Measured once."""
        batch_size = None if self.config.batch_size == "auto" else self.config.batch_size
        spec = first_missing(plan.specs_file(self.store.plans), selection)
        # An output keeps its batch size, on whatever device it goes on; how fast that is, is the device's own.
        key = self._speed_key(resolved, batch_size, *([resolved.device(), spec.call_group] if batch_size else []))
        return Speed(**self.cache.call(measure_speed_task, key, lambda _: True, weights, spec, batch_size))

    def _speed_key(self, resolved: Resolved, batch_size: int | None, *more: object) -> str:
        tuning = [self.config.text_encoder, self.config.offload, self.config.compile]
        return cache_key(asdict(resolved.recipe), tuning, batch_size, *more)

    def generate(self, resolved: Resolved, plan: Plan, selection: Selection, work: Work) -> Work:
        """Make what is missing, shard by shard through a sliding window; returns the work as it was then counted."""
        weights = self.fetch(resolved)
        if self.config.batch_size == "auto":
            try:
                work = self.count(plan, selection, self.measure(resolved, plan, selection, weights).batch_size)
            except MeasureFailed as error:
                log.warning("batches   of %d, for none could be measured: %s", work.batch_size, error)
        self._warn_of_disk(plan, selection, work)
        making = Making(
            run=self.run,
            refresh=self.config.refresh,
            model_name=self.config.model,
            commit=resolved.model.commit,
            tuning=weights.tuning(),
            png_compress_level=self.config.png_compress_level,
        )

        def submit(shard: Shard) -> Any:
            # Its images are missing, so a stored result of this very shard is stale.
            task = self.cache.bind(generate_shard_task, shard.digest, lambda _: False)
            return task.submit(shard.digest, *data(shard, self.config.output, weights, making))

        specs_file = plan.specs_file(self.store.plans)
        shards = make_shards(specs_file, selection, work.batch_size, self.config.save_interval, work.shards)
        started, done = time.perf_counter(), 0
        try:
            with heeding_cancel(), progress(work.images, self.config.dataset) as bar:
                for shard, future in in_window(shards, submit, WINDOW):
                    result = future.result(raise_on_failure=False)
                    if THIS_PROCESS.stop.is_set():
                        break
                    self._note(shard.orders, result)
                    done += len(shard.orders)
                    # Shards elsewhere tell nothing of single images; the next shard here may be ahead.
                    bar.n = min(work.images, max(bar.n, done))
                    bar.refresh()
        except UserError:
            THIS_PROCESS.stop.set()  # the other shard in flight would meet the same
            raise
        finally:
            self.generating_seconds = time.perf_counter() - started
        return work

    def _warn_of_disk(self, plan: Plan, selection: Selection, work: Work) -> None:
        outcome = Outcome(self.config, plan, selection.known, self.run, {})
        needed, free = disk(work, bytes_per_pixel(outcome), self.store.root)
        if needed > free:
            log.warning("disk      about %.1f GB are needed, %.1f GB are free", needed / 1e9, free / 1e9)

    def _note(self, orders: list[Order], result: object) -> None:
        """A shard says why each image of it failed; a lost one says why for all. What is on disk counts anyway."""
        if isinstance(result, dict):
            self.timings.update(result["timings"])
            self.errors |= result["failures"]
        elif isinstance(result, UserError):
            raise result
        elif isinstance(result, BaseException):
            reason = f"its shard failed: {type(result).__name__}: {result}"
            self.errors |= {order.replaces or order.key: reason for order in orders}

    def finish(self, resolved: Resolved, plan: Plan, known: Known, work: Work) -> State[Any]:
        """Manifest, report, and the sentence that says how it went."""
        outcome = Outcome(self.config, plan, known, self.run, self.errors)
        key = cache_key(
            plan.digest,
            [known.name, known.only_run],
            sorted(self.errors.items()),
            [self.config.output, self.config.manifest_name, self.config.image_key, outcome.named],
        )

        def still_true(stored: dict[str, Any]) -> bool:
            return manifest_is_right(stored["files"], outcome, self.store, self.scan)

        stored = self.cache.call(write_manifest_task, key, still_true, outcome, self.scan)
        accounting = Accounting(**stored["accounting"])
        if stored["run"] != self.run:
            accounting = accounting.all_reused()
        if self.config.prune:
            prune(outcome, self.store)
        remove_old_plans(plan, self.store)
        report = self._report("finished", resolved, outcome, work, accounting)
        report_task(*data(report, outcome))
        log.log(logging.ERROR if report.too_many_failures else logging.INFO, report.summary())
        shown = publish_task(*data(report, outcome), return_state=True)
        if not shown.is_completed():
            log.warning("the summary is not in Prefect: %s", shown.message)
        if report.too_many_failures:
            return Failed(name=TOO_MANY_FAILURES, message=report.message())
        return Completed(message=report.message())

    @ignoring_sigterm()
    def stop(self, resolved: Resolved, plan: Plan, work: Work) -> Report:
        """Told to stop: the batch in flight ends at its next step; then the files are written without Prefect.

        Prefect raises the signal again when the flow's body ends, so all that must still happen happens here.
        """
        THIS_PROCESS.stop.set()
        THIS_PROCESS.wait_until_idle(STOP_SECONDS)
        scan = self.store.scan()
        # With --refresh, too: what it did not come to still has its earlier picture.
        table_name = collect_records(self._records_key(scan), self.config.output, scan)
        known = Known(self.store.records / table_name)
        outcome = Outcome(self.config, plan, known, self.run, self.errors, interrupted=True)
        accounting = write_manifest(outcome, self.store, scan)
        report = self._report("interrupted", resolved, outcome, work, accounting)
        write_report(report, outcome, self.store)
        log.info(report.summary())
        publish_now(report, outcome)
        return report

    def foresee(self, resolved: Resolved, plan: Plan, selection: Selection, work: Work) -> State[Any]:
        """Say what would be made and what it would take; make nothing."""
        speed = None
        if self.config.estimate and work.images:
            try:
                speed = self.measure(resolved, plan, selection, self.fetch(resolved))
                work = self.count(plan, selection, speed.batch_size)
            except MeasureFailed as error:
                log.warning("time      not known: %s", error)
        outcome = Outcome(self.config, plan, selection.known, self.run, {})
        needed, free = disk(work, bytes_per_pixel(outcome), self.store.root)
        lines = [f"model     {resolved.preset.name}"]
        if self.config.batch_size == "auto" and not self._measured_batch_size(resolved) and speed is None:
            lines.append(f"batches   of {work.batch_size} are a guess until --estimate or a run measures them")
        log.info("\n".join([*lines, *work_lines(work, resolved.model, needed, free, speed)]))
        return Completed(message=_plan_sentence(plan, work))

    def _records_key(self, scan: Scan) -> str:
        return cache_key(scan.digest(), self.cache.listing(SHARD_RECIPE))

    def _report(self, state: str, resolved: Resolved, outcome: Outcome, work: Work, accounting: Accounting) -> Report:
        return Report(
            state=state,
            run=self.run,
            config=self.config,
            model=resolved.model,
            preset=resolved.preset,
            work=work,
            accounting=accounting,
            seconds=time.perf_counter() - self.started,
            generating_seconds=self.generating_seconds,
            timings=dict(self.timings),
            unreferenced=unreferenced(outcome, self.store),
        )


def _plan_sentence(plan: Plan, work: Work) -> str:
    return (
        f"{plan.rows} rows: {plan.usable} usable, {plan.skipped} skipped (have images), {plan.rejected} rejected; "
        f"{plan.images} images, {work.images} of them to make"
    )


def _text2image(**values: Any) -> State[Any]:
    try:
        return Text2Image(Config.from_values(values))()
    except UserError as error:
        return Failed(name=REFUSED, message=str(error))


# Prefect builds the form and the checks of a deployment from a signature: the one of the configuration, flat, because
# a deployment's nested parameters are replaced whole when one of them is overridden.
_text2image.__signature__ = inspect.Signature(parameters())  # type: ignore[attr-defined]
_text2image.__doc__ = "Text to image over a data set.\n\nArgs:\n" + "\n".join(
    f"    {name}: {field.description}" for name, field in Config.model_fields.items()
)

# Two workers for one device: a shard's last images are written while the next one draws.
_two_workers: Any = ThreadPoolTaskRunner(max_workers=2)
text2image = flow(name="text2image", task_runner=_two_workers)(_text2image)
