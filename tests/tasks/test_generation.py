"""The tasks that need the model, without one: what becomes of a shard's failures."""

from types import SimpleNamespace

import pytest

from t2i_core.errors import Stopped
from t2i_core.generation.image_writer import RunContext
from t2i_core.generation.interface import GeneratedImage, LoadConfig, Speed
from t2i_core.planning.pending import ImageRequest
from t2i_core.planning.shards import Shard
from t2i_core.storage.formats import Encoding
from t2i_core.storage.image_store import ImageStore
from tasks import generation
from tasks.generation import ShardIncomplete, generate_shard_task, measure_speed_task
from tasks.process import THIS_PROCESS
from tests.builders import image_spec, picture, rounded

LOAD_CONFIG = LoadConfig(path="/model", dtype="float32", device="cpu")
CONTEXT = RunContext(run="r1", refresh=False, model_name="fake", commit=None, tuning={}, encoding=Encoding())


class FakeGenerator:
    """Generates images; in place of that of a prompt among `failing` it has an error."""

    device, versions = "fake", {}

    def __init__(self, failing=(), error=None):
        self.failing, self.error = failing, error or RuntimeError("busy")

    def generate(self, batches, batch_size, should_stop, timings, on_step):
        for batch in batches:
            if should_stop():
                raise Stopped
            yield [self.error if spec.prompt in self.failing else self.image(spec) for spec in batch]

    def image(self, spec):
        return GeneratedImage(
            lambda: rounded((picture(spec) / 255).astype("float32")), lambda: 0.1, 2, vae_tiling=False
        )


@pytest.fixture
def shard_of(tmp_path, monkeypatch):
    """Run the task of a shard of four images in its try `run_count` of `1 + retries`: `shard_of(generator)`."""

    def run(generator, run_count=1, retries=2):
        context = SimpleNamespace(task_run=SimpleNamespace(run_count=run_count), task=SimpleNamespace(retries=retries))
        monkeypatch.setattr(generation, "TaskRunContext", SimpleNamespace(get=lambda: context))
        monkeypatch.setattr(THIS_PROCESS, "run", CONTEXT.run)
        monkeypatch.setattr(generation, "load_generator", lambda load_config, run: generator)
        requests = [ImageRequest(image_spec(i), image_spec(i).key) for i in range(4)]
        shard = Shard(1, 1, 2, (tuple(requests[:2]), tuple(requests[2:])))
        return generate_shard_task.fn("key", shard, ImageStore(tmp_path), LOAD_CONFIG, CONTEXT)

    return run


@pytest.fixture
def counted(monkeypatch):
    """What progress was told of."""
    counts = []
    monkeypatch.setattr(THIS_PROCESS, "on_images", counts.append)
    return counts


def test_the_result_of_a_shard_holds_its_records_and_where_the_time_went(shard_of, counted):
    result = shard_of(FakeGenerator())
    assert {record["key"] for record in result["records"]} == {image_spec(i).key for i in range(4)}
    assert result["failures"] == {}
    assert "check" in result["timings"]
    assert sum(counted) == 4


@pytest.mark.parametrize("run_count", [1, 2])
def test_while_there_are_retries_left_a_transient_failure_fails_the_task(shard_of, counted, run_count):
    with pytest.raises(ShardIncomplete, match="1 images not made: RuntimeError: busy"):
        shard_of(FakeGenerator(["p2"]), run_count)
    assert sum(counted) == 0  # its images are counted when it is tried again


@pytest.mark.parametrize(("run_count", "retries"), [(3, 2), (1, 0)])
def test_the_last_try_returns_what_there_is(shard_of, counted, run_count, retries):
    result = shard_of(FakeGenerator(["p2"]), run_count, retries)
    assert result["failures"] == {image_spec(2).key: "RuntimeError: busy"}
    assert {record["key"] for record in result["records"]} == {image_spec(i).key for i in (0, 1, 3)}
    assert sum(counted) == 4


def test_a_retry_makes_only_what_is_missing(shard_of, counted):
    with pytest.raises(ShardIncomplete):
        shard_of(FakeGenerator(["p2"]))
    again = FakeGenerator(["p0", "p1", "p3"])
    assert shard_of(again, 2)["failures"] == {}


def test_a_stopped_shard_is_cancelled(shard_of, counted, monkeypatch):
    THIS_PROCESS.stop.set()
    try:
        state = shard_of(FakeGenerator())
    finally:
        THIS_PROCESS.stop.clear()
    assert state.is_cancelled()


def test_a_shard_of_a_flow_in_another_process_stops_as_that_flow_says(shard_of, counted, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(generation, "join_run", lambda run, root: asked.append((run, root)) or (lambda: True))
    assert shard_of(FakeGenerator()).is_cancelled()
    assert asked == [(CONTEXT.run, tmp_path)]


def test_a_measurement_stops_as_the_flow_says_and_tells_of_its_steps(monkeypatch, tmp_path):
    from t2i_core.engine import calibrate

    stop = object()
    monkeypatch.setattr(generation, "join_run", lambda run, root: stop if (run, root) == ("r1", tmp_path) else None)
    monkeypatch.setattr(generation, "load_generator", lambda load_config: "model")
    speed = Speed(2, 1.0, 1, 1, 0.0)
    for name, size in (("measure", 2), ("best_batch_size", None)):
        given = []
        monkeypatch.setattr(calibrate, name, lambda *arguments, given=given: given.extend(arguments) or speed)
        measure_speed_task.fn("key", LOAD_CONFIG, "spec", size, "r1", tmp_path)
        assert given[-2:] == [stop, THIS_PROCESS.note_step]


def test_while_a_shard_runs_the_process_is_not_idle(shard_of, monkeypatch):
    running = []

    class Watched(FakeGenerator):
        def image(self, spec):
            running.append(THIS_PROCESS._running)
            return super().image(spec)

    shard_of(Watched())
    assert running == [1] * 4
    assert THIS_PROCESS._running == 0


@pytest.mark.parametrize(("device", "may_hang"), [("cpu", False), ("cuda:0", True), ("mps", True)])
def test_a_device_that_is_no_cpu_may_be_found_hanging_once_the_model_is_loaded(monkeypatch, device, may_hang):
    from t2i_core.engine import load

    def load_model(load_config):
        assert THIS_PROCESS._model == LOAD_CONFIG
        return SimpleNamespace(torch_device=SimpleNamespace(type=device.partition(":")[0]))

    monkeypatch.setattr(THIS_PROCESS, "may_hang", not may_hang)
    monkeypatch.setattr(load, "load_model", load_model)
    generation.load_generator(LOAD_CONFIG)
    assert THIS_PROCESS.may_hang == may_hang
