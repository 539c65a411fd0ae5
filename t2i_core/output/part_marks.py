"""Marks of the parts of a run: which parts were started, where, and how they ended. They decide nothing."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from t2i_core.json_values import checked
from t2i_core.planning.parts import Part
from t2i_core.storage.files import entries, read_regular, write_text
from t2i_core.storage.workspace import Workspace

_NAME = re.compile(r"([1-9]\d{0,8})-of-([1-9]\d{0,8})\.json")
# What is read of a mark that this tool did not write; it says nothing.
_ODD = (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError)


class PartState(StrEnum):
    """What is known of a part."""

    RUNNING = "running"  # or killed since
    STOPPED = "stopped"
    FINISHED = "finished"


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class PartMark:
    """What a part's process says of itself, and when (UTC, to the second).

    `plan`: the digest of its data set and settings; empty in marks of earlier releases.
    """

    state: PartState
    host: str
    run: str
    time: str
    plan: str = ""

    @classmethod
    def of(cls, run: str, plan: str, state: PartState) -> Self:
        """Return what a run says of itself now, on this machine."""
        return cls(state, socket.gethostname(), run, now(), plan)


class PartMarks:
    """The marks of an output, a small file for each part."""

    def __init__(self, workspace: Workspace) -> None:
        self._folder = workspace.hidden / "parts"

    def note(self, part: Part, mark: PartMark) -> None:
        """Write a part's mark over its earlier one; of parts with another total, nothing is removed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_text(self._path(part), json.dumps(asdict(mark)) + "\n")

    def all(self) -> dict[Part, PartMark]:
        """Return the marks of all parts, of whatever total."""
        return dict(self._read())

    def latest(self) -> dict[Part, PartMark]:
        """Return the marks of the run that was started last: those with the total of the newest mark."""
        marks = self.all()
        if not marks:
            return {}
        newest = max(marks, key=lambda part: marks[part].time)
        return {part: mark for part, mark in marks.items() if part.total == newest.total}

    def _read(self) -> Iterator[tuple[Part, PartMark]]:
        for entry in entries(self._folder):
            if match := _NAME.fullmatch(entry.name):
                with suppress(*_ODD):
                    values = json.loads(read_regular(Path(entry.path)))
                    mark = checked(PartMark(**values | {"state": PartState(values["state"])}))
                    yield Part(int(match[1]), int(match[2])), mark

    def _path(self, part: Part) -> Path:
        return self._folder / f"{part.number}-of-{part.total}.json"
