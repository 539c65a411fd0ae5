"""Run the flow with processes that die: `python -m tests.workers WHAT FLAGS...`. They import this module, too.

`kill once`: the first process that writes an image is killed. `poison`: whichever writes the image of POISON is killed.
`hang once`: the first process that has done a denoising step hangs in the next one.
"""

import os
import signal
import sys
import time
from pathlib import Path

from t2i_core.generation import image_writer
from tasks import process

POISON = "a poisonous fox"
WHAT = "T2I_TEST_WORKERS"

original, original_step = image_writer.RecordWriter.write, process.ThisProcess.note_step


def write(self, request, generated):
    what, _, once = os.environ[WHAT].partition(":")
    if what == "poison" and request.spec.prompt == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    record = original(self, request, generated)
    if what == "kill once":
        try:
            Path(once).touch(exist_ok=False)
        except FileExistsError:
            return record
        os.kill(os.getpid(), signal.SIGKILL)
    return record


def note_step(self, step, steps):
    original_step(self, step, steps)
    what, _, once = os.environ[WHAT].partition(":")
    if what == "hang once":
        try:
            Path(once).touch(exist_ok=False)
        except FileExistsError:
            return
        # As a GPU's, and the process need not wait half an hour to be found hanging.
        process.HANG_SECONDS, process.THIS_PROCESS.may_hang = 1.0, True
        time.sleep(1000)


if __name__ == "__main__":
    os.environ[WHAT] = sys.argv[1]
if WHAT in os.environ:  # also in the processes that are started for the run
    image_writer.RecordWriter.write = write
    process.ThisProcess.note_step = note_step

if __name__ == "__main__":
    from flows.cli import main

    code = main(sys.argv[2:])
    print("torch is in the flow's own process:", "torch" in sys.modules)
    sys.exit(code)
