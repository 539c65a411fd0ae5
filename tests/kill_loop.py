"""Runs over one output that are killed at random moments and at named points, the data set edited between them.

python -m tests.kill_loop SECONDS [SEED]

After each run the manifest is checked against the headers of the images that it names, at the end the pixels against
those of an undisturbed run. Prints what was done and what was broken; exit code 1 for a promise that was broken.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT, Output, command, header_of
from tests.crash import POINTS
from tests.prefect_server import serve

WORDS = ["fox", "cat", "house", "moon", "boat", "kite", "tree", "bird", "lamp", "shoe"]
# Of a quick run, from its start to its end: a random kill falls between these.
EARLIEST, LATEST = 1.0, 12.0
# A run that nobody kills ends within this.
PATIENCE = 300


@dataclass
class Tally:
    """What was done, and what was broken."""

    kills: int = 0
    finished: int = 0
    manifests: int = 0
    paths: int = 0
    violations: list[str] = field(default_factory=list)


class KillLoop:
    """One output, its data set, and the runs over it."""

    def __init__(self, folder, seed):
        self.random = random.Random(seed)
        self.dataset, self.output = folder / "prompts.jsonl", Output(folder / "out")
        self.fresh = Output(folder / "undisturbed")
        self.rows = [self._row() for _ in range(4)]
        self.tally = Tally()
        self.write()

    def write(self):
        self.dataset.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def edit(self):
        """Change the data set as people do: add, remove, reorder, repeat, rewrite rows, and set their seeds."""
        place = self.random.randrange(len(self.rows))
        match self.random.choice(["add", "remove", "shuffle", "repeat", "rewrite", "seed", "nothing"]):
            case "add":
                self.rows.insert(place, self._row())
            case "remove" if len(self.rows) > 2:
                del self.rows[place]
            case "shuffle":
                self.random.shuffle(self.rows)
            case "repeat":
                self.rows.append(self.rows[place])
            case "rewrite":
                self.rows[place] = self._row()
            case "seed":
                self.rows[place] = self.rows[place] | {"generation": {"seed": self.random.randrange(5)}}
        del self.rows[8:]
        self.write()

    def turn(self):
        """Edit the data set, and run: to a kill at a random moment or a named point, or to the end."""
        self.edit()
        match self.random.choice(["moment", "moment", "point", "end"]):
            case "moment":
                self.run(seconds=self.random.uniform(EARLIEST, LATEST))
            case "point":
                point = self.random.choice(list(POINTS))
                self.run(point, str(self.random.randint(1, 3)), driver="tests.crash")
            case "end":
                self.run()
        self.check()

    def run(self, *arguments, output=None, seconds=PATIENCE, driver="flows.text2image"):
        """Run over the output; kill after so many seconds."""
        flags = [f"--dataset={self.dataset}", f"--output={(output or self.output).folder}", "--save-interval=2"]
        process = subprocess.Popen(
            command(*arguments, *flags, driver=driver),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self.tally.kills += 1
            if seconds == PATIENCE:
                self.violation(f"a run did not end within {PATIENCE} s")
            return
        if process.returncode == -signal.SIGKILL:
            self.tally.kills += 1
        elif process.returncode == 0:
            self.tally.finished += 1
        else:
            self.violation(f"a run ended with exit code {process.returncode}: {text[-2000:]}")

    def check(self):
        """Compare the manifest, if there is one, with the headers of the images that it names."""
        manifest = self.output.folder / "manifest.jsonl"
        if not manifest.exists():
            return
        self.tally.manifests += 1
        for row in self.output.manifest():
            prompt = row["conversations"][0]["content"]
            seed = row.get("generation", {}).get("seed")
            for path in row["images"]:
                self.tally.paths += 1
                record = header_of(path) if Path(path).is_file() else None
                if record is None:
                    self.violation(f"the manifest names {path}, which is no image")
                elif record["spec"]["prompt"] != prompt or seed not in (None, record["spec"]["seed"]):
                    self.violation(f"the manifest names {path} for {prompt!r}, and it is {record['spec']['prompt']!r}")

    def end(self):
        """Let a run come to its end, and compare all that it leaves with what an undisturbed one does."""
        self.run("--prune")
        self.check()
        self.run(output=self.fresh)
        if self.output.pixels() != self.fresh.pixels():
            self.violation("the pixels are not those of an undisturbed run")
        rows, expected = (self._relative(output) for output in (self.output, self.fresh))
        if rows != expected:
            self.violation("the manifest is not that of an undisturbed run")

    def violation(self, text):
        self.tally.violations.append(text)
        print(f"violation {text}", flush=True)

    def _row(self):
        text = f"a {self.random.choice(WORDS)} and a {self.random.choice(WORDS)}"
        return {"conversations": [{"role": "user", "content": text}]}

    @staticmethod
    def _relative(output):
        prefix = str(output.folder)
        return [row | {"images": [path.removeprefix(prefix) for path in row["images"]]} for row in output.manifest()]


def kill_loop(folder, seconds, seed):
    """Run turns for so many seconds, one at least, then to the end; a Prefect server must run. Return the tally."""
    loop, started = KillLoop(folder, seed), time.monotonic()
    while True:
        loop.turn()
        if time.monotonic() - started > seconds:
            break
    loop.end()
    return loop.tally


def main(seconds, seed):
    """Run it with a server of its own; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="kill-loop-") as folder, serve(Path(folder) / "prefect"):
        tally = kill_loop(Path(folder), float(seconds), seed)
    print(
        f"seed {seed}: {tally.kills} kills, {tally.finished} runs to the end, {tally.manifests} manifests with "
        f"{tally.paths} paths checked, {len(tally.violations)} violations"
    )
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)))
