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
        code, cpu_seconds, peak_bytes = wait(process)
        seconds = time.perf_counter() - started
        for file in (log, output):
            file.seek(0)
        if code != 0:
            raise SystemExit(f"{module} ended with {code}:\n{log.read()[-2000:]}")
        return Done(output.read(), seconds, cpu_seconds, peak_bytes)


def wait(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> tuple[int, float, int]:
    """Wait for a process; return its exit code, the CPU seconds of it and its children, and its own peak memory.

    What the system tells of the peak after the end is that of the largest of its children, too; so it is asked while
    the process lives, where the system can be.
    """
    peak = 0
    while True:
        peak = max(peak, _peak(process.pid))
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime, peak or usage.ru_maxrss * 1024


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


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
