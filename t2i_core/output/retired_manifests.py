"""Manifests that no longer hold: moved to `.t2i/manifests`, with their paths rewritten to the images by key.

At no instant may a manifest name a wrong picture. So a manifest is retired before the first of its names changes its
meaning, and until the new one is written there is none.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from t2i_core.hashing import digest
from t2i_core.json_values import json_text
from t2i_core.output.layout import ManifestForm
from t2i_core.output.named_links import NamedLinks
from t2i_core.storage.files import atomic_write
from t2i_core.storage.workspace import Workspace

# What a run itself names an image, relative to the output.
_OURS = re.compile(r"([^/]+_condition\d+)/\1_\d+\.(png|webp|jpg)|\.t2i/images/.+")


def is_outdated(manifest: Path, form: ManifestForm, new_form: ManifestForm, outdated_names: set[str]) -> bool:
    """Return whether a manifest of `form` has to be retired before names change. Changes nothing.

    It has to if the new manifest has another form, for an output has one manifest; or if it gives one of
    `outdated_names`, which are about to stand for another picture, or to vanish.
    """
    if form != new_form:
        return True
    return bool(outdated_names) and not outdated_names.isdisjoint(_names_in(manifest, form))


def retire_manifest(manifest: Path, form: ManifestForm, workspace: Workspace, links: NamedLinks) -> None:
    """Move a manifest to `.t2i/manifests`, its names rewritten to paths by key.

    What it says there stays true until an image is pruned. A name whose picture cannot be told any more is left out.
    """
    new_folder = f"/{workspace.manifests.relative_to(workspace.root).as_posix()}"

    def by_key(path: object) -> object:
        name = _name(path, form)
        if name is None:
            return path  # an image the row came with
        key = links.key_of(name)
        if key is None:
            return None
        location = workspace.images.location(key)
        return form.prefix + location if form.prefix else posixpath.relpath(f"/{location}", new_folder)

    target = workspace.manifests / f"{digest([manifest.stat().st_mtime_ns, manifest.name])[:16]}.jsonl"
    with atomic_write(target) as file:
        for row in _rows(manifest):
            if _paths(row, form):
                row[form.image_key] = [new for path in _paths(row, form) if (new := by_key(path)) is not None]
            file.write((json_text(row) + "\n").encode())
    manifest.unlink(missing_ok=True)


def _names_in(manifest: Path, form: ManifestForm) -> Iterator[str]:
    """Yield the names, relative to the output, that a manifest gives its images."""
    for row in _rows(manifest):
        for path in _paths(row, form):
            if (name := _name(path, form)) is not None:
                yield name


def _name(path: object, form: ManifestForm) -> str | None:
    """Return a path that the run itself gave, relative to the output; None for one that the row came with."""
    if not (isinstance(path, str) and path.startswith(form.prefix)):
        return None
    name = path.removeprefix(form.prefix)
    # Where nothing stands before the names, they are told by their form.
    return name if form.prefix or _OURS.fullmatch(name) else None


def _rows(manifest: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest of ours; a line that somebody broke by hand is passed over."""
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row


def _paths(row: dict[str, Any], form: ManifestForm) -> list[object]:
    paths = row.get(form.image_key)
    return paths if isinstance(paths, list) else []
