"""Checks prompts by the model's tokenizers alone: which ones its text encoders would cut, or cannot read."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from t2i_core.engine.tokens import TokenCounter
from t2i_core.errors import Stopped
from t2i_core.generation.interface import TextLength, is_unread
from t2i_core.planning.plan import Plan
from t2i_core.storage.tables import read_chunks

# Counting takes about 0.1 ms a prompt and encoder, so of a plan of millions some prompts are checked.
PROMPTS_CHECKED = 100_000
# One more than is shown tells that there are more.
ROWS_NOTED = 6


@dataclass(slots=True)
class Found:
    """Prompts with one fault: how many, the first of their rows, and the classes of the encoders that have it."""

    prompts: int = 0
    rows: list[int] = field(default_factory=list)
    encoders: list[str] = field(default_factory=list)

    def add(self, row: int, encoders: list[str]) -> None:
        """Count a prompt of `row`, if `encoders` names any."""
        if not encoders:
            return
        self.prompts += 1
        self.encoders += [name for name in encoders if name not in self.encoders]
        if len(self.rows) < ROWS_NOTED and row not in self.rows:
            self.rows.append(row)


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """What a check found in `prompts` prompts, spread evenly over all `total`.

    unreadable: the classes of the encoders whose tokenizer could not be read; for them nothing was counted.
    """

    prompts: int
    total: int
    cut: Found
    unread: Found
    unreadable: Sequence[str] = ()


def check_prompts(plan: Plan, plans: Path, counter: TokenCounter, should_stop: Callable[[], bool]) -> PromptCheck:
    """Return which prompts of a plan text encoders would cut or cannot read, some thousands in memory at a time.

    `plans`: the folder in which the plan lies.

    Raises:
        Stopped: where `should_stop`.
    """
    cut, unread = Found(), Found()
    prompts = 0
    for row, lengths in _lengths(plan, plans, counter, should_stop):
        prompts += 1
        cut.add(row, [length.encoder for length in lengths if length.cut is not None])
        unread.add(row, [length.encoder for length in lengths if is_unread(length.unread)])
    return PromptCheck(prompts, plan.prompts, cut, unread, counter.unreadable)


def _lengths(
    plan: Plan, plans: Path, counter: TokenCounter, should_stop: Callable[[], bool]
) -> Iterator[tuple[int, list[TextLength]]]:
    """Yield (row, lengths) of prompts of the plan in order: of all, or of every nth."""
    every = -(-plan.prompts // PROMPTS_CHECKED)
    number, last = -1, None
    names = ("row", "condition", "prompt", "max_sequence_length")
    for chunk in chain.from_iterable(read_chunks(path, names) for path in plan.specs_files(plans)):
        if should_stop():
            raise Stopped
        columns = (chunk[name].to_pylist() for name in names)
        places: list[int] = []
        texts = defaultdict[int | None, list[tuple[int, str]]](list)
        for row, condition, prompt, limit in zip(*columns, strict=True):
            if (row, condition) == last:  # another image of the same prompt
                continue
            number, last = number + 1, (row, condition)
            if number % every == 0:
                texts[limit].append((len(places), prompt))
                places.append(row)
        lengths: dict[int, list[TextLength]] = {}
        for limit, group in texts.items():
            counted = counter.count([prompt for _, prompt in group], limit)
            lengths |= zip((place for place, _ in group), counted, strict=True)
        yield from ((row, lengths[place]) for place, row in enumerate(places))
