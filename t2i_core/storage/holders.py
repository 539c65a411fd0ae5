"""Who holds something of an output, for a line to whoever waits: host, process, since when."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock or a lease. `since`: seconds since 1970."""

    host: str
    pid: int
    since: float

    @classmethod
    def this_process(cls) -> Self:
        """Return this process, as a holder from now on."""
        return cls(socket.gethostname(), os.getpid(), time.time())

    @classmethod
    def from_json(cls, values: object) -> Self | None:
        """Return the holder that a JSON value describes; None for any other value."""
        if not isinstance(values, dict):
            return None
        host, pid, since = (values.get(name) for name in ("host", "pid", "since"))
        if not (isinstance(host, str) and isinstance(pid, int) and pid > 0 and isinstance(since, int | float)):
            return None
        return cls(host, pid, float(since))

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """Return the holder that JSON text describes; None for any other text."""
        try:
            return cls.from_json(json.loads(text))
        except (ValueError, RecursionError):
            return None

    def to_json(self) -> dict[str, object]:
        """Return the holder as `from_json` reads it."""
        return asdict(self)

    def __str__(self) -> str:
        host = self.host if self.host.isprintable() else "another host"
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        except (ValueError, OverflowError, OSError):  # a number that is no time
            since = "a time that is not known"
        return f"process {self.pid} on {host}, since {since}"

    def lives_here(self) -> bool | None:
        """Return whether the process lives; None where it is one of another host."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except PermissionError:  # another user's
            return True
        except (ProcessLookupError, OverflowError):
            return False
        return True
