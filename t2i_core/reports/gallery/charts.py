"""The report's plots as SVG. The page gives them their colours, by their elements and classes (`gallery.css`)."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import leather

WIDTH, HEIGHT = 400, 190  # the page scales the plot
# The part that holds more than margin: left, top, width, height
_SHOWN = (4, 8, WIDTH - 8, HEIGHT - 22)


class Bins(leather.Shape):  # type: ignore[misc]
    """Bars of a histogram, each from one edge to the next; a bar tells its range when it is pointed at."""

    def __init__(self, edges: list[float]) -> None:
        self._edges = edges

    def validate_series(self, series: Any) -> None:
        """Accept any series: it is one of `histogram`."""

    def to_svg(self, width: int, height: int, x_scale: Any, y_scale: Any, series: Any, palette: Any) -> Any:
        """Return a bar for each bin."""
        group = ElementTree.Element("g", {"class": "series"})
        for point, low, high in zip(series.data(), self._edges[:-1], self._edges[1:], strict=True):
            left, right = (float(x_scale.project(edge, 0, width)) for edge in (low, high))
            top = float(y_scale.project(point.y, height, 0))
            box = {"x": left, "y": top, "width": right - left, "height": height - top}
            bar = ElementTree.SubElement(group, "rect", {name: f"{value:.2f}" for name, value in box.items()})
            ElementTree.SubElement(bar, "title").text = f"{low:.4g} to {high:.4g}: {int(point.y):,} images"
        return group


def histogram(values: Mapping[str, Any]) -> str:
    """Return the histogram of a `distribution` as SVG."""
    edges, images = values["histogram"]["edges"], values["histogram"]["images"]
    chart = leather.Chart()
    chart.add_x_scale(edges[0], edges[-1])
    chart.add_y_scale(0, max(images))
    chart.add_x_axis(tick_formatter=_label)
    chart.add_y_axis(tick_formatter=_label)
    chart.add_series(leather.Series(list(zip(edges[:-1], images, strict=True))), Bins(edges))
    shown = " ".join(map(str, _SHOWN))
    svg = ElementTree.Element(
        "svg", {"class": "plot-svg", "viewBox": shown, "role": "img", "xmlns": "http://www.w3.org/2000/svg"}
    )
    svg.append(chart.to_svg_group(WIDTH, HEIGHT))
    return ElementTree.tostring(svg, encoding="unicode")


def _label(value: Any, index: int, count: int) -> str:
    return f"{float(value):,.4g}" if abs(value) < 1000 else f"{float(value):,.0f}"
