"""The page of a comparison: one file of HTML, and small pictures beside it."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment
from PIL import Image

from t2i_core.bundled import COMPARISON_TEMPLATES, GALLERY_TEMPLATES
from t2i_core.errors import DamagedImage
from t2i_core.output.finished import FinishedOutput
from t2i_core.output.own_files import claim_folder
from t2i_core.reports.comparison import Comparison
from t2i_core.reports.templates import templates_of
from t2i_core.storage.files import atomic_write, write_text
from t2i_core.storage.formats import read_image

PAGE = "index.html"
# The gallery's, and what a comparison adds to it.
STYLES = (GALLERY_TEMPLATES / "gallery.css", COMPARISON_TEMPLATES / "comparison.css")
_PICTURES = "pictures"
_SIDE, _QUALITY = 384, 85
_THREADS = 4


@dataclass(frozen=True, slots=True)
class PagePicture:
    """A small picture, and where the original lies: addresses relative to the page; sizes in pixels."""

    thumbnail: str
    original: str
    width: int
    height: int
    small: bool  # the original is no larger, and is shown as pixels


def write_comparison(folder: Path, comparison: Comparison, by: str | None, on_images: Callable[[int], None]) -> None:
    """Write `index.html` and its small pictures into a folder; pictures that are there already are kept.

    `on_images` is told of each picture.

    Raises:
        OutputError: for a folder that holds files of somebody else.
    """
    claim_folder(folder)
    pictures: list[Mapping[str, PagePicture]] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for number, output in enumerate(comparison.outputs):
            keys = list(dict.fromkeys(row[number].values["key"] for row in comparison.rows))
            own: dict[str, PagePicture] = {}
            for key, picture in zip(keys, pool.map(lambda key: _picture(folder, output, key), keys), strict=True):  # noqa: B023
                if picture is not None:
                    own[key] = picture
                on_images(1)
            pictures.append(own)
    names = _names(comparison.outputs)
    text = (
        _templates()
        .get_template(PAGE)
        .render(
            title=" · ".join(names),
            names=names,
            css="\n".join(path.read_text(encoding="utf-8") for path in STYLES),
            comparison=comparison,
            pictures=pictures,
            by=(by or "").removeprefix("-"),
        )
    )
    write_text(folder / PAGE, text)


def _picture(folder: Path, output: FinishedOutput, key: str) -> PagePicture | None:
    """Make the small picture of an image; return None where there is no image, or a damaged one."""
    images = output.workspace.images
    data = images.read(key)
    if data is None:
        return None
    try:
        image = read_image(data).image
    except DamagedImage:
        return None
    width, height = image.size
    scale = min(1.0, _SIDE / max(image.size))
    path = folder / _PICTURES / f"{key}.webp"
    if not path.is_file():
        small = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
        with atomic_write(path) as file:
            small.save(file, format="WEBP", quality=_QUALITY, lossless=scale == 1)
    original = os.path.relpath(output.workspace.root / images.location(key), folder)
    return PagePicture(f"{_PICTURES}/{key}.webp", quote(Path(original).as_posix()), width, height, scale == 1)


def _names(outputs: Sequence[FinishedOutput]) -> list[str]:
    """Return what the page calls the runs: the last parts of their folders, as many as tell them apart."""
    parts = [output.workspace.root.absolute().parts for output in outputs]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(own[-count:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [str(output.workspace.root) for output in outputs]


def _templates() -> Environment:
    templates = templates_of(COMPARISON_TEMPLATES)
    templates.filters |= {
        "short": lambda value: f"{value:,.4g}",
        "signed": lambda value: f"{value:+,.3g}" if value else "±0",
        "sign": lambda value: "up" if value > 0 else "down" if value < 0 else "equal",
        "whole": lambda value: f"{value:,}",
        "named": lambda name: name.removeprefix("score_").replace("_", " "),
    }
    return templates
