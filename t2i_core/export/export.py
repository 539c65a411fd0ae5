"""An export from beginning to end."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from t2i_core import __version__
from t2i_core.errors import ConfigError, OutputError, UserError
from t2i_core.export.assignment import Assigned, assign, read_assignment
from t2i_core.export.card import shown_positions, write_card
from t2i_core.export.formats import FORMATS, Format
from t2i_core.export.images import Images
from t2i_core.export.job import Job, Writer
from t2i_core.export.kinds import card_feature
from t2i_core.export.placed import IN_PLACE, LINK, Placed
from t2i_core.export.questions import Questions
from t2i_core.export.samples import Candidates
from t2i_core.export.sharded import ASSIGNMENT, Sharded
from t2i_core.export.splits import Splits
from t2i_core.export.survey import Survey, Surveyor
from t2i_core.export.target import FORMAT_VERSION, Previous, Target
from t2i_core.hashing import digest
from t2i_core.options.export import ExportOptions
from t2i_core.output.finished import FinishedOutput
from t2i_core.output.selection import Choice
from t2i_core.planning.catalog import Catalog, CatalogImage

EXPORTS = "exports"
DROPPED = "dropped.jsonl"
# Of the files of an export; raised when their form changes.
VERSION = 1
# What the card says of the model -> its name in run.json.
ABOUT_MODEL = {"model": "name", "pipeline": "pipeline", "commit": "commit", "identity": "identity"}


def target_folder(options: ExportOptions) -> Path:
    """Return the folder of an export."""
    return Path(options.to) if options.to else Path(options.output) / EXPORTS / options.format


def check_options(options: ExportOptions) -> None:
    """Refuse options that the format does not have, files that cannot be read, and folders that cannot be used.

    Raises:
        UserError: in one line.
    """
    form = FORMATS[options.format]
    if options.images and options.images not in form.images:
        why = "they are inside its shards; leave --images out"
        if form.images:
            why = f"its readers look for images beside its lists; write {' or '.join(form.images)}"
        raise ConfigError([f"images: {options.format} cannot have them {options.images}: {why}"])
    if not form.sharded and options.shard_size != ExportOptions.model_fields["shard_size"].default:
        raise ConfigError([f"shard_size: {options.format} has no shards; leave it out"])
    if _mode(options, form) == IN_PLACE and options.image_format:
        raise ConfigError(["image_format: images in place stay as they are; add --images copy"])
    if options.questions:
        if not form.questions:
            asking = ", ".join(name for name, other in FORMATS.items() if other.questions)
            raise ConfigError([f"questions: {options.format} asks none; those that do are {asking}"])
        Questions.read(options.questions)
    Splits.parse(options.split)
    target, output = (Path(os.path.abspath(path)) for path in (target_folder(options), options.output))  # noqa: PTH100
    if output == target or output.is_relative_to(target):
        raise OutputError(f"to: {target} holds the output itself; name a folder of its own")


def export(
    catalog: Catalog,
    finished: FinishedOutput,
    options: ExportOptions,
    choice: Choice | None = None,
    written: str = "",
    on_start: Callable[[int], None] = lambda total: None,
    on_images: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Write an export, or what changed of it since the last one; return what `export.json` says.

    `written` stands in `export.json`, and tells this export from others. `on_start` is told how many images it has,
    `on_images` how many more are done.
    """
    check_options(options)
    form = FORMATS[options.format]
    target = Target(target_folder(options))
    previous = target.previous()
    images = Images(catalog.workspace.images, options.image_format)
    try:
        return _Export(catalog, finished, options, form, target, previous, images, on_start, on_images).run(
            choice, written
        )
    except UserError:
        target.discard()
        raise
    finally:
        images.close()
        target.end()


@dataclass(slots=True)
class _Export:
    catalog: Catalog
    finished: FinishedOutput
    options: ExportOptions
    form: Format
    target: Target
    previous: Previous | None
    images: Images
    on_start: Callable[[int], None]
    on_images: Callable[[int], None]

    def run(self, choice: Choice | None, written: str) -> dict[str, Any]:
        chosen = choice.codes.tobytes().hex() if choice else ""
        self.target.begin(
            digest(
                [
                    VERSION,
                    self.options.model_dump(exclude={"server_wait"}),
                    self.catalog.plan.digest,
                    self.catalog.index.name,
                    chosen,
                ]
            )
        )
        staging = self.target.staging
        candidates = Candidates(self.catalog, self.finished.provenance)
        with (staging / DROPPED).open("w", encoding="utf-8") as dropped:

            def drop(image: CatalogImage, reason: str) -> None:
                place = {"row": image.row, "condition": image.condition, "image": image.image}
                dropped.write(json.dumps({**place, "key": image.picture or image.key, "reason": reason}) + "\n")

            surveyor = Surveyor(
                candidates,
                self.form,
                Splits.parse(self.options.split),
                self.options.caption,
                choice,
                drop,
            )
            survey = surveyor.survey()
        if not survey.dropped:
            (staging / DROPPED).unlink()
        questions = Questions.read(self.options.questions) if self.options.questions else None
        if questions:
            questions.check(survey.columns.exported())
        job = self._job(survey, questions)
        total = len(survey.index)
        self.on_start(total)
        with job.opened:
            self._write(surveyor, survey, self.form.open(job))
        summary = self._summary(survey, job) | {"written": written}
        shown = np.zeros(total, bool)
        shown[shown_positions(survey)] = True
        write_card(staging, self.form, survey, summary, list(surveyor.samples(survey, shown)), self.images)
        self.target.commit(summary, self.previous, survey.ids)
        if _mode(self.options, self.form) == LINK:  # which changes nothing of an image but its change time
            store = self.catalog.workspace.images
            self.catalog.workspace.checked_images.carry_over(self.catalog.scan, store.scan())
        return summary

    def _write(self, surveyor: Surveyor, survey: Survey, writer: Writer) -> None:
        """Write all samples, or those whose shards changed."""
        wanted = writer.wanted() if isinstance(writer, Sharded) else None
        self.on_images(0 if wanted is None else len(wanted) - int(wanted.sum()))
        for sample in surveyor.samples(survey, wanted):
            writer.write(sample)
            self.on_images(1)
        writer.close()

    def _settings(self, survey: Survey) -> str:
        """Return the digest of what the files of an image, or a shard, depend on beside their images and rows."""
        mode = _mode(self.options, self.form)
        schema = {name: repr(kind) for name, kind in survey.columns.exported().items()} if self.form.sharded else None
        return digest([VERSION, self.options.format, self.options.image_format, mode, schema])

    def _job(self, survey: Survey, questions: Questions | None) -> Job:
        settings = self._settings(survey)
        earlier = self.previous.folder if self.previous and self.previous.settings == settings else None
        if self.form.sharded:
            return Job(self.target.staging, survey, self.images, self._assigned(survey, settings))
        mode = _mode(self.options, self.form)
        staging, folder = self.target.staging, self.target.folder
        placed = Placed(self.images, mode, staging, folder, earlier, spread=not self.form.flat)
        return Job(staging, survey, self.images, placed=placed, questions=questions)

    def _assigned(self, survey: Survey, settings: str) -> Assigned:
        """Return which image goes to which shard: as before, where the last export has shards of the same size."""
        before, there = {}, {}
        previous, size = self.previous, self.options.shard_size
        if previous and previous.summary.get("shard_size") == size:
            before = read_assignment(previous.folder / ASSIGNMENT)
            there = previous.shards()
        names = survey.splits.names
        return Assigned(assign(survey.ids, survey.split, names, survey.digests, size, settings, before), there)

    def _summary(self, survey: Survey, job: Job) -> dict[str, Any]:
        run = self.finished.summary
        model = run["model"]
        suffixes = set(self.images.suffixes)
        shards: list[dict[str, Any]] = []
        if job.assigned is not None:
            if self.previous and len(job.assigned.missing()) < len(job.assigned.shards):
                suffixes |= set(self.previous.summary.get("image_suffixes", ()))
            for shard in job.assigned.shards:
                path = f"{survey.splits.names[shard.split]}/{shard.name}"
                shards.append({"path": path, "images": len(shard.members), "digest": shard.digest})
        sharded = {"shard_size": self.options.shard_size, "shards": shards}
        return {
            "text2image_export": FORMAT_VERSION,
            "name": f"{_data_set(run)}: images by {model['name']}",
            "format": self.options.format,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": __version__,
            "output": os.path.abspath(self.options.output),  # noqa: PTH100
            "run": self.finished.run,
            "options": self.options.model_dump(),
            "settings": self._settings(survey),
            "images": len(survey.index),
            "splits": survey.per_split(),
            "dropped": dict(survey.dropped.most_common()),
            "images_of_data_set": survey.total,
            "columns": {name: card_feature(kind) for name, kind in survey.columns.exported().items()},
            "renamed_columns": survey.columns.renamed(),
            "model": {
                "title": model["name"],
                "about": _about_model(run),
                "licence": model.get("licence") or "Not known: see the model's card.",
            },
            "image_suffixes": sorted(suffixes),
            "generation": survey.generation(),
            **(sharded if job.assigned is not None else {}),
        }


def _about_model(run: Mapping[str, Any]) -> dict[str, str]:
    """Return what the card says of the model, with the LoRAs of the last run."""
    about = {name: run["model"][key] for name, key in ABOUT_MODEL.items() if run["model"].get(key)}
    loras = run["configuration"].get("lora") or []
    return about | ({"LoRA": ", ".join(loras)} if loras else {})


def _data_set(run: Mapping[str, Any]) -> str:
    """Return the file name of the data set, or its name on the hub; the first of several."""
    name = run["data_set"]["name"]
    first = name if isinstance(name, str) else name[0]
    return first if first.startswith("hf:") else Path(first).name


def _mode(options: ExportOptions, form: Format) -> str:
    return options.images or (form.images[0] if form.images else "")
