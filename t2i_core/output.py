"""What an output folder is for: one data set, and the model commits it began with."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from t2i_core.errors import OutputError
from t2i_core.store import Store, write_text


@dataclass(slots=True)
class OutputIdentity:
    """Kept in `.t2i/output.json`. `commits` maps a hub model to the commit of its first run here."""

    dataset: str
    fingerprint: str
    commits: dict[str, str] = field(default_factory=dict)


def open_output(store: Store, dataset: str, fingerprint: str, *, replace: bool) -> OutputIdentity:
    """Claim the folder for a data set, or go on with it. The same file edited, moved or copied is the same data set.

    Raises:
        OutputError: if another data set is there and `replace` is not set, or the folder cannot be written.
    """
    here = _absolute(dataset)
    path = store.hidden / "output.json"
    if store.root.exists() and not store.root.is_dir():
        raise OutputError(f"output: {store.root} is a file; name a folder")
    identity = _read(path)
    if identity is None:
        identity = OutputIdentity(here, fingerprint)
    elif here != identity.dataset and fingerprint != identity.fingerprint and not replace:
        raise OutputError(
            f"output: {store.root} holds the images of {identity.dataset}; "
            "choose another --output, or add --replace to let this data set take it over"
        )
    identity.dataset, identity.fingerprint = here, fingerprint
    save_identity(store, identity)
    return identity


def save_identity(store: Store, identity: OutputIdentity) -> None:
    """Write `.t2i/output.json`."""
    try:
        write_text(store.hidden / "output.json", json.dumps(asdict(identity), indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(f"output: cannot write to {store.root}: {error.strerror}; choose another --output") from error


def _read(path: Path) -> OutputIdentity | None:
    try:
        return OutputIdentity(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, OSError) as error:
        raise OutputError(
            f"output: cannot read {path} ({error}); remove that file if the folder is yours to use"
        ) from error


def _absolute(dataset: str) -> str:
    return dataset if ":" in dataset.partition("/")[0] or not Path(dataset).exists() else str(Path(dataset).resolve())
