"""The manifest: each row as it came, with the paths of its images. It is written last: its presence means done."""

import json
from collections.abc import Iterator
from itertools import pairwise

import pyarrow as pa

from t2i_core.config import Config
from t2i_core.json_values import json_text
from t2i_core.output.accounting import Accounting
from t2i_core.output.failures import failures_of, rows_with_failures
from t2i_core.output.foreign_names import names_of, refuse_foreign_names
from t2i_core.output.identity import manifest_form, note_manifest_form
from t2i_core.output.layout import FAILURES, PROVENANCE, Layout, ManifestForm
from t2i_core.output.named_links import LinkChanges, NamedLinks
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.provenance import PICTURE_FACTS, provenance_writer
from t2i_core.output.retired_manifests import is_outdated, retire_manifest
from t2i_core.planning.catalog import Catalog, RowChunk
from t2i_core.storage.workspace import Workspace


def write_manifest(catalog: Catalog, config: Config) -> Accounting:
    """Write named images, provenance, failures, and last the manifest; return the accounting.

    Columns, not rows: a million rows as objects of Python would take half a minute.
    """
    workspace, layout = catalog.workspace, Layout.of(config, catalog.plan.images)
    with workspace.lock():
        links, files = _links(workspace, config), OwnFiles(workspace, replace=config.replace)
        changes = _link_changes(catalog, layout, links)
        files.check((config.manifest_name, FAILURES, PROVENANCE))
        if not config.replace:
            refuse_foreign_names(workspace, changes.to_link)
        _retire_outdated_manifest(workspace, layout.form, links, changes, files)
        links.apply(changes)
        return _write_rows(catalog, config, layout, files)


def check_names(catalog: Catalog, config: Config) -> None:
    """Refuse names of images that are those of files that this tool did not write.

    Raises:
        OutputError: naming the first.
    """
    if Layout.of(config, catalog.plan.images).named and not config.replace:
        refuse_foreign_names(catalog.workspace, names_of(catalog), catalog.scan.inodes.tolist())


def manifest_is_right(files: dict[str, list[int]], catalog: Catalog, config: Config) -> bool:
    """Return whether the files are as `files_written` saw them, and every name still stands for its image."""
    if not is_last_manifest(files, catalog.workspace, config):
        return False
    layout = Layout.of(config, catalog.plan.images)
    return not _link_changes(catalog, layout, _links(catalog.workspace, config))


def is_last_manifest(files: dict[str, list[int]], workspace: Workspace, config: Config) -> bool:
    """Return whether the files are as `files_written` saw them: no other run wrote its own since."""
    try:
        return files_written(workspace, config) == files
    except FileNotFoundError:
        return False


def files_written(workspace: Workspace, config: Config) -> dict[str, list[int]]:
    """Return size, modification time and change time of each file that `write_manifest` leaves.

    Raises:
        FileNotFoundError: if one is missing.
    """
    result = {}
    for name in (config.manifest_name, PROVENANCE, FAILURES):
        status = (workspace.root / name).stat()
        result[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return result


def _links(workspace: Workspace, config: Config) -> NamedLinks:
    return NamedLinks(workspace, bare=config.embed_metadata == "none")


def _link_changes(catalog: Catalog, layout: Layout, links: NamedLinks) -> LinkChanges:
    return links.changes(catalog.names() if layout.named else ())


def _retire_outdated_manifest(
    workspace: Workspace, form: ManifestForm, links: NamedLinks, changes: LinkChanges, files: OwnFiles
) -> None:
    """Retire the manifest that lies in the folder, and `images.parquet` with it, if names are about to make it wrong.

    Then note the form of the manifest that comes in its place. A file that somebody put there since is left alone.
    """
    old = manifest_form(workspace)
    if old is not None:
        manifest = workspace.root / old.name
        is_there = manifest.exists() and not files.is_foreign(old.name)
        if is_there and is_outdated(manifest, old, form, links.outdated_names(changes)):
            files.remove(PROVENANCE)
            retire_manifest(manifest, old, workspace, links)
            files.forget(old.name)
    note_manifest_form(workspace, form)


def _write_rows(catalog: Catalog, config: Config, layout: Layout, files: OwnFiles) -> Accounting:
    """Write manifest, failures and provenance in one pass over the rows. The manifest appears last."""
    accounting = Accounting()
    with (
        files.write(config.manifest_name) as manifest,
        files.write(FAILURES) as failures,
        provenance_writer(catalog, layout, files) as write_images,
    ):
        for chunk in catalog.row_chunks(PICTURE_FACTS):
            images = write_images(chunk)
            lines = [line for line in manifest_lines(chunk, images["path"], layout.form) if line is not None]
            manifest.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
            for row in catalog.rows_of(chunk.only(rows_with_failures(chunk.rows, images))):
                for failure in failures_of(row, config.dataset_title):
                    failures.write((json.dumps(failure, ensure_ascii=False) + "\n").encode("utf-8"))
            accounting.add(chunk.rows, images)
    return accounting


def manifest_lines(chunk: RowChunk, paths: pa.Array, form: ManifestForm) -> Iterator[str | None]:
    """Yield each row as it came plus its images.

    None for a line that is no JSON object: `failures.jsonl` has it.

    Args:
        paths: of the images of the rows, in their order; null where there is no picture.
    """
    key, name = form.image_key, json_text(form.image_key)
    quoted = [None if path is None else json_text(path) for path in paths.to_pylist()]
    # How the text of a row has the name of the column, if it is there, at the row's own level or within a value; and
    # what only a text has that is escaped to ASCII, as its line then has to be.
    escaped_name, escape = json.dumps(key), "\\ud"
    columns = (chunk.rows[name].to_pylist() for name in ("json", "has_images", "rejection"))
    for text, has_images, rejection, (start, end) in zip(*columns, pairwise(chunk.edges.tolist()), strict=True):
        if text is None or has_images:
            yield text
            continue
        images = [path for path in quoted[start:end] if path is not None]
        if not (name in text or escaped_name in text or escape in text):  # so with most rows: their JSON is not read
            separator = "" if text == "{}" else ", "
            yield f"{text[:-1]}{separator}{name}: [{', '.join(images)}]}}"
            continue
        values = json.loads(text)
        # A rejected row keeps the paths it came with, if any; they are the user's.
        if rejection is None or not values.get(key):
            values[key] = [json.loads(path) for path in images]
        yield json_text(values)
