"""The formats of an export: what each is called, what it may do, and who writes it."""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2i_core.export.placed import COPY, IN_PLACE, LINK
from t2i_core.export.questions import MARKS

if TYPE_CHECKING:
    from t2i_core.export.job import Job, Writer


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its writer, as module:class, and what it may do.

    Attributes:
        text_column: the name of the column with the text that is learned.
        reserved: patterns of names that mean something to its readers; a column of the input is renamed.
        images: where image files may be, the default first; empty where they are inside its shards.
        flat: whether the image files of a split lie in one folder.
        questions: whether it takes a file of questions.
        marks: texts that stand for a picture there, so that no prompt may hold them.
        builder: the name by which `datasets` loads it; empty where it does not.
    """

    writer: str
    text_column: str
    reserved: tuple[str, ...]
    images: tuple[str, ...] = ()
    flat: bool = False
    questions: bool = False
    marks: tuple[str, ...] = ()
    builder: str = ""

    @property
    def sharded(self) -> bool:
        """Whether images are inside shards."""
        return not self.images

    def open(self, job: "Job") -> "Writer":
        """Return the writer of an export."""
        module, _, name = self.writer.partition(":")
        writer: Writer = getattr(importlib.import_module(f"t2i_core.export.{module}"), name)(job)
        return writer


_FILES = (LINK, COPY)
_LISTED = (IN_PLACE, LINK, COPY)
_LLAVA = ("id", "image", "conversations", "video", "data_path", "num_tokens")
FORMATS: dict[str, Format] = {
    "imagefolder": Format("folders:ImageFolder", "text", ("image", "label"), _FILES, builder="imagefolder"),
    "webdataset": Format("webdataset:WebDataset", "text", ("__key__", "__url__"), builder="webdataset"),
    "parquet": Format("tables:ParquetImages", "text", ("image",), builder="parquet"),
    "captions": Format("folders:Captions", "text", ("image", "label"), _FILES, flat=True, builder="imagefolder"),
    "diffsynth": Format("manifests:DiffSynth", "prompt", ("image", "video"), _LISTED),
    "musubi": Format("manifests:Musubi", "caption", ("image_path*", "control_path*"), _LISTED),
    "llava": Format("manifests:Llava", "text", _LLAVA, _LISTED, questions=True, marks=MARKS),
    "qwen-vl": Format("manifests:QwenVl", "text", _LLAVA, _LISTED, questions=True, marks=MARKS),
    "llama-factory": Format(
        "manifests:LlamaFactory",
        "text",
        ("messages", "images", "videos", "audios", "system", "tools"),
        _LISTED,
        questions=True,
        marks=MARKS,
    ),
    "dataflow": Format("manifests:DataFlow", "caption", ("image", "images", "conversations"), _LISTED, questions=True),
}  # fmt: skip
