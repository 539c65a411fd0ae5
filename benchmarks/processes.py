"""Other processes, timed; figures as a table and as JSON."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


class Done:
    """A process that ended well: what it printed, its wall seconds, those of its CPU time, its peak memory."""

    def __init__(self, output: str, seconds: float, cpu_seconds: float, peak_bytes: int) -> None:
        self.output, self.seconds, self.cpu_seconds, self.peak_bytes = output, seconds, cpu_seconds, peak_bytes


def run(module: str, *arguments: object) -> Done:
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)], stdout=output, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (log, output):
            file.seek(0)
        if process.returncode != 0:
            raise SystemExit(f"{module} ended with {process.returncode}:\n{log.read()[-2000:]}")
        return Done(output.read(), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def seconds_to_first_image(folder: Path, module: str, *arguments: object) -> float:
    """Return seconds from the start of a process to the first PNG below `folder`; wait for its good end."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)], stdout=log, stderr=log)
        while next(folder.rglob("*.png"), None) is None and process.poll() is None:
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        if process.wait() != 0:
            log.seek(0)
            raise SystemExit(f"{module} ended with {process.returncode}:\n{log.read()[-2000:]}")
    return seconds


def report(figures: dict[str, float], file: Path | None) -> None:
    for name, value in figures.items():
        print(f"{name:48} {value:12.4g}")
    if file:
        file.write_text(json.dumps(figures, indent=1) + "\n")
