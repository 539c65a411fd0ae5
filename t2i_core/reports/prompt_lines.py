"""Sentences about prompts that text encoders cut or cannot read."""

from collections.abc import Sequence

from t2i_core.engine.prompt_check import PromptCheck
from t2i_core.models.presets import Preset
from t2i_core.options.values import DEMO
from t2i_core.output.accounting import ROWS_SHOWN


def prompt_lines(check: PromptCheck, preset: Preset) -> list[str]:
    """Return what a check found, in up to three lines, before anything is generated."""
    checked = f"of {check.prompts:,} prompts"
    if check.prompts < check.total:
        checked += f", spread over all {check.total:,},"
    cut, unread = check.cut, check.unread
    lines = []
    if cut.prompts:
        takes = f"longer than {' or '.join(cut.encoders)} takes ({rows(cut.rows)})"
        lines.append(f"cut       {cut.prompts:,} {checked} {_are(cut.prompts)} {takes}")
    if unread.prompts:
        unknown = f"{_unknown_to(unread.encoders)} ({rows(unread.rows)})"
        lines.append(f"unread    {unread.prompts:,} {checked} {_are(unread.prompts)} {unknown}: {_way_out(preset)}")
    if check.unreadable:
        names = " and ".join(check.unreadable)
        lines.append(f"prompts   not counted for {names}, whose tokenizer cannot be read without the pipeline")
    return lines


def unread_sentence(prompts: int, encoders: Sequence[str], numbers: Sequence[int]) -> str:
    """Return what the summary says of prompts that these text encoders cannot read; `numbers` are the first rows."""
    them = "1 prompt is" if prompts == 1 else f"{prompts} prompts are"
    return f"{them} {_unknown_to(encoders)} ({rows(numbers)})"


def _unknown_to(encoders: Sequence[str]) -> str:
    """Return what is said of prompts that these text encoders cannot read."""
    return f"more than a third unknown to {' and '.join(encoders)}"


def rows(numbers: Sequence[int]) -> str:
    """Return `rows 3, 7` for the first rows; a list of more than `ROWS_SHOWN` says that there are more."""
    shown = ", ".join(map(str, numbers[:ROWS_SHOWN]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{', …' if len(numbers) > ROWS_SHOWN else ''}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _way_out(preset: Preset) -> str:
    if preset.name == DEMO:
        return "the demo model knows fewer than 200 English words; --model names another"
    return "translate them, or choose a model that knows their language"
