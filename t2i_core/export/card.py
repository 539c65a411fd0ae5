"""The card of an export: README.md with a YAML head that `datasets` and the hub read, and some pictures."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from t2i_core.export.folders import TYPED
from t2i_core.export.formats import Format
from t2i_core.export.images import Images
from t2i_core.export.kinds import card_feature, described
from t2i_core.export.samples import Sample
from t2i_core.export.survey import Survey
from t2i_core.storage.files import atomic_write, write_text

PICTURES = ".card"  # hidden: no reader of images finds them
SHOWN = 6
SIDE = 192  # pixels
PROMPT_SHOWN = 300  # characters
_SIZES = ((1000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def shown_positions(survey: Survey) -> list[int]:
    """Return the positions of the samples that the card shows, spread over the data set."""
    count = len(survey.index)
    return (
        [round(number * (count - 1) / max(1, SHOWN - 1)) for number in range(SHOWN)]
        if count > SHOWN
        else [*range(count)]
    )


def write_card(
    folder: Path, form: Format, survey: Survey, summary: Mapping[str, Any], shown: list[Sample], images: Images
) -> None:
    """Write README.md and the pictures that it shows. `summary`: what `export.json` will say."""
    for number, sample in enumerate(shown):
        (folder / PICTURES).mkdir(exist_ok=True)
        with atomic_write(folder / PICTURES / f"{number}.jpg") as file:
            file.write(_thumbnail(images.picture(sample.key)))
    head = yaml.safe_dump(_head(form, survey, summary), allow_unicode=True, sort_keys=False, width=1000)
    write_text(folder / "README.md", f"---\n{head}---\n\n" + "\n".join(_body(form, survey, summary, shown)) + "\n")


def _head(form: Format, survey: Survey, summary: Mapping[str, Any]) -> dict[str, Any]:
    total = len(survey.index)
    asks = form.questions and bool(form.marks)
    head: dict[str, Any] = {
        "pretty_name": summary["name"],
        "license": "other",
        "task_categories": ["image-to-text" if asks else "text-to-image"],
        "size_categories": [next((name for bound, name in _SIZES if total < bound), "1M<n<10M")],
        "tags": ["synthetic", "text2image", "image"],
    }
    if form.builder:
        head["configs"] = [_config(form, survey, summary)]
    if form.builder == "webdataset":
        head["dataset_info"] = {"features": _webdataset_features(survey, summary)}
    return head


def _config(form: Format, survey: Survey, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return how `datasets` finds the splits."""
    typed = form.builder == "imagefolder"
    files = []
    for name, count in survey.per_split().items():
        # `datasets` takes the folder for what most of its files are: text files beside the images are left out, and
        # images of which there are no more than tables are named twice.
        suffixes = summary["image_suffixes"]
        images = [f"**/*{suffix}" for suffix in suffixes] * (2 if count <= len(suffixes) else 1)
        patterns = {"webdataset": ["*.tar"], "parquet": ["*.parquet"], "imagefolder": [TYPED, *images]}[form.builder]
        if count:
            files.append({"split": name, "path": [f"{name}/{pattern}" for pattern in patterns]})
    return {"config_name": "default", "data_files": files, **({"metadata_filenames": [TYPED]} if typed else {})}


def _webdataset_features(survey: Survey, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    fields = [{"name": name, **card_feature(kind)} for name, kind in survey.columns.exported().items()]
    return [
        *({"name": suffix.lstrip("."), "dtype": "image"} for suffix in summary["image_suffixes"]),
        {"name": "txt", "dtype": "string"},
        {"name": "json", "struct": fields},
        {"name": "__key__", "dtype": "string"},
        {"name": "__url__", "dtype": "string"},
    ]


def _body(form: Format, survey: Survey, summary: Mapping[str, Any], shown: list[Sample]) -> list[str]:
    model = summary["model"]
    lines = [f"# {_inline(summary['name'])}", ""]
    lines += [f"{len(survey.index):,} images, made from prompts by {_inline(model['title'])}.", ""]
    lines += _table(("split", "images"), [(name, f"{count:,}") for name, count in survey.per_split().items()])
    if len(survey.splits.names) > 1:
        lines += ["All images of a prompt are in one split.", ""]
    if survey.dropped:
        reasons = ", ".join(f"{count:,} ({_inline(reason)})" for reason, count in survey.dropped.most_common())
        lines += [f"Left out: {reasons}.", ""]
    pictures = [(f"![]({PICTURES}/{number}.jpg)", _inline(_cut(sample.text))) for number, sample in enumerate(shown)]
    lines += _table(("picture", "text"), pictures)
    if form.builder:
        lines += [
            "```python",
            "from datasets import load_dataset",
            "",
            'data = load_dataset("path/of/this/folder")',
            "```",
            "",
        ]
    lines += ["## How they were made", ""]
    settings = {**model["about"], **summary["generation"]}
    lines += _table(("setting", "value"), [(name, _inline(str(value))) for name, value in settings.items()])
    lines += ["## Licence", "", f"Of the model: {_inline(model['licence'])}", ""]
    lines += ["What that licence says of the images that the model makes binds whoever uses this data set.", ""]
    lines += ["## Columns", ""]
    sources = {name: f"column {column} of the input" for column, name in survey.columns.names.items()}
    columns = survey.columns.exported().items()
    rows = [
        (_inline(name), _inline(described(kind)), _inline(sources.get(name, "text2image"))) for name, kind in columns
    ]
    return lines + _table(("column", "type", "from"), rows)[:-1]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table, and a blank one; none for no row."""
    if not rows:
        return []
    return [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows)] + [""]


def _thumbnail(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _cut(text: str) -> str:
    return text if len(text) <= PROMPT_SHOWN else text[: PROMPT_SHOWN - 1] + "…"


def _inline(text: str) -> str:
    """Return text as Markdown shows it as it is, on one line of a table."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#~$!" else letter for letter in text)
