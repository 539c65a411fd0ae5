"""What a run says at its end: the summary, run.json and the contact sheet."""

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from t2i_core import __version__
from t2i_core.config import Config
from t2i_core.contact_sheet import write_contact_sheet
from t2i_core.manifest import ROWS_SHOWN, Accounting, Outcome
from t2i_core.plan import batches_of
from t2i_core.presets import Preset
from t2i_core.shards import Work
from t2i_core.store import Store, write_text
from t2i_core.weights import Model

SHEET_IMAGES = 24
PACKAGES = ("prefect", "torch", "diffusers", "transformers", "huggingface_hub", "pillow")


@dataclass(frozen=True, slots=True)
class Report:
    """A finished or interrupted run: what it did, with what, and how long that took."""

    state: str  # finished | interrupted
    run: str
    config: Config
    model: Model
    preset: Preset
    work: Work
    accounting: Accounting
    seconds: float
    generating_seconds: float
    timings: dict[str, float]  # seconds by stage, added up over threads
    unreferenced: tuple[int, int]  # stored images that the manifest does not name: how many, bytes

    @property
    def images_per_second(self) -> float:
        """Of the images made in this run, over the time of making them."""
        return self.accounting.images_generated / self.generating_seconds if self.generating_seconds else 0.0

    @property
    def too_many_failures(self) -> bool:
        """More failures than `max_failures`: a count, or below 1 a share of all images and rejected rows."""
        allowed = self.config.max_failures
        if 0 < allowed < 1:
            allowed *= self.accounting.images + self.accounting.rows_rejected
        return self.accounting.failures > allowed

    def message(self) -> str:
        """One sentence for Prefect's state and the last line of the summary."""
        counts = self.accounting
        text = "stopped: " if self.state == "interrupted" else ""
        text += f"{counts.images_generated} images made, {counts.images_reused} reused"
        if counts.images_pending:
            text += f", {counts.images_pending} not made yet"
        if counts.failures:
            text += f", {counts.failures} failures: see {self.config.output.rstrip('/')}/failures.jsonl"
        return text

    def summary(self) -> str:
        """The lines a person reads after a run."""
        a, output = self.accounting, self.config.output.rstrip("/")
        lines = [
            f"model     {self.preset.name}" + (f" ({self.preset.about})" if self.preset.about else ""),
            f"rows      {a.rows}: {a.rows_generated} generated, {a.rows_reused} reused, "
            f"{a.rows_skipped} skipped (had images), {a.rows_failed} failed" + _pending(a.rows_pending),
            f"images    {a.images}: {a.images_generated} generated, {a.images_reused} reused, "
            f"{a.images_failed} failed" + _pending(a.images_pending),
            f"time      {self.seconds:.1f} s"
            + (f", {self.images_per_second:.2f} images/s" if a.images_generated else ""),
            f"manifest  {output}/{self.config.manifest_name}",
        ]
        if a.failures:
            lines.append(f"failures  {output}/failures.jsonl")
        if a.images - a.images_failed - a.images_pending:
            lines.append(f"look      {output}/contact_sheet.jpg")
        if a.images_cut:
            lines.append(
                f"cut       {a.images_cut} images have a prompt longer than a text encoder takes (rows "
                f"{', '.join(map(str, a.rows_cut[:ROWS_SHOWN]))}{', …' if len(a.rows_cut) > ROWS_SHOWN else ''}): "
                "prompt_lengths in images.parquet"
            )
        count, size = self.unreferenced
        if count and not self.config.prune:
            lines.append(
                f"unused    {count} stored images, {size / 1e6:.1f} MB, are in no manifest; --prune deletes them"
            )
        if self.preset.licence_note:
            lines.append(f"licence   {self.preset.licence_note}")
        if self.state == "interrupted":
            again = "without --refresh " if self.config.refresh else ""
            lines.append(f"stopped   run the same command again {again}to go on")
        return "\n".join(lines)


def write_report(report: Report, outcome: Outcome, store: Store) -> None:
    """run.json and contact_sheet.jpg."""
    _write_contact_sheet(report, outcome, store)
    write_text(store.root / "run.json", json.dumps(run_json(report, outcome), indent=1, ensure_ascii=False) + "\n")


def run_json(report: Report, outcome: Outcome) -> dict[str, Any]:
    """What run.json holds: configuration, data set, model, accounting, versions."""
    model = report.model
    return {
        "state": report.state,
        "run": report.run,
        "message": report.message(),
        "configuration": report.config.model_dump(),
        "data_set": {"name": report.config.dataset, "plan": outcome.plan.digest, "rows": outcome.plan.rows},
        "model": {
            "name": report.config.model,
            "preset": report.preset.name,
            "about": report.preset.about,
            "source": model.source,
            "location": model.location,
            "commit": model.commit,
            "identity": model.identity,
            "pipeline": model.pipeline_class,
            "licence": report.preset.licence_note or model.licence,
        },
        "accounting": asdict(report.accounting),
        "work": asdict(report.work),
        "seconds": round(report.seconds, 3),
        "generating_seconds": round(report.generating_seconds, 3),
        "timings": {stage: round(seconds, 3) for stage, seconds in report.timings.items()},
        "images_per_second": round(report.images_per_second, 4),
        "versions": {"text2image": __version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }


def _write_contact_sheet(report: Report, outcome: Outcome, store: Store) -> None:
    images = list(islice(_first_images(outcome, store), SHEET_IMAGES))
    path = store.root / "contact_sheet.jpg"
    if not images:
        path.unlink(missing_ok=True)
        return
    title = f"{report.preset.name}" + (f": {report.preset.about}" if report.preset.about else "")
    write_contact_sheet(path, images, title)


def _first_images(outcome: Outcome, store: Store) -> Iterator[tuple[Path, str]]:
    """(file, prompt) of every image there is, in data-set order."""
    for batch in batches_of(outcome.plan.specs_file(store.plans), ["key", "prompt"]):
        places = outcome.known.find(batch["key"])
        for place, prompt in zip(places.tolist(), batch["prompt"].to_pylist(), strict=True):
            if place >= 0:
                yield store.image_path(outcome.known.keys[place].decode()), prompt


def spread_images(outcome: Outcome, store: Store, there: int, count: int) -> Iterator[tuple[Path, str]]:
    """(file, prompt) of `count` of the `there` images that exist, spread evenly over the data set."""
    wanted = np.unique(np.linspace(0, there - 1, min(count, there)).astype(int))
    seen = 0
    for batch in batches_of(outcome.plan.specs_file(store.plans), ["key", "prompt"]):
        places = outcome.known.find(batch["key"])
        rows = np.flatnonzero(places >= 0)
        for row in rows[wanted[(wanted >= seen) & (wanted < seen + len(rows))] - seen].tolist():
            yield store.image_path(outcome.known.keys[places[row]].decode()), batch["prompt"][row].as_py()
        seen += len(rows)


def _pending(count: int) -> str:
    return f", {count} not made yet" if count else ""
