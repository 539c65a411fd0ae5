"""The page of a run in Prefect's UI: its summary as Markdown with a few thumbnails, and its failures as a table."""

import base64
import io
import json
import re
import socket
from collections.abc import Iterator
from itertools import islice
from typing import Any

from PIL import Image

from t2i_core.models.preset_choice import licence_of, model_title
from t2i_core.output.layout import CONTACT_SHEET, FAILURES, GALLERY
from t2i_core.planning.catalog import Catalog
from t2i_core.printable import printable
from t2i_core.reports.gallery.folder import PAGE
from t2i_core.reports.pictures import read_picture
from t2i_core.reports.prompt_lines import unread_sentence
from t2i_core.reports.report import Report, unsafe_images
from t2i_core.storage.workspace import Workspace

THUMBNAILS = 6
THUMBNAIL_PIXELS = 128
# Of all thumbnails together, as text: a server refuses the event of an artifact of some megabytes.
THUMBNAIL_BYTES = 90_000
FAILURES_SHOWN = 50
CAPTION_CHARACTERS = 100


def summary_markdown(report: Report, catalog: Catalog) -> str:
    """Return what was made, how fast, with what, where it lies, and how it looks; below 100 KB."""
    a, config, message = report.accounting, report.config, report.message()
    licence = licence_of(report.model, report.preset)
    model = model_title(config.model, report.preset) if report.preset.is_guess else config.model
    if report.model.source == "hub" and report.model.location != config.model:
        model += f": {report.model.location}"
    supplied = [f", {' and '.join(one.components)} from {one.name}" for one in report.model.checkpoints]
    commit = f" at `{report.model.commit}`" if report.model.commit else ""
    lines = [
        f"## {_plain(message[:1].upper() + message[1:])}",
        "",
        "| | all | generated | reused | skipped | failed | not made yet |",
        "|---|---|---|---|---|---|---|",
        _table_row("rows", a.rows, a.rows_generated, a.rows_reused, a.rows_skipped, a.rows_failed, a.rows_pending),
        _table_row("images", a.images, a.images_generated, a.images_reused, "", a.images_failed, a.images_pending),
        "",
        f"- **Time** {report.time_spent()}",
        f"- **Data set** {_plain(config.dataset_title)}",
        f"- **Model** {_plain(model)}{commit}{_plain(''.join(supplied))}",
        f"- **Licence** {_plain(licence)}",
        f"- **Where** {_plain(str(catalog.workspace.root.absolute()))} on {_plain(socket.gethostname())}",
        *(f"- {line}" for line in _links(report, catalog)),
    ]
    if a.images_unsafe:
        lines.append(f"- **Safety** {unsafe_images(a)}")
    if a.images_cut:
        lines.append(f"- **Cut** {a.images_cut} images have a prompt longer than a text encoder takes")
    if a.prompts_unread:
        lines.append(f"- **Unread** {unread_sentence(a.prompts_unread, a.unread_by, a.rows_unread)}")
    thumbnails = list(_thumbnails(catalog))
    if thumbnails:
        lines += ["", f"| {len(thumbnails)} of {a.images_present} images | |", "|---|---|"]
        lines += [_table_row(f"![]({picture})", _plain(_one_line(prompt))) for picture, prompt in thumbnails]
    return "\n".join(lines) + "\n"


def failure_rows(workspace: Workspace) -> list[dict[str, Any]]:
    """Return the first failures, for a table; a last row says how many more there are."""
    with (workspace.root / FAILURES).open(encoding="utf-8") as lines:
        rows = [_failure_row(json.loads(line)) for line in islice(lines, FAILURES_SHOWN)]
        more = sum(1 for _ in lines)
    if more:
        rows.append(dict.fromkeys(rows[0], "") | {"reason": f"{more} more in {FAILURES}"})
    return rows


def _table_row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _failure_row(failure: dict[str, Any]) -> dict[str, Any]:
    where = [f"line {failure['line']}"] if failure["line"] is not None else []
    where += [f"image {failure['image']}"] if failure.get("image") else []
    texts = {name: failure[name] for name in ("field", "value", "reason")}
    shown = {name: text if text is None else _cell(str(text)) for name, text in texts.items()}
    return {"row": failure["row"], "where": ", ".join(where)} | shown


def _links(report: Report, catalog: Catalog) -> Iterator[str]:
    """Yield a line of links to what people open first, if the output folder is served somewhere."""
    if report.config.public_url is None:
        return
    names = {"manifest": report.config.manifest_name, "contact sheet": CONTACT_SHEET}
    names |= {"failures": FAILURES} if report.accounting.failures else {}
    gallery = f"{GALLERY}/{PAGE}"
    names |= {"gallery": gallery} if (catalog.workspace.root / gallery).is_file() else {}
    base = report.config.public_url.rstrip("/")
    yield "**Open** " + ", ".join(f"[{title}]({base}/{name.replace(' ', '%20')})" for title, name in names.items())


def _thumbnails(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yield (picture as a data URI, prompt) of a few images, as many as fit into the bytes allowed."""
    left = THUMBNAIL_BYTES
    for picture in catalog.spread_pictures(THUMBNAILS):
        image = read_picture(picture.key, catalog.workspace.images)
        if image is None:
            continue
        uri = _thumbnail_uri(image)
        left -= len(uri)
        if left < 0:
            return
        yield uri, picture.prompt


def _thumbnail_uri(image: Image.Image) -> str:
    """Return a small JPEG of an image, as a data URI."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CAPTION_CHARACTERS else line[: CAPTION_CHARACTERS - 1] + "…"


def _cell(text: str) -> str:
    """Return text for a cell of a table, which Prefect's UI renders as Markdown: no link, image or HTML is left in it.

    Quotes, commas and the like stay as they are: they are easier to read.
    """
    return re.sub(r"([\\`*_\[\]<>!|~&#:@]|(?<=www)\.)", r"\\\1", printable(" ".join(text.split())))


def _plain(text: str) -> str:
    """Return text on one line with all punctuation escaped, so that nothing in it is read as Markdown or HTML."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
