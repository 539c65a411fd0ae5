"""The files that a run leaves in its output folder: their names, and the paths by which the manifest names images."""

from dataclasses import dataclass
from typing import Self

from t2i_core.config import Config
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.suffixes import PNG

FAILURES = "failures.jsonl"
PROVENANCE = "images.parquet"
RUN = "run.json"
CONTACT_SHEET = "contact_sheet.jpg"
GALLERY = "gallery"
PREVIEW = "preview.jpg"

# Of `named_images: auto`.
NAMED_IMAGES_LIMIT = 100_000
# Of `gallery: auto`.
GALLERY_LIMIT = 100_000


def has_names(choice: str, embed_metadata: str, images: int) -> bool:
    """Return whether that many images get names under the options `named_images` (auto, always or never) and another.

    Where named images are to have no metadata, they get names whatever their number: images by key have it all.
    """
    return choice == "always" or (choice == "auto" and (images <= NAMED_IMAGES_LIMIT or embed_metadata == "none"))


def has_gallery(choice: str, images: int) -> bool:
    """Return whether that many images get a gallery under the option `gallery`: auto, always or never."""
    return choice == "always" or (choice == "auto" and images <= GALLERY_LIMIT)


@dataclass(frozen=True, slots=True)
class ManifestForm:
    """The form of a manifest: its file name, what stands before each path, and the column of the paths."""

    name: str
    prefix: str  # empty where paths are relative to the manifest
    image_key: str

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the form that a run writes: each path is the output as given, then the file; or the file alone."""
        prefix = "" if config.manifest_paths == "relative" else config.output.rstrip("/") + "/"
        return cls(config.manifest_name, prefix, config.image_key)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a run names its manifest and its images. `named`: images also have a name, beside the one by key."""

    form: ManifestForm
    named: bool

    @classmethod
    def of(cls, config: Config, images: int) -> Self:
        """Return the layout of a run over a data set of that many images."""
        return cls(ManifestForm.of(config), has_names(config.named_images, config.embed_metadata, images))

    def path(self, name: str, picture: str, form: str | None, images: ImageStore) -> str:
        """Return the path of an image as the manifest gives it.

        Args:
            name: of the image.
            picture, form: the key and the format of the picture that stands under it.
        """
        return self.form.prefix + (name if self.named else images.location(picture, form or PNG))
