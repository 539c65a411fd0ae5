"""Which images a user means: by the names that the manifest gives, by keys, or by a file of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from t2i_core.errors import ConfigError, listed, shorten
from t2i_core.hashing import SHA256
from t2i_core.output.review import read_review
from t2i_core.planning.catalog import Catalog

NAMES_SHOWN = 3


def find_images(catalog: Catalog, references: Sequence[str]) -> frozenset[str]:
    """Return the keys of the image specs that references mean.

    A reference is the name of an image (`sample12_condition0_1`, also as a path), that of a prompt for all its images
    (`sample12_condition0`), the key of an image or of its picture, or a file: of references, a line each, or a review,
    which means the pictures that it says no to. Several may stand in one text, with commas between.

    Raises:
        ConfigError: for what is no image of the data set.
    """
    names, pictures = set[str](), set[str]()
    for reference in _split(references):
        if reference.endswith(".csv"):
            review = read_review(_file(reference))
            pictures |= {key.decode() for key in review.keys[~review.keep].tolist()}
        elif reference.endswith(".txt"):
            names |= {_name(line) for line in _lines(_file(reference))}
        else:
            names.add(_name(reference))
    found, known = set[str](), set[str]()
    for chunk in catalog.chunks(["name"]):
        keys, paths = (chunk.specs[column].to_pylist() for column in ("key", "name"))
        shown = catalog.index.picture_keys(chunk.specs["key"]).to_pylist()
        for key, picture, path in zip(keys, shown, paths, strict=True):
            name = PurePosixPath(path)
            meant = names & {key, picture, name.stem, name.parent.name}
            if meant or picture in pictures:
                found.add(key)
                known |= meant
    if unknown := sorted(names - known):
        raise ConfigError(
            [
                f"only: {listed(map(shorten, unknown), NAMES_SHOWN)}: no such image in the data set; write names as "
                "the manifest has them (sample0_condition0, sample0_condition0_0), or keys of images.parquet"
            ]
        )
    return frozenset(found)


def check_references(references: Sequence[str]) -> None:
    """Refuse files that are not there.

    Raises:
        ConfigError: naming the file.
    """
    for reference in _split(references):
        if reference.endswith((".csv", ".txt")):
            _file(reference)


def _split(references: Sequence[str]) -> Iterator[str]:
    for text in references:
        yield from (part.strip() for part in text.split(",") if part.strip())


def _file(reference: str) -> Path:
    path = Path(reference).expanduser()
    if not path.is_file():
        raise ConfigError([f"only: {reference} does not exist; check the path"])
    return path


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"only: {path} cannot be read as text: {error}"]) from None


def _name(reference: str) -> str:
    """Return a key or a name without folders and without the suffix of a file."""
    if SHA256.fullmatch(reference):
        return reference
    name = PurePosixPath(reference.replace("\\", "/").rstrip("/")).name
    return name.removesuffix(PurePosixPath(name).suffix) if name.endswith((".png", ".webp", ".jpg")) else name
