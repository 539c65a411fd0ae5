"""Run the flow with processes that die: `python -m tests.workers WHAT FLAGS...`. They import this module, too.

`kill once`: the first process that writes an image is killed. `poison`: whichever writes the image of POISON is killed.
`hang once`: the first process that has done a denoising step hangs in the next one. `stop once`: it is stopped.
`lose once`: its device is lost to it after the first image. `lose`: so is each device. `fail`: no process gets ready.
`other`: a process that is started anew has another device. `crash`: a process ends when it loads the model.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from flows import own_process, served, vigil
from t2i_core.generation import image_writer
from tasks import elsewhere, generation, process, serving

lost = []

POISON = "a poisonous fox"
WHAT = "T2I_TEST_WORKERS"

original, original_step = image_writer.RecordWriter.write, process.ThisProcess.note_step
original_introduce, original_load = elsewhere.introduce, generation.load_generator


def is_first(once):
    try:
        Path(once).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def write(self, request, generated):
    what, _, once = os.environ[WHAT].partition(":")
    if what == "poison" and request.spec.prompt == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    if lost:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    record = original(self, request, generated)
    if what == "kill once" and is_first(once):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "stop once" and is_first(once):
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "lose" or (what == "lose once" and is_first(once)):
        lost.append(True)
    return record


def note_step(self, step, steps):
    original_step(self, step, steps)
    what, _, once = os.environ[WHAT].partition(":")
    if what == "hang once" and is_first(once):
        # As a GPU's, and the process need not wait half an hour to be found hanging.
        process.HANG_SECONDS, process.THIS_PROCESS.may_hang = 1.0, True
        time.sleep(1000)


def introduce(*arguments):
    what, _, once = os.environ[WHAT].partition(":")
    told = original_introduce(*arguments)
    return replace(told, device="H100") if what == "other" and is_first(once) else told


def load_generator(*arguments):
    if os.environ[WHAT] == "crash":
        os.abort()
    return original_load(*arguments)


def why_lost(name):
    return "CUDA error: an illegal memory access was encountered" if lost else ""


def let_devices_be_lost():
    from t2i_core.engine import device

    device.why_lost = why_lost


def serve():
    """Make the calls of a flow, as `tasks.serving` does."""
    let_devices_be_lost()
    serving.ALIVE_SECONDS = 1.0
    if os.environ[WHAT] == "fail":
        os._exit(7)
    serving.serve()


if __name__ == "__main__":
    os.environ[WHAT] = sys.argv[1]
    served.MODULE = "tests.workers"
    vigil.VAIN_DEATHS = 4
    own_process.SILENT_SECONDS, own_process.DOUBT_SECONDS = 8.0, 4.0
if WHAT in os.environ:  # also in the processes that are started for the run
    image_writer.RecordWriter.write = write
    process.ThisProcess.note_step = note_step
    serving.introduce, generation.load_generator = introduce, load_generator

if __name__ == "__main__":
    from flows.cli import main

    if "--workers=0" in sys.argv:
        let_devices_be_lost()
    code = main(sys.argv[2:])
    print("torch is in the flow's own process:", "torch" in sys.modules)
    sys.exit(code)
