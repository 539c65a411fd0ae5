"""Several real processes: the same images as from one, whoever dies; a stop reaches all; none outlives its run."""

import functools
import signal
import subprocess
import sys
import time
from concurrent.futures import Future

import psutil
import pytest

from flows import runners, text2image
from flows.runners import find_workers
from t2i_core.config import Config
from t2i_core.engine import device
from t2i_core.errors import ConfigError
from tasks import dataset as dataset_tasks
from tasks.process import THIS_PROCESS, ThisProcess, result_of
from tests.conftest import ROOT, Output, command, in_process

pytestmark = pytest.mark.timeout(300)

TEXTS = [f"a fox number {i}" for i in range(12)]


def flags(dataset, output):
    return [f"--dataset={dataset}", f"--output={output.folder}", "--workers=2", "--save-interval=1"]


def start(what, *arguments):
    """A run in a process of its own, in the tests' driver, without waiting for it."""
    options = command(*arguments)[3:]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.workers", what, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def alone(server, tmp_path_factory):
    """The output of one process."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "prompts.txt").write_text("\n".join(TEXTS) + "\n")
    output = Output(folder / "out")
    # The last bits of a CPU's pixels depend on the threads of a process.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        in_process(f"--dataset={folder / 'prompts.txt'}", f"--output={output.folder}", "--save-interval=1", check=0)
        yield folder / "prompts.txt", output


def test_a_killed_process_costs_nothing_and_is_counted_once(alone, tmp_path, output):
    dataset, expected = alone
    run = start(f"kill once:{tmp_path / 'once'}", *flags(dataset, output))
    text, _ = run.communicate(timeout=200)
    assert run.returncode == 0, text
    assert (tmp_path / "once").exists()
    assert "was on a process that died; it is tried again" in text
    assert output.pixels() == expected.pixels()
    assert output.counts() == expected.counts()
    assert output.manifest_is_true()
    assert not list((output.folder / ".t2i" / "running").iterdir())
    assert "distributed" not in text, "the engine speaks for itself"
    assert "torch is in the flow's own process: False\n" in text
    assert "leaked" not in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_run(server, prompts, output, number):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        run = start("", *flags(prompts(*(f"a fox number {i}" for i in range(500))), output), "--steps=8")
        deadline = time.monotonic() + 120
        while len(output.stored()) < 4 and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        children = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(number)
        text, _ = run.communicate(timeout=100)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(children) >= 2, text
    _, alive = psutil.wait_procs(children, timeout=100)
    assert alive == []
    if number == signal.SIGINT:
        assert "Traceback" not in text
        assert "run the same command again to go on" in text
        assert output.run()["accounting"]["images_generated"] == len(output.stored()) >= 4
        assert output.manifest_is_true()


def test_processes_start_before_a_new_plan_is_made_and_not_for_a_run_that_makes_nothing(run, prompts, monkeypatch):
    events = []

    class Noted(runners.Threads):
        def start(self, run):
            events.append("start")
            super().start(run)

    original = dataset_tasks.load_dataset_task.fn

    @functools.wraps(original)
    def load_dataset(*arguments, **values):
        events.append("plan")
        return original(*arguments, **values)

    monkeypatch.setattr(dataset_tasks.load_dataset_task, "fn", load_dataset)
    monkeypatch.setattr(text2image, "find_workers", lambda config: Noted())
    dataset = prompts("a fox")
    assert run(dataset=dataset).is_completed()
    assert events[:2] == ["start", "plan"]
    events.clear()
    assert run(dataset=dataset).is_completed()
    assert run(dataset=dataset, steps=2, dry_run=True).is_completed()
    assert "start" not in events


def test_a_device_that_hangs_while_it_is_measured_ends_the_run_in_one_line(monkeypatch):
    monkeypatch.setattr(ThisProcess, "hangs", lambda self: True)
    THIS_PROCESS.start_run("r1")
    with pytest.raises(ConfigError, match="device: it made no step for 1800 s while it was measured: it hangs"):
        result_of(Future(), runners._give_up_what_hangs)
    assert THIS_PROCESS.gave_up
    THIS_PROCESS.start_run("r2")


@pytest.mark.parametrize("looks", ["status", "dry_run", "verify"])
def test_a_run_that_only_looks_asks_neither_for_cards_nor_for_a_scheduler(monkeypatch, looks):
    from flows.preflight import check_workers

    monkeypatch.setattr(runners, "ask_apart", lambda *_: pytest.fail("asked"))
    for elsewhere in ({"workers": 8}, {"dask_scheduler": "10.0.0.9:8786"}, {"workers": "auto"}):
        asked = config(**elsewhere, **{looks: True})
        check_workers(asked)
        assert not find_workers(asked).several
    assert find_workers(config(workers=8, **{looks: True})).count == 8  # shards are counted as the run will


def machine(monkeypatch, cards, threads=16):
    monkeypatch.setattr(device, "cards", lambda name: cards)
    monkeypatch.setattr(device, "host_threads", lambda: threads)
    monkeypatch.setattr(runners, "ask_apart", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(runners, "api_url", lambda: "http://here/api")
    asked = []
    monkeypatch.setattr(runners, "_own_dask", lambda environments: asked.append(environments) or "dask")
    return asked


def config(**values):
    return Config.from_values({"dataset": "x.txt", **values})


def test_each_process_sees_one_card_in_a_stable_order(monkeypatch):
    asked = machine(monkeypatch, ["H100"] * 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_workers(config(workers="auto")) == "dask"
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in asked[0]] == ["0", "1", "2", "3"]
    assert {environment["OMP_NUM_THREADS"] for environment in asked[0]} == {"4"}
    assert {environment["PREFECT_API_URL"] for environment in asked[0]} == {"http://here/api"}


def test_of_the_cards_that_the_user_lets_be_seen_each_process_takes_its_own(monkeypatch):
    asked = machine(monkeypatch, ["H100"] * 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, 3,GPU-5")
    find_workers(config(workers=3))
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in asked[0]] == ["7", "3", "GPU-5"]


def test_on_the_cpu_processes_share_the_cores(monkeypatch):
    asked = machine(monkeypatch, [], threads=8)
    find_workers(config(workers=2))
    assert [environment["OMP_NUM_THREADS"] for environment in asked[0]] == ["4", "4"]
    assert "CUDA_VISIBLE_DEVICES" not in asked[0][0]


@pytest.mark.parametrize("cards", [[], ["H100"]])
def test_auto_is_this_process_where_there_is_one_device(monkeypatch, cards):
    asked = machine(monkeypatch, cards)
    assert find_workers(config(workers="auto")).count == 1
    assert asked == []


@pytest.mark.parametrize(
    ("cards", "workers", "problem"),
    [
        (["H100"] * 2, 3, "workers: this machine has 2 GPUs, and each process needs one (got 3)"),
        (["H100", "A100"], "auto", "workers: A100 and H100 make other pixels"),
    ],
)
def test_more_processes_than_devices_and_several_kinds_are_refused(monkeypatch, cards, workers, problem):
    machine(monkeypatch, cards)
    with pytest.raises(ConfigError) as raised:
        find_workers(config(workers=workers))
    assert problem in str(raised.value)


def test_one_card_by_name_is_no_place_for_several_processes():
    with pytest.raises(ConfigError, match="device: cuda:1 is one card; leave device or workers out"):
        find_workers(config(workers="auto", device="cuda:1"))


def test_without_the_extra_several_processes_are_refused_with_the_command(monkeypatch):
    from flows import preflight

    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'text2image\[dask\]'"):
        preflight.check_dask("workers", 2)


def test_an_error_comes_whole_from_another_process():
    import pickle

    error = ConfigError(["a: one", "b: two"])
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.problems) == (str(error), error.problems)


def test_tasks_go_to_another_process_by_what_they_name_not_with_what_is_in_memory():
    import cloudpickle

    from flows.text2image import text2image
    from tasks.generation import generate_shard_task, measure_speed_task

    for sent in (text2image, generate_shard_task, measure_speed_task):
        # A class that pydantic made for one set of parameters is not found elsewhere by its name.
        assert b"State[Any]" not in cloudpickle.dumps(sent)
