"""Which files or hub data set a run reads: they are found and checked here, and known by their content."""

import hashlib
from pathlib import Path

from t2i_core.bundled import EXAMPLE_FILE
from t2i_core.config import EXAMPLE, Config
from t2i_core.errors import DatasetError
from t2i_core.json_values import json_text

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".ckpt", ".joblib", ".dill")


def dataset_path(config: Config) -> Path:
    """Return the file that holds the data set.

    Raises:
        DatasetError: for one that does not exist or is no file, as a hub data set.
    """
    if config.dataset == EXAMPLE:
        return EXAMPLE_FILE
    return check_file(config.dataset)


def fingerprint(config: Config) -> str:
    """Return the SHA-256, in hexadecimal digits, of the data set's content: the bytes of the file.

    For a hub data set it is taken over name, config, split and the commit the hub names today; where the hub does not
    answer (offline), over the first three.

    Raises:
        DatasetError: as `read_rows`.
    """
    if config.dataset.startswith("hf:"):
        name, subset, split = parse_hub_name(config.dataset)
        return hashlib.sha256(json_text([name, subset, split, _hub_commit(name)]).encode()).hexdigest()
    path = dataset_path(config)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise cannot_be_read(path, error) from None


def _hub_commit(name: str) -> str | None:
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name, timeout=30).sha
    except (OSError, ValueError):  # offline, or no such data set: then reading it says so
        return None


def check_file(dataset: str) -> Path:
    """Return the path of a data set file that exists and has a known format.

    Raises:
        DatasetError: for anything else, with the formats that are read.
    """
    works = f"give a {' '.join(SUFFIXES)} file (each also .gz)"
    if dataset.startswith("ms:"):
        raise DatasetError(f"{dataset}: ModelScope is not read directly; download the data set and give its file")
    path = Path(dataset)
    suffix = format_suffix(path)
    if suffix in PICKLES:
        raise DatasetError(f"{path}: a pickle runs code when it is read, so it is refused; {works}")
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:  # such as a folder above it that may not be entered, or a name that is too long
        raise cannot_be_read(path, error) from None
    if is_folder:
        raise DatasetError(f"{path}: is a folder; {works}")
    if not exists:
        fix = "check the path" if suffix in SUFFIXES else f"{works}, or hf:name:split for a hub data set"
        raise DatasetError(f"{path}: no such file (looked in {Path.cwd()}); {fix}")
    if suffix not in SUFFIXES:
        raise DatasetError(f"{path}: unknown format {path.suffix or 'without a suffix'}; {works}")
    if suffix == ".parquet" and path.suffix.lower() == ".gz":
        raise DatasetError(f"{path}: Parquet compresses inside and is not read through gzip; gunzip it first")
    return path


def cannot_be_read(path: Path, error: OSError) -> DatasetError:
    """Return the error for a file that the operating system does not open or read."""
    return DatasetError(f"{path}: cannot be read: {error.strerror or error}; check the path and its permissions")


def parse_hub_name(dataset: str) -> tuple[str, str | None, str]:
    """Return (name, config, split) of `hf:name[:config]:split`.

    Raises:
        DatasetError: for another form, and for a path on this machine.
    """
    parts = dataset.removeprefix("hf:").split(":")
    if len(parts) not in (2, 3) or not all(part.strip() for part in parts) or "[" in dataset:
        hint = "; for a part of a split use --limit" if "[" in dataset else ""
        raise DatasetError(f"{dataset}: write hf:name:split or hf:name:config:split{hint}")
    if parts[0].startswith("~") or Path(parts[0]).exists():
        raise DatasetError(f"{dataset}: {parts[0]} is on this disk, and hf: is for hub data sets; give the file itself")
    return parts[0], parts[1] if len(parts) == 3 else None, parts[-1]


def format_suffix(path: Path) -> str:
    """Return the suffix that names the format, in lower case and without `.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix
