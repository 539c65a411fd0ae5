"""What a run leaves for people and programs: manifest, provenance and failures, each written as a stream."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from t2i_core.config import Config
from t2i_core.errors import shorten
from t2i_core.json_values import json_text
from t2i_core.keys import as_keys, find
from t2i_core.names import NamedImage, Names, WantedNames, names_in, retire_manifest
from t2i_core.output import ManifestForm, read_identity, save_identity
from t2i_core.plan import SPECS, Plan, batches_of, stream, write_table
from t2i_core.records import TABLE, Known
from t2i_core.store import Scan, Store, atomic_write

NAMED_IMAGES_LIMIT = 100_000
ROWS_SHOWN = 5

# Provenance: a row an image, what was asked for and what is known of the picture.
_KNOWN_COLUMNS = [
    *("run", "created", "pixels_sha256", "file_size", "batch_size", "vae_tiling", "prompt_lengths"),
    *("seconds", "device", "versions", "tuning", "model_name", "commit", "replaces"),
]


@dataclass(slots=True)
class Accounting:
    """Every row and every image, each counted once: rows = generated + reused + skipped + failed + pending.

    `pending` is what an interrupted run did not come to; it is 0 for a finished run. A row counts as failed if any of
    its images failed, else as pending, else as generated if any image was made in this run.
    """

    rows: int = 0
    rows_generated: int = 0
    rows_reused: int = 0
    rows_skipped: int = 0
    rows_failed: int = 0
    rows_pending: int = 0
    images: int = 0
    images_generated: int = 0
    images_reused: int = 0
    images_failed: int = 0
    images_pending: int = 0

    rows_rejected: int = 0  # part of rows_failed
    images_cut: int = 0  # part of images: the prompt is longer than a text encoder takes
    rows_cut: list[int] = field(default_factory=list)  # the first few rows with such an image

    @property
    def failures(self) -> int:
        """Rejected rows and failed images: what `max_failures` is about."""
        return self.images_failed + self.rows_rejected

    def all_reused(self) -> "Accounting":
        """The same at the end of a later run that made nothing."""
        return replace(
            self,
            rows_generated=0,
            rows_reused=self.rows_generated + self.rows_reused,
            images_generated=0,
            images_reused=self.images_generated + self.images_reused,
        )

    def add_row(self, states: list[str]) -> None:
        """Count a row and its images, each `generated`, `reused`, `failed` or `pending`."""
        self.rows += 1
        for state in states:
            self.images += 1
            setattr(self, f"images_{state}", getattr(self, f"images_{state}") + 1)
        worst = next((s for s in ("failed", "pending", "generated", "reused") if s in states), "reused")
        setattr(self, f"rows_{worst}", getattr(self, f"rows_{worst}") + 1)

    def add_cut(self, row: int, images: int) -> None:
        """Count images of a row whose prompt was cut."""
        self.images_cut += images
        if images and len(self.rows_cut) <= ROWS_SHOWN:  # one more than is shown tells that there are more
            self.rows_cut.append(row)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run knows at its end, and how to say it: everything the writers below need."""

    config: Config
    plan: Plan
    known: Known
    run: str
    errors: dict[str, str]  # key -> why it could not be made in this run
    interrupted: bool = False

    @property
    def named(self) -> bool:
        """Whether images also get names."""
        choice = self.config.named_images
        return choice == "always" or (choice == "auto" and self.plan.images <= NAMED_IMAGES_LIMIT)

    @property
    def form(self) -> ManifestForm:
        """How the manifest gives paths: the output as given, then the file."""
        return ManifestForm(self.config.manifest_name, self.config.output.rstrip("/") + "/", self.config.image_key)


@dataclass(frozen=True, slots=True)
class ImageState:
    """One image of the data set at the end of a run."""

    spec: dict[str, Any]
    state: str
    key: str | None  # of the picture: not the spec's where a stand-in with a new seed took its place
    record: dict[str, Any]
    error: str | None


def write_manifest(outcome: Outcome, store: Store, scan: Scan) -> Accounting:
    """Names, provenance, failures, then the manifest: the last file written, so that its presence means done."""
    with store.lock():
        return _write_manifest(outcome, store, scan)


def _write_manifest(outcome: Outcome, store: Store, scan: Scan) -> Accounting:
    manifest = store.root / outcome.config.manifest_name
    names = Names(store)
    wrong, extra = names.differences(_wanted_names(outcome, store, scan))
    _retire_what_would_lie(outcome, store, names, wrong, extra)
    names.apply(wrong, extra)
    _write_provenance(outcome, store)
    accounting = Accounting()
    with (
        atomic_write(manifest) as manifest_file,
        atomic_write(store.root / "failures.jsonl") as failures_file,
    ):
        for row, images in _rows_with_images(outcome, store):
            record = _manifest_row(row, images, outcome, store)
            if record is not None:
                manifest_file.write((record + "\n").encode("utf-8"))
            _count(row, images, accounting)
            for failure in _failures(row, images, outcome.config):
                failures_file.write((json.dumps(failure, ensure_ascii=False) + "\n").encode("utf-8"))
    return accounting


def files_written(outcome: Outcome, store: Store) -> dict[str, list[int]]:
    """Size and modification time of each file that `write_manifest` leaves."""
    result = {}
    for name in (outcome.config.manifest_name, "images.parquet", "failures.jsonl"):
        status = (store.root / name).stat()
        result[name] = [status.st_size, status.st_mtime_ns]
    return result


def manifest_is_right(files: dict[str, list[int]], outcome: Outcome, store: Store, scan: Scan) -> bool:
    """Whether the files are as `files_written` saw them and every name still stands for its image."""
    try:
        if files_written(outcome, store) != files:
            return False
    except FileNotFoundError:
        return False
    wrong, extra = Names(store).differences(_wanted_names(outcome, store, scan))
    return not wrong and not extra


def _retire_what_would_lie(
    outcome: Outcome, store: Store, names: Names, wrong: list[NamedImage], extra: list[Path]
) -> None:
    """An output has one manifest. The one that lies there is moved away if it has another form, or if a name that it
    gives is about to stand for another picture or to vanish; a new name for a new row changes nothing.
    """
    identity = read_identity(store)
    assert identity is not None
    old = identity.manifest
    if old is not None and (store.root / old.name).exists():
        changing = {image.name for image in wrong if names.key_of(store.root / image.name) != image.key}
        changing |= {path.relative_to(store.root).as_posix() for path in extra}
        lies = changing and not changing.isdisjoint(names_in(store.root / old.name, old))
        if lies or old != outcome.form:
            (store.root / "images.parquet").unlink(missing_ok=True)
            retire_manifest(store.root / old.name, old, store, names)
    if old != outcome.form:
        identity.manifest = outcome.form
        save_identity(store, identity)


def _wanted_names(outcome: Outcome, store: Store, scan: Scan) -> Iterator[WantedNames]:
    """Every name with its image and that file's inode."""
    if not outcome.named:
        return
    for batch in batches_of(outcome.plan.specs_file(store.plans), ["name", "key"]):
        keys = outcome.known.effective(batch["key"])
        places = np.where(outcome.known.find(batch["key"]) >= 0, find(as_keys(keys), scan.keys), -1)
        there = pa.array(places >= 0)
        names, keys = batch["name"].filter(there).to_pylist(), keys.filter(there).to_pylist()
        yield WantedNames(names, keys, scan.inodes[places[places >= 0]])


def _images(outcome: Outcome, store: Store, columns: list[str]) -> Iterator[ImageState]:
    """Every image of the plan with what is known of it, as `columns` of its record."""
    records = outcome.known.records(columns)
    for batch in batches_of(outcome.plan.specs_file(store.plans)):
        places = outcome.known.find(batch["key"])
        found = iter(records.take(pa.array(places[places >= 0])).to_pylist())
        for spec, place in zip(batch.to_pylist(), places.tolist(), strict=True):
            if place >= 0:
                record = next(found)
                state = "generated" if record["run"] == outcome.run else "reused"
                yield ImageState(spec, state, record["key"], record, None)
                continue
            error = outcome.known.errors.get(spec["key"]) or outcome.errors.get(spec["key"])
            if error is None and not outcome.interrupted:
                error = "not made, for no recorded reason; run again, and report it if it stays"
            yield ImageState(spec, "failed" if error else "pending", None, {}, error)


def _rows_with_images(outcome: Outcome, store: Store) -> Iterator[tuple[dict[str, Any], list[ImageState]]]:
    by_row = groupby(_images(outcome, store, ["key", "run", "prompt_lengths"]), key=lambda image: image.spec["row"])
    number, images = next(by_row, (None, iter(())))
    columns = ["row", "line", "record", "has_images", "rejection"]
    for row in stream(outcome.plan.rows_file(store.plans), columns):
        if row["row"] == number:
            yield row, list(images)
            number, images = next(by_row, (None, iter(())))
        else:
            yield row, []


def _manifest_row(row: dict[str, Any], images: list[ImageState], outcome: Outcome, store: Store) -> str | None:
    """The row as it came plus its images. A line that is no JSON object has no place here; failures.jsonl has it."""
    if row["record"] is None:
        return None
    if row["has_images"]:
        return str(row["record"])
    record = json.loads(row["record"])
    paths = [_path(image, outcome, store) for image in images if image.key is not None]
    if not row["rejection"] or not record.get(outcome.config.image_key):
        record[outcome.config.image_key] = paths
    return json_text(record)


def _path(image: ImageState, outcome: Outcome, store: Store) -> str:
    assert image.key is not None
    if outcome.named:
        return outcome.form.prefix + str(image.spec["name"])
    return outcome.form.prefix + store.image_path(image.key).relative_to(store.root).as_posix()


def _count(row: dict[str, Any], images: list[ImageState], accounting: Accounting) -> None:
    if row["rejection"]:
        accounting.rows += 1
        accounting.rows_failed += 1
        accounting.rows_rejected += 1
    elif row["has_images"]:
        accounting.rows += 1
        accounting.rows_skipped += 1
    else:
        accounting.add_row([image.state for image in images])
        accounting.add_cut(row["row"], sum(map(_is_cut, images)))


def _is_cut(image: ImageState) -> bool:
    return any(length["cut"] is not None for length in image.record.get("prompt_lengths") or ())


def _failures(row: dict[str, Any], images: list[ImageState], config: Config) -> Iterator[dict[str, Any]]:
    where = {"file": config.dataset, "row": row["row"], "line": row["line"]}
    if row["rejection"]:
        rejection = json.loads(row["rejection"])
        yield where | {"field": rejection["field"], "value": rejection["value"], "reason": rejection["reason"]}
    for image in images:
        if image.state == "failed":
            yield where | {
                "condition": image.spec["condition"],
                "image": image.spec["image"],
                "key": image.spec["key"],
                "field": "prompt",
                "value": shorten(image.spec["prompt"]),
                "reason": image.error,
            }


def _write_provenance(outcome: Outcome, store: Store) -> None:
    shown = [f for f in SPECS if f.name not in ("recipe", "name")]
    extra = [pa.field("path", pa.string()), pa.field("status", pa.string()), pa.field("error", pa.string())]
    schema = pa.schema([*shown, *extra, *(TABLE.field(name) for name in _KNOWN_COLUMNS)])

    def rows() -> Iterator[dict[str, Any]]:
        for image in _images(outcome, store, ["key", "seed", *_KNOWN_COLUMNS]):
            own = {name: image.spec[name] for name in schema.names if name in image.spec}
            if image.key is not None:
                own |= {"key": image.key, "seed": image.record["seed"]}
            path = _path(image, outcome, store) if image.key is not None else None
            yield {
                **own,
                **{name: image.record.get(name) for name in _KNOWN_COLUMNS},
                "path": path,
                "status": image.state,
                "error": image.error,
            }

    with atomic_write(store.root / "images.parquet") as file:
        write_table(file, schema, rows())
