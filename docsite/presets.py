"""The page of the models that have a preset, with their settings and licences."""

from docsite.html import code, plain, table
from t2i_core.models.presets import PRESETS, Preset

INTRODUCTION = """\
# Presets and licences

This page is made from the presets themselves. `--list-models` prints the same, with the size of the download for models
that are in the hub's cache. [Models](models.md) says what happens with all other models.

**A licence binds you, not this tool.** What stands here is what was known when the preset was written; the model's page
on the hub decides. A run says the licence before it downloads the model.

"""
SETTINGS = """
## Settings

Without options an image is made with these. An argument that has no value here, and is not in the last column, is
refused for the model.

"""


def presets_page() -> str:
    """Return the page, in Markdown."""
    presets = PRESETS.values()
    licences = table(("preset", "repository on the hub", "licence"), map(_licence, presets))
    settings = table(
        ("preset", "size", "steps", "guidance", "text tokens", "dtype", "may be set"), map(_settings, presets)
    )
    return INTRODUCTION + licences + SETTINGS + settings


def _licence(preset: Preset) -> tuple[str, ...]:
    repository = code(preset.repository) if "/" in preset.repository else "part of this project"
    return code(preset.name), repository, plain(preset.licence_note or "see its page on the hub")


def _settings(preset: Preset) -> tuple[str, ...]:
    guidance = [] if preset.guidance_scale is None else [f"{preset.guidance_scale:g}"]
    if preset.true_cfg_scale is not None:
        guidance.append(f"true CFG {preset.true_cfg_scale:g}")
    tokens = "" if preset.max_sequence_length is None else str(preset.max_sequence_length)
    optional = ", ".join(code(f"--{name.replace('_', '-')}") for name in preset.optional)
    size = f"{preset.width}x{preset.height}"
    return code(preset.name), size, str(preset.steps), ", ".join(guidance), tokens, preset.dtype, optional
