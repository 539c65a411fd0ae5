"""Whose folder an output is: one data set, one manifest, and the model commits it began with.

This module alone reads and writes `.t2i/output.json`. Where that was deleted, `recovery.py` tells the same from
run.json, the manifest, and the headers of images.
"""

import glob
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from t2i_core.config import Config
from t2i_core.dataset.sources import would_read
from t2i_core.errors import OutputError
from t2i_core.local_paths import is_url
from t2i_core.options.values import EXAMPLE
from t2i_core.output.layout import CONTACT_SHEET, FAILURES, PREVIEW, PROVENANCE, RUN, ManifestForm
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.recovery import recover
from t2i_core.output.writable import check_output, may_be_looked_at
from t2i_core.storage.files import read_regular, write_text
from t2i_core.storage.workspace import Workspace

IDENTITY = "output.json"
_OUR_FILES = (FAILURES, PROVENANCE, RUN, CONTACT_SHEET)
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
    a run that is refused before its data set is claimed leaves the folder free.

    Raises:
        OutputError: as `check_output` and `check_files`; if another data set's images are there and `replace` is not
            set, if the data set is one of the files that the run writes, or if `limit` would take rows away from a
            larger manifest.
    """
    written = [workspace.root / name for name in (config.manifest_name, *_OUR_FILES)]
    for name in config.dataset_names:
        if any(would_read(name, path) for path in written):
            raise OutputError(f"dataset: {name} is or holds a file that the run itself writes; choose another --output")
    names = [_absolute(name) for name in config.dataset_names]
    dataset = names[0] if len(names) == 1 else names
    identity = check_files(workspace, config)
    if identity is None:
        return OutputIdentity(dataset, fingerprint)
    if not config.replace:
        _refuse_another_data_set(workspace, identity, config.dataset_names, fingerprint)
    _refuse_to_shrink(workspace, identity, config)
    return replace(identity, dataset=dataset, fingerprint=fingerprint)


def check_files(workspace: Workspace, config: Config) -> OutputIdentity | None:
    """Refuse a folder with a file that the run would write and that this tool did not; nothing is written.

    Return what the folder is for; None where it is for nothing yet.

    Raises:
        OutputError: naming the file, unless `replace` is set; and as `check_output`.
    """
    if not (config.only_looks and may_be_looked_at(workspace.root)):
        check_output(workspace.root)
    stored = _read(workspace)
    identity = stored or _recovered(workspace, config)
    if not config.replace:
        OwnFiles(workspace, trusted=_names_of(stored)).check(_names_written(config))
        if identity is None:
            _refuse_names_of_others(workspace)
    return identity


def claim_output(workspace: Workspace, identity: OutputIdentity, *, take_over: bool = False) -> None:
    """Write down what the folder is for from now on, and begin to note which files are written.

    Raises:
        OutputError: a run over another data set claimed the folder since `open_output`; not with `take_over`.
    """
    with workspace.lock():
        current = _read(workspace)  # another run may have claimed the folder, or written a manifest
        if current is not None and not take_over:
            names = [identity.dataset] if isinstance(identity.dataset, str) else identity.dataset
            _refuse_another_data_set(workspace, current, names, identity.fingerprint)
        OwnFiles(workspace, trusted=_names_of(current)).begin(_names_of(current or identity))
        _write(workspace, replace(identity, manifest=current.manifest if current else identity.manifest))


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


def stored_identity(workspace: Workspace) -> dict[str, Any] | None:
    """Return what `.t2i/output.json` holds, for a copy of it in run.json; None if it is not there."""
    identity = _read(workspace)
    return asdict(identity) if identity else None


def _read(workspace: Workspace) -> OutputIdentity | None:
    path = workspace.hidden / IDENTITY
    try:
        return _parsed(json.loads(read_regular(path)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise OutputError(
            f"output: cannot read {path} ({error}); remove that file if the folder is yours to use"
        ) from error


def _parsed(values: dict[str, Any]) -> OutputIdentity:
    """Return the identity that a JSON object holds.

    Raises:
        ValueError, TypeError, AttributeError: for one that this tool did not write.
    """
    form = values.pop("manifest", None)
    identity = OutputIdentity(**values, manifest=ManifestForm(**form) if form else None)
    names = identity.dataset if isinstance(identity.dataset, list) else [identity.dataset]
    texts = [*names, identity.fingerprint, *identity.commits, *identity.commits.values()]
    if identity.manifest is not None:
        texts += [identity.manifest.name, identity.manifest.prefix, identity.manifest.image_key]
        if identity.manifest.name != Path(identity.manifest.name).name:
            raise ValueError(f"the manifest {identity.manifest.name!r} lies outside of the folder")
    if not (names and all(isinstance(text, str) for text in texts)):
        raise ValueError("a value is of another type")
    return identity


def _recovered(workspace: Workspace, config: Config) -> OutputIdentity | None:
    """Return what the folder is for where its output.json was deleted; of an unknown data set, it is for this one."""
    values = recover(workspace, config)
    if values is None:
        return None
    stored = values["dataset"] or config.dataset_names
    names = [_absolute(str(name)) for name in (stored if isinstance(stored, list) else [stored])]
    values |= {"dataset": names[0] if len(names) == 1 else names, "fingerprint": values["fingerprint"] or ""}
    try:
        return _parsed(values)
    except (ValueError, TypeError, AttributeError):  # a run.json that was edited by hand
        return _parsed({"dataset": [_absolute(name) for name in config.dataset_names], "fingerprint": ""})


def _write(workspace: Workspace, identity: OutputIdentity) -> None:
    write_text(workspace.hidden / IDENTITY, json.dumps(asdict(identity), indent=1, ensure_ascii=False) + "\n")


def _refuse_another_data_set(
    workspace: Workspace, identity: OutputIdentity, names: list[str], fingerprint: str
) -> None:
    """Refuse a folder that is for another data set than that of `names`, with this fingerprint."""
    if fingerprint != identity.fingerprint and not _is_same(names, identity.dataset):
        raise OutputError(
            f"output: {workspace.root} holds the images of {_title(identity.dataset)}; "
            "choose another --output, or add --replace to let this data set take it over"
        )


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


def _names_of(identity: OutputIdentity | None) -> tuple[str, ...]:
    """Return the names of the files that people see in an output of this identity; none for one without."""
    if identity is None:
        return ()
    return (*_OUR_FILES, PREVIEW, *([identity.manifest.name] if identity.manifest else []))


def _names_written(config: Config) -> tuple[str, ...]:
    """Return the names of the files that people see which a run writes; those of images follow from its plan."""
    if config.preview:
        return (PREVIEW,)
    return () if config.part else (config.manifest_name, *_OUR_FILES)


def _refuse_names_of_others(workspace: Workspace) -> None:
    """Refuse a folder that holds names as images of ours have them, before its data set is read."""
    try:
        names = [path.name for path in workspace.root.iterdir()]
    except FileNotFoundError:
        return
    if found := sorted(name for name in names if _NAMED_FOLDER.fullmatch(name)):
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
