"""A run's summary as Markdown with a few small pictures, and its failures as a table: for Prefect's UI."""

import base64
import io
import json
import re
import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from t2i_core.manifest import Outcome
from t2i_core.report import Report, spread_images
from t2i_core.store import Store

THUMBNAILS = 6
THUMBNAIL_PIXELS = 128
# Of all thumbnails together, as text: a server refuses the event of an artifact of some megabytes.
THUMBNAIL_BYTES = 90_000
FAILURES_SHOWN = 50
CAPTION_CHARACTERS = 100


def summary_markdown(report: Report, outcome: Outcome, store: Store) -> str:
    """What was made, how fast, with what, where it lies, and how it looks. Less than 100 KB."""
    a, config, message = report.accounting, report.config, report.message()
    speed = f", {report.images_per_second:.2f} images/s" if a.images_generated else ""
    licence = report.preset.licence_note or report.model.licence or "not stated"
    model = config.model if report.model.source == "bundled" else report.model.location
    commit = f" at `{report.model.commit}`" if report.model.commit else ""
    lines = [
        f"## {_plain(message[:1].upper() + message[1:])}",
        "",
        "| | all | generated | reused | skipped | failed | not made yet |",
        "|---|---|---|---|---|---|---|",
        _table_row("rows", a.rows, a.rows_generated, a.rows_reused, a.rows_skipped, a.rows_failed, a.rows_pending),
        _table_row("images", a.images, a.images_generated, a.images_reused, "", a.images_failed, a.images_pending),
        "",
        f"- **Time** {report.seconds:.1f} s{speed}",
        f"- **Data set** {_plain(config.dataset)}",
        f"- **Model** {_plain(model)}{commit}",
        f"- **Licence** {_plain(licence)}",
        f"- **Where** {_plain(str(store.root.absolute()))} on {_plain(socket.gethostname())}",
        *(f"- {line}" for line in _links(report)),
    ]
    if a.images_cut:
        lines.append(f"- **Cut** {a.images_cut} images have a prompt longer than a text encoder takes")
    there = a.images - a.images_failed - a.images_pending
    thumbnails = list(_thumbnails(outcome, store, there))
    if thumbnails:
        lines += ["", f"| {len(thumbnails)} of {there} images | |", "|---|---|"]
        lines += [_table_row(f"![]({picture})", _plain(_one_line(prompt))) for picture, prompt in thumbnails]
    return "\n".join(lines) + "\n"


def failure_rows(store: Store) -> list[dict[str, Any]]:
    """The first failures, for a table; a last row says how many more there are."""
    with (store.root / "failures.jsonl").open(encoding="utf-8") as lines:
        rows = [_failure_row(json.loads(line)) for line in islice(lines, FAILURES_SHOWN)]
        more = sum(1 for _ in lines)
    if more:
        rows.append(dict.fromkeys(rows[0], "") | {"reason": f"{more} more in failures.jsonl"})
    return rows


def _table_row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _failure_row(failure: dict[str, Any]) -> dict[str, Any]:
    where = [f"line {failure['line']}"] if failure["line"] is not None else []
    where += [f"image {failure['image']}"] if failure.get("image") else []
    return {
        "row": failure["row"],
        "where": ", ".join(where),
        "field": failure["field"],
        "value": failure["value"],
        "reason": failure["reason"],
    }


def _links(report: Report) -> Iterator[str]:
    """Where the output folder is served, what people open first."""
    if report.config.public_url is None:
        return
    names = {"manifest": report.config.manifest_name, "contact sheet": "contact_sheet.jpg"}
    names |= {"failures": "failures.jsonl"} if report.accounting.failures else {}
    base = report.config.public_url.rstrip("/")
    yield "**Open** " + ", ".join(f"[{title}]({base}/{name.replace(' ', '%20')})" for title, name in names.items())


def _thumbnails(outcome: Outcome, store: Store, there: int) -> Iterator[tuple[str, str]]:
    """(picture as a data URI, prompt) of a few images, as many as fit into the bytes allowed."""
    left = THUMBNAIL_BYTES
    for file, prompt in spread_images(outcome, store, there, THUMBNAILS):
        uri = _data_uri(file)
        left -= len(uri)
        if left < 0:
            return
        yield uri, prompt


def _data_uri(file: Path) -> str:
    with Image.open(file) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CAPTION_CHARACTERS else line[: CAPTION_CHARACTERS - 1] + "…"


def _plain(text: str) -> str:
    """Text as data: nothing in it is Markdown or HTML."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
