"""The table of presets that `--list-models` prints."""

from t2i_core.bundled import DEMO_MODEL
from t2i_core.errors import ModelError
from t2i_core.models.hub import MAIN, cached_repository
from t2i_core.models.pipeline_files import Wanted, list_folder, select_files
from t2i_core.models.presets import PRESETS, Preset
from t2i_core.options.values import DEMO

HEADER = ("preset", "repository", "download", "steps", "size", "licence")


def preset_table(cache_dir: str | None) -> str:
    """Return the presets as a table, a line each; the size of a download is known for models in the hub cache."""
    rows = [HEADER, *(_row(preset, cache_dir) for preset in PRESETS.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def _row(preset: Preset, cache_dir: str | None) -> tuple[str, ...]:
    size = _download_bytes(preset, cache_dir)
    return (
        preset.name,
        preset.repository,
        _shown(size) if size else "-",
        str(preset.steps),
        f"{preset.width}x{preset.height}",
        preset.licence_note or "see its page on the hub",
    )


def _download_bytes(preset: Preset, cache_dir: str | None) -> int | None:
    """Return the bytes of the files that the pipeline loads, as the hub cache tells them; None where it does not."""
    if preset.name == DEMO:
        listing, folder = None, DEMO_MODEL
    elif cached := cached_repository(preset.repository, MAIN, cache_dir):
        listing, folder = cached
    else:
        return None
    try:
        files = listing.files if listing else list_folder(folder)
        chosen = select_files(preset.name, files, lambda path: (folder / path).read_text(encoding="utf-8"), Wanted())
        return sum(listing.files[path].size if listing else (folder / path).stat().st_size for path in chosen.paths)
    except (ModelError, OSError):  # a download that broke off
        return None


def _shown(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
