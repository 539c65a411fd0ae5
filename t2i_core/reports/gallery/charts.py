"""The report's plots as SVG, which take their colours from the page."""

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

SIZE = (480, 200)  # pixels; the page scales it


def histogram(values: Mapping[str, Any]) -> str:
    """Return the histogram of a `distribution` as SVG: the images of each bin, its range shown when pointed at."""
    import pygal

    edges, images = values["histogram"]["edges"], values["histogram"]["images"]
    chart = pygal.Histogram(
        width=SIZE[0], height=SIZE[1], show_legend=False, js=[], css=[], margin=2, max_scale=5, no_prefix=True,
        explicit_size=False, x_value_formatter=_number, value_formatter=_count,
    )  # fmt: skip
    bars = zip(images, edges[:-1], edges[1:], strict=True)
    chart.add("images", [bar for bar in bars if bar[0]])
    return _bare(chart.render_tree())


def _bare(tree: Any) -> str:
    """Return a chart without its styles, scripts and comments; its values as the browser's own tooltips."""
    tree.attrib.pop("id", None)
    for parent in list(tree.iter()):
        for child in list(parent):
            if (
                child.tag == "defs"
                or not isinstance(child.tag, str)
                or child.get("class") in ("title", "x centered", "y centered")
            ):
                parent.remove(child)
            elif child.tag == "desc" and child.get("class") == "value":
                child.tag = "title"
                child.text = _tooltip(child.text or "")
            elif child.tag == "desc":
                parent.remove(child)
    return ElementTree.tostring(tree, encoding="unicode")


def _tooltip(text: str) -> str:
    """Return `12 images, 0.1 to 0.2` for what pygal says of a bar: `12: from 0.1 to 0.2`."""
    count, _, bounds = re.sub(r"\s+", " ", text).partition(":")
    return f"{count} images, {bounds.strip().removeprefix('from ')}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _count(value: float) -> str:
    return f"{int(value):,}"
