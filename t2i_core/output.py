"""What an output folder is for: one data set, one manifest, and the model commits it began with."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from t2i_core.config import Config
from t2i_core.errors import OutputError
from t2i_core.store import Store, write_text

IDENTITY = "output.json"
OUR_FILES = ("failures.jsonl", "images.parquet", "run.json")
_NAMED_FOLDER = re.compile(r"sample\d+_condition\d+")


@dataclass(frozen=True, slots=True)
class ManifestForm:
    """The manifest that lies in the folder now: its file name, what stands before each path, the key of the paths."""

    name: str
    prefix: str
    image_key: str


@dataclass(slots=True)
class OutputIdentity:
    """Kept in `.t2i/output.json`. `commits` maps a hub model or adapter to the commit of its first run here."""

    dataset: str
    fingerprint: str
    commits: dict[str, str] = field(default_factory=dict)
    manifest: ManifestForm | None = None


def open_output(store: Store, config: Config, fingerprint: str) -> OutputIdentity:
    """What the folder is for, or for a new one will be. The same file edited, moved or copied is the same data set.

    Writes nothing: a run that is refused later leaves the folder free.

    Raises:
        OutputError: if another data set or another tool's files are there and `replace` is not set, or if the data set
            is one of the files that the run writes.
    """
    if store.root.exists() and not store.root.is_dir():
        raise OutputError(f"output: {store.root} is a file; name a folder")
    written = [store.root / name for name in (config.manifest_name, *OUR_FILES)]
    if Path(config.dataset).resolve() in [path.resolve() for path in written]:
        raise OutputError(f"dataset: {config.dataset} is a file that the run itself writes; choose another --output")
    here = _absolute(config.dataset)
    identity = read_identity(store)
    if identity is None:
        if not config.replace:
            _refuse_others(store, config.manifest_name)
        return OutputIdentity(here, fingerprint)
    if here != identity.dataset and fingerprint != identity.fingerprint and not config.replace:
        raise OutputError(
            f"output: {store.root} holds the images of {identity.dataset}; "
            "choose another --output, or add --replace to let this data set take it over"
        )
    identity.dataset, identity.fingerprint = here, fingerprint
    return identity


def save_identity(store: Store, identity: OutputIdentity) -> None:
    """Write `.t2i/output.json`."""
    try:
        write_text(store.hidden / IDENTITY, json.dumps(asdict(identity), indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(f"output: cannot write to {store.root}: {error.strerror}; choose another --output") from error


def read_identity(store: Store) -> OutputIdentity | None:
    """`.t2i/output.json`, or None for a folder without one."""
    path = store.hidden / IDENTITY
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        form = values.pop("manifest", None)
        return OutputIdentity(**values, manifest=ManifestForm(**form) if form else None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        raise OutputError(
            f"output: cannot read {path} ({error}); remove that file if the folder is yours to use"
        ) from error


def _refuse_others(store: Store, manifest_name: str) -> None:
    """Files with our names that this tool did not write: they would be overwritten."""
    try:
        names = [path.name for path in store.root.iterdir()]
    except FileNotFoundError:
        return
    found = sorted(name for name in names if name in (manifest_name, *OUR_FILES) or _NAMED_FOLDER.fullmatch(name))
    if found:
        raise OutputError(
            f"output: {store.root} holds {found[0]}, which this tool did not write; "
            "choose another --output, or add --replace to overwrite it"
        )


def _absolute(dataset: str) -> str:
    return dataset if ":" in dataset.partition("/")[0] or not Path(dataset).exists() else str(Path(dataset).resolve())
