"""The report of a run: the summary that a person reads, `run.json`, and the contact sheet."""

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from t2i_core import __version__
from t2i_core.config import Config
from t2i_core.models.identity import ResolvedModel
from t2i_core.models.preset_choice import licence_of, model_title
from t2i_core.models.presets import Preset
from t2i_core.output.accounting import Accounting
from t2i_core.output.identity import stored_identity
from t2i_core.output.layout import CONTACT_SHEET, FAILURES, PROVENANCE, RUN
from t2i_core.output.own_files import OwnFiles
from t2i_core.planning.catalog import Catalog, Unreferenced
from t2i_core.planning.shards import WorkEstimate
from t2i_core.reports.contact_sheet import write_contact_sheet
from t2i_core.reports.prompt_lines import rows, unread_sentence

SHEET_IMAGES = 24
PACKAGES = ("prefect", "torch", "diffusers", "transformers", "huggingface_hub", "pillow")


@dataclass(frozen=True, slots=True)
class Report:
    """What a finished or interrupted run did, with what, and how long that took."""

    state: str  # finished | interrupted
    run: str
    config: Config
    model: ResolvedModel
    preset: Preset
    work: WorkEstimate
    accounting: Accounting
    startup_seconds: float  # from the start of the command until the flow began; 0 where that is not one run's
    seconds: float  # of the flow
    generating_seconds: float
    timings: dict[str, float]  # seconds by stage, added up over threads
    unreferenced: Unreferenced
    workers: int = 1  # processes that made something
    not_pruned: str = ""  # why `prune` deleted nothing, where it did not

    @property
    def images_per_second(self) -> float:
        """The images made in this run, by the time it took to make them."""
        return self.accounting.images_generated / self.generating_seconds if self.generating_seconds else 0.0

    @property
    def too_many_failures(self) -> bool:
        """Whether there are more failures than `max_failures` allows."""
        return self.accounting.too_many_failures(self.config.max_failures)

    def message(self) -> str:
        """Return one sentence for the run's final state in Prefect."""
        counts = self.accounting
        text = "stopped: " if self.state == "interrupted" else ""
        text += f"{counts.images_generated} images made, {counts.images_reused} reused"
        if counts.images_pending:
            text += f", {counts.images_pending} not made yet"
        if counts.failures:
            text += f", {counts.failures} failures: see {self.config.output.rstrip('/')}/{FAILURES}"
        return text

    def time_spent(self) -> str:
        """Return how long the run took since its command was started, and how fast it made its images."""
        text = f"{self.startup_seconds + self.seconds:.1f} s"
        if self.startup_seconds:
            text += f", of which {self.startup_seconds:.1f} s start-up"
        if self.accounting.images_generated:
            text += f", {self.images_per_second:.2f} images/s"
            text += f" by {self.workers} workers" if self.workers > 1 else ""
        return text

    def summary(self) -> str:
        """Return the lines that a person reads after a run."""
        a, output = self.accounting, self.config.output.rstrip("/")
        lines = [
            f"model     {model_title(self.config.model, self.preset)}",
            f"rows      {a.rows}: {a.rows_generated} generated, {a.rows_reused} reused, "
            f"{a.rows_skipped} skipped (had images), {a.rows_failed} failed" + _pending(a.rows_pending),
            f"images    {a.images}: {a.images_generated} generated, {a.images_reused} reused, "
            f"{a.images_failed} failed" + _pending(a.images_pending),
            f"time      {self.time_spent()}",
            f"manifest  {output}/{self.config.manifest_name}",
        ]
        if a.failures:
            lines.append(f"failures  {output}/{FAILURES}")
        if a.images_unsafe:
            lines.append(f"safety    {unsafe_images(a)}")
        if a.images_present:
            lines.append(f"sheet     {output}/{CONTACT_SHEET}")
        if a.images_cut:
            lines.append(
                f"cut       {a.images_cut} images have a prompt longer than a text encoder takes "
                f"({rows(a.rows_cut)}): prompt_lengths in {PROVENANCE}"
            )
        if a.prompts_unread:
            unread = unread_sentence(a.prompts_unread, a.unread_by, a.rows_unread)
            lines.append(f"unread    {unread}: prompt_lengths in {PROVENANCE}")
        lines += self._unused()
        lines.append(f"licence   {licence_of(self.model, self.preset)}")
        if self.state == "interrupted":
            again = "without --refresh " if self.config.refresh else ""
            lines.append(f"stopped   run the same command again {again}to go on")
        return "\n".join(lines)

    def _unused(self) -> list[str]:
        """Return the line about images that the manifest does not name. A limited run read too little to say so."""
        unused = self.unreferenced
        if self.not_pruned:
            return [f"pruned    nothing: {self.not_pruned}"]
        if self.config.prune and self.state == "finished":
            return [f"pruned    {prunable(unused)}"]
        if not unused.keys or self.config.limit:
            return []
        them = f"them and {_earlier_manifests(unused)}" if unused.manifests else "them"
        return [f"unused    {_stored_images(unused)}, are not in this manifest; --prune deletes {them}"]


def prunable(unused: Unreferenced) -> str:
    """Return how many images, megabytes and earlier manifests `--prune` deletes."""
    return _stored_images(unused) + (f", and {_earlier_manifests(unused)}" if unused.manifests else "")


def unsafe_images(accounting: Accounting) -> str:
    """Return how many images failed because of the model's safety checker."""
    count, failed = accounting.images_unsafe, accounting.images_failed
    return f"{count} of {failed} failed images: replaced or refused by the model's safety checker"


def write_report(report: Report, catalog: Catalog, *, same_images: bool = False) -> None:
    """Write run.json and contact_sheet.jpg. `same_images`: since the last run; then a sheet that is there is kept."""
    files = OwnFiles(catalog.workspace, replace=report.config.replace)
    if not (same_images and (catalog.workspace.root / CONTACT_SHEET).is_file()):
        _write_contact_sheet(report, catalog, files)
    text = json.dumps(run_json(report, catalog), indent=1, ensure_ascii=False)
    with files.write(RUN) as file:
        file.write((text + "\n").encode())


def run_json(report: Report, catalog: Catalog) -> dict[str, Any]:
    """Return what run.json holds: configuration, data set, model, accounting, versions; and a copy of output.json."""
    model, plan, work = report.model, catalog.plan, asdict(report.work)
    work["effort"] = work.pop("pixel_steps")  # its name in the file since the first version
    return {
        "state": report.state,
        "run": report.run,
        "message": report.message(),
        "configuration": report.config.model_dump(),
        "data_set": {"name": report.config.dataset} | plan.to_summary(),
        "model": {
            "name": report.config.model,
            "preset": report.preset.name,
            "about": report.preset.about,
            "guess": report.preset.reason or None,
            "source": model.source,
            "location": model.location,
            "commit": model.commit,
            "checkpoints": [checkpoint.to_json() for checkpoint in model.checkpoints],
            "identity": model.identity,
            "pipeline": model.pipeline_class,
            "licence": report.preset.licence_note or model.licence,
        },
        "output": stored_identity(catalog.workspace),
        "accounting": asdict(report.accounting),
        "work": work,
        "startup_seconds": round(report.startup_seconds, 3),
        "seconds": round(report.seconds, 3),
        "generating_seconds": round(report.generating_seconds, 3),
        "timings": {stage: round(seconds, 3) for stage, seconds in report.timings.items()},
        "images_per_second": round(report.images_per_second, 4),
        "versions": {"text2image": __version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }


def _write_contact_sheet(report: Report, catalog: Catalog, files: OwnFiles) -> None:
    """Write a sheet of images that are spread over the data set."""
    pictures = list(catalog.spread_pictures(SHEET_IMAGES))
    title = model_title(report.config.model, report.preset)
    total = report.accounting.images_present
    write_contact_sheet(files, CONTACT_SHEET, pictures, catalog.workspace.images, title, total)


def _stored_images(unused: Unreferenced) -> str:
    return f"{len(unused.keys)} stored images, {unused.size / 1e6:.1f} MB"


def _earlier_manifests(unused: Unreferenced) -> str:
    return f"{len(unused.manifests)} earlier manifest{'s' if len(unused.manifests) > 1 else ''}"


def _pending(count: int) -> str:
    return f", {count} not made yet" if count else ""
