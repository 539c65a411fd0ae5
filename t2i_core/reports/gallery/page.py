"""The page `index.html`: the template, filled with what the scripts need to know and with the report."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import Environment

from t2i_core.bundled import GALLERY_TEMPLATES
from t2i_core.reports.gallery.charts import histogram
from t2i_core.reports.gallery.data import DETAILS, FLAGS, GalleryData, looks_shown
from t2i_core.reports.templates import templates_of
from t2i_core.storage.tables import CHUNK_ROWS
from t2i_core.storage.thumbnails import LOOKS

# In the order in which the browser reads them.
PAGE_SCRIPTS = ("page.js", "controls.js", "grid.js", "image.js")
_TEXTS = ["prompt", "status", "model_name", "scheduler", "size", "thumbnails"]
_NUMBERS = [
    "row",
    "condition",
    "image",
    "steps",
    "guidance_scale",
    "seconds",
    "tokens",
    "twin",
    "alike",
    "slot",
    "flags",
    *LOOKS,
]
# What people sort by, besides scores.
_SORTABLE = ("tokens", "seconds")


def render_page(gallery: GalleryData, numbers: Mapping[str, Any], *, title: str, subtitle: str) -> str:
    """Return `index.html`; `numbers`: as `report_numbers` returns them.

    The templates escape every text; only what this package made itself (styles, scripts, plots) goes in as it is.
    """
    templates = _templates()
    return templates.get_template("index.html").render(
        title=title,
        subtitle=subtitle,
        css=_source("gallery.css"),
        model_script=_source("model.js"),
        page_scripts="\n".join(map(_source, PAGE_SCRIPTS)),
        head=_head(gallery),
        report=templates.get_template("report.html").render(numbers=numbers),
    )


def _head(gallery: GalleryData) -> dict[str, Any]:
    """Return what the page's scripts know before any data is loaded."""
    counts, looks = gallery.counts, looks_shown(gallery.scores)
    return {
        "images": counts.images,
        "data": gallery.data,
        "data_chunk": CHUNK_ROWS,
        "details": gallery.details,
        "details_chunk": DETAILS,
        # Seeds go as text: larger ones than JavaScript's numbers would be found wrongly.
        "text": [*_TEXTS, "seed"],
        "numbers": [*_NUMBERS, *gallery.scores],
        "sortable": [*gallery.scores, *looks, *_SORTABLE],
        "looks": looks,
        "flags": FLAGS,
        "counts": {"images": counts.images, **counts.statuses, **counts.flags},
    }


def _templates() -> Environment:
    templates = templates_of(GALLERY_TEMPLATES)
    templates.filters |= {
        "short": lambda value: f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}",
        "whole": lambda value: f"{value:,}",
        "bytes": _bytes,
        "time": lambda value: f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M}" if value else "",
        "named": lambda name: name.removeprefix("score_").replace("_", " ").capitalize(),
        "histogram": histogram,
    }
    return templates


def _source(name: str) -> str:
    """Return a file of the package, which goes into the page as it is."""
    return (GALLERY_TEMPLATES / name).read_text(encoding="utf-8")


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
