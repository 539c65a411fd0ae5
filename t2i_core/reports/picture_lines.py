"""What an image file tells of itself, as lines for a reader."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path
from typing import Any

from t2i_core.config import parse_lora
from t2i_core.errors import DamagedImage, OutputError
from t2i_core.hashing import digest
from t2i_core.local_paths import similar_name
from t2i_core.output.bare_copies import BareCopies
from t2i_core.output.remake import remake
from t2i_core.spec import ARGUMENTS
from t2i_core.storage.formats import read_header, read_image
from t2i_core.storage.workspace import Workspace

LABEL = 22  # columns


@dataclass(frozen=True, slots=True)
class PictureFile:
    """An image file of ours: its record, and what is wrong with the file, empty where nothing is."""

    path: Path
    size: int  # bytes
    record: Mapping[str, Any]
    damage: str


def read_picture_file(path: Path) -> PictureFile:
    """Return what an image file tells of itself.

    Raises:
        OutputError: for a file that tells nothing, in one line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise OutputError(f"{path} does not exist; check the path{similar_name(path)}") from None
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}; name an image file") from None
    record, damage = read_header(BytesIO(data)), ""
    if record is None and (stored := _stored_for(path)):
        data = stored
        record = read_header(BytesIO(data))
    try:
        read_image(data)
    except DamagedImage as error:
        damage = str(error)
    if record is None:
        raise OutputError(
            f"{path} has no record of this tool: {damage}. Another program made it, or took the record out; "
            "of a named image of --embed-metadata none, show the one in its output"
        )
    spec = record.get("spec")
    if not (isinstance(spec, dict) and {"prompt", "seed"} <= spec.keys() and "model_name" in record):
        raise OutputError(f"{path} has a record of this tool that does not say what the image was made from")
    if not damage and digest(spec) != record.get("key"):
        damage = "its record was changed: its key is not that of what it says the image was made from"
    return PictureFile(path, len(data), record, damage)


def picture_lines(file: PictureFile, program: str) -> str:
    """Return everything that a picture tells, and the command of `program`, this tool, that makes it again."""
    record, spec = file.record, file.record["spec"]
    lines = [_line("file", f"{file.path}, {file.size:,} bytes{', DAMAGED: ' + file.damage if file.damage else ''}")]
    lines += [_line(name, spec[name]) for name in ARGUMENTS if name in spec and name not in ("model", "adapters")]
    lines += [_line("adapter", f"SHA-256 {sha256}, weight {weight:g}") for sha256, weight in spec.get("adapters", ())]
    lines += [_line("model", f"{record['model_name']}, SHA-256 of its files {spec.get('model')}")]
    lines += [
        _line(name, _readable(name, value)) for name, value in record.items() if name not in ("spec", "model_name")
    ]
    again = remake(spec, record)
    lines += ["", "To make it again:", "", again.commands(program, f"again-{str(record['key'])[:12]}"), ""]
    return "\n".join(lines + [f"note: {note}" for note in [*again.missing, *_notes(record, again.options)]]).rstrip()


def _stored_for(path: Path) -> bytes | None:
    """Return the stored image of a named one without metadata that lies in its output; else None."""
    folder = path.absolute().parent
    workspace = Workspace(folder.parent)
    if not workspace.hidden.is_dir():
        return None
    key = BareCopies(workspace).key_of(f"{folder.name}/{path.name}")
    return workspace.images.read(key) if key else None


def _line(name: str, value: object) -> str:
    """Return a line, or several where the value has line ends; no other control character reaches the terminal."""
    text = str(value) or "(empty)"
    text = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    return f"{name:{LABEL}}{text.replace(chr(10), chr(10) + ' ' * LABEL)}"


def _readable(name: str, value: object) -> object:
    if name == "prompt_lengths" and isinstance(value, list):
        return "\n".join(_length(length) for length in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return value


def _length(length: Mapping[str, Any]) -> str:
    limit = f" of {length['limit']}" if length.get("limit") else ""
    cut = f", cut: {length['cut']}" if length.get("cut") else ""
    unknown = f", {length['unknown']} unknown" if length.get("unknown") else ""
    return f"{length.get('encoder')}: {length.get('tokens')}{limit} tokens{unknown}{cut}"


def _notes(record: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Return why the command may make other pixels here, or not run."""
    notes = []
    for name in ("model", "base", "transformer", "lora"):
        values = options.get(name) or []
        for value in [values] if isinstance(values, str) else values:
            path = parse_lora(value)[0] if name == "lora" else value
            if path.startswith((".", "/", "~")) and not Path(path).expanduser().exists():
                notes.append(
                    f"{name} {path} is not here; run the command where it is, or name the place where it is now"
                )
    for package, made_with in (record.get("versions") or {}).items():
        if (here := _installed(package)) != made_with:
            notes.append(f"made with {package} {made_with}; here is {here or 'none'}, which may change the last bits")
    if record.get("vae_tiling"):
        notes.append("memory was short, and the image was decoded in tiles; with more memory the last bits may differ")
    return notes


def _installed(package: str) -> str | None:
    try:
        return platform.python_version() if package == "python" else version(package)
    except PackageNotFoundError:
        return None
