"""Whose folder an output is: one data set, one manifest, and the model commits it began with.

This module alone reads and writes `.t2i/output.json`.
"""

import glob
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from t2i_core.config import Config
from t2i_core.dataset.sources import would_read
from t2i_core.errors import OutputError
from t2i_core.local_paths import is_url
from t2i_core.options.values import EXAMPLE
from t2i_core.output.layout import FAILURES, PROVENANCE, RUN, ManifestForm
from t2i_core.output.writable import check_output
from t2i_core.storage.files import write_text
from t2i_core.storage.workspace import Workspace

IDENTITY = "output.json"
_OUR_FILES = (FAILURES, PROVENANCE, RUN)
_NAMED_FOLDER = re.compile(r"sample\d+_condition\d+")


@dataclass(frozen=True, slots=True)
class OutputIdentity:
    """What an output folder is for.

    `commits` maps a hub model or adapter to the commit of its first run here; `manifest` is the form of the manifest
    that lies in the folder now.
    """

    dataset: str | list[str]  # its absolute path, or its name on the hub; of several files or splits, each
    fingerprint: str
    commits: Mapping[str, str] = field(default_factory=dict)
    manifest: ManifestForm | None = None


def open_output(workspace: Workspace, config: Config, fingerprint: str) -> OutputIdentity:
    """Return what the folder is for, or for a new one will be.

    The same file edited, moved or copied is the same data set, and so are the same files and more. Nothing is written:
    a run that is refused later leaves the folder free.

    Raises:
        OutputError: as `check_output`; if another data set or another tool's files are there and `replace` is not set,
            if the data set is one of the files that the run writes, or if `limit` would take rows away from a larger
            manifest.
    """
    check_output(workspace.root)
    written = [workspace.root / name for name in (config.manifest_name, *_OUR_FILES)]
    for name in config.dataset_names:
        if any(would_read(name, path) for path in written):
            raise OutputError(f"dataset: {name} is or holds a file that the run itself writes; choose another --output")
    names = [_absolute(name) for name in config.dataset_names]
    dataset = names[0] if len(names) == 1 else names
    identity = _read(workspace)
    if identity is None:
        if not config.replace:
            _refuse_files_of_others(workspace, config.manifest_name)
        return OutputIdentity(dataset, fingerprint)
    same = fingerprint == identity.fingerprint or _is_same(config.dataset_names, identity.dataset)
    if not same and not config.replace:
        raise OutputError(
            f"output: {workspace.root} holds the images of {_title(identity.dataset)}; "
            "choose another --output, or add --replace to let this data set take it over"
        )
    _refuse_to_shrink(workspace, identity, config)
    return replace(identity, dataset=dataset, fingerprint=fingerprint)


def claim_output(workspace: Workspace, identity: OutputIdentity) -> None:
    """Write down what the folder is for from now on.

    Raises:
        OutputError: if the folder cannot be written.
    """
    try:
        with workspace.lock():
            current = _read(workspace)  # another run may have written a manifest since `open_output`
            _write(workspace, replace(identity, manifest=current.manifest if current else None))
    except OSError as error:
        raise OutputError(
            f"output: cannot write to {workspace.root}: {error.strerror}; choose another --output"
        ) from error


def manifest_form(workspace: Workspace) -> ManifestForm | None:
    """Return the form of the manifest that lies in the folder; None if none was written yet."""
    identity = _read(workspace)
    return identity.manifest if identity else None


def note_manifest_form(workspace: Workspace, form: ManifestForm) -> None:
    """Write down the form of the manifest that is about to be written. The caller holds the workspace's lock."""
    identity = _read(workspace)
    assert identity is not None, "an output is claimed before its manifest is written"
    if identity.manifest != form:
        _write(workspace, replace(identity, manifest=form))


def _read(workspace: Workspace) -> OutputIdentity | None:
    path = workspace.hidden / IDENTITY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        form = values.pop("manifest", None)
        return OutputIdentity(**values, manifest=ManifestForm(**form) if form else None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise OutputError(
            f"output: cannot read {path} ({error}); remove that file if the folder is yours to use"
        ) from error


def _write(workspace: Workspace, identity: OutputIdentity) -> None:
    write_text(workspace.hidden / IDENTITY, json.dumps(asdict(identity), indent=1, ensure_ascii=False) + "\n")


def _refuse_to_shrink(workspace: Workspace, identity: OutputIdentity, config: Config) -> None:
    """Refuse a limited run that would take rows, names and manifest away from a run over more rows."""
    if config.limit is None or identity.manifest is None or config.replace:
        return
    manifest = workspace.root / identity.manifest.name
    try:
        with manifest.open("rb") as lines:
            rows = sum(1 for _ in lines)
    except FileNotFoundError:
        return
    if rows > config.limit:
        raise OutputError(
            f"limit: {manifest} has {rows} rows, and --limit {config.limit} would take {rows - config.limit} of them "
            f"away; use --preview {config.limit} or another --output to try something, or add --replace"
        )


def _refuse_files_of_others(workspace: Workspace, manifest_name: str) -> None:
    """Refuse a folder that holds files of our names that this tool did not write: they would be overwritten."""
    try:
        names = [path.name for path in workspace.root.iterdir()]
    except FileNotFoundError:
        return
    found = sorted(name for name in names if name in (manifest_name, *_OUR_FILES) or _NAMED_FOLDER.fullmatch(name))
    if found:
        raise OutputError(
            f"output: {workspace.root} holds {found[0]}, which this tool did not write; "
            "choose another --output, or add --replace to overwrite it"
        )


def _is_same(names: list[str], stored: str | list[str]) -> bool:
    """Return whether a data set is the stored one, or has all of it and more."""
    now: set[str] = set()
    for name in names:
        now |= {_absolute(name), str(Path(name).resolve())}  # release 0.1.0 stored paths with their links followed
    return now.issuperset([stored] if isinstance(stored, str) else stored)


def _absolute(name: str) -> str:
    """Return the absolute path of a file, folder or glob; all else goes by its name.

    Links are not followed: where `latest.jsonl` points to another file from day to day, it stays the same data set.
    """
    is_local = name != EXAMPLE and not name.startswith("hf:") and not is_url(name)
    if is_local and (Path(name).exists() or glob.has_magic(name)):
        return os.path.abspath(name)  # noqa: PTH100 - Path.resolve would follow links
    return name


def _title(stored: str | list[str]) -> str:
    return stored if isinstance(stored, str) else f"{stored[0]} and {len(stored) - 1} more"
