"""Parts: which one a launcher means; what they make together; how they are said to stand."""

import pytest

from flows.parts import find_part, with_own_device
from t2i_core.config import Config
from t2i_core.engine import device
from t2i_core.errors import ConfigError
from t2i_core.planning.parts import Part

TEXTS = [f"a fox number {i}" for i in range(9)]


def array(number, first=0, last=7, count=8, **more):
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    return {**dict(zip(names, map(str, (number, first, last, count)), strict=True)), **more}


@pytest.mark.parametrize(
    ("text", "environment", "part"),
    [
        ("3/64", {}, Part(3, 64)),
        ("3/64", array(0), Part(3, 64)),
        ("auto", {"RANK": "0", "WORLD_SIZE": "8"}, Part(1, 8)),
        ("auto", {"RANK": "7", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}, Part(8, 8)),
        ("auto", array(0), Part(1, 8)),
        ("auto", array(7), Part(8, 8)),
        ("auto", array(8, first=1, last=8), Part(8, 8)),
        ("auto", array(30, first=10, last=40, count=4), Part(3, 4)),
        ("auto", array(5, first=5, last=5, count=1), Part(1, 1)),
        ("auto", array(1, first=0, last=1, count=2, SLURM_PROCID="3", SLURM_STEP_NUM_TASKS="4"), Part(8, 8)),
        ("auto", {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}, Part(3, 4)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "0"}, Part(1, 16)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "15"}, Part(16, 16)),
    ],
)
def test_the_part_of_a_process(text, environment, part):
    assert find_part(text, environment) == part


def test_a_batch_script_that_runs_once_is_not_taken_for_one_of_its_tasks():
    # In the script itself Slurm sets the rank and the number of tasks of the job, though only srun starts several.
    assert find_part("auto", array(2, SLURM_PROCID="0", SLURM_NTASKS="4")) == Part(3, 8)


@pytest.mark.parametrize(
    ("text", "environment", "problem"),
    [
        ("auto", {}, "finds neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"}, "write auto/COMPLETIONS"),
        ("auto/3", {"JOB_COMPLETION_INDEX": "3"}, "auto/3 has parts 0 to 2"),
        ("auto", array(3, first=3, last=9, count=3) | {"SLURM_ARRAY_TASK_ID": "5"}, "the array has gaps"),
        ("auto", array(7, first=3, last=17, count=3), "start --array=0-2"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "8"}, "RANK is 'x' in the environment, not a number"),
    ],
)
def test_a_launcher_that_does_not_say_which_part_is_refused(text, environment, problem):
    with pytest.raises(ConfigError, match=problem):
        find_part(text, environment)


@pytest.mark.parametrize("part", ["0/4", "5/4", "0/0", "1/0"])
def test_a_part_that_does_not_exist_is_refused(part):
    with pytest.raises(ConfigError, match=f"part {part} does not exist"):
        Config.from_values({"dataset": "x.txt", "part": part})


@pytest.mark.parametrize("option", [{"preview": 3}, {"prune": True}, {"status": True}])
def test_options_about_all_images_are_refused_with_a_part(option):
    with pytest.raises(ConfigError, match="concerns all images, and part only some"):
        Config.from_values({"dataset": "x.txt", "part": "1/2", **option})


@pytest.mark.parametrize(
    ("values", "environment", "expected"),
    [
        ({"part": "auto"}, {"LOCAL_RANK": "5"}, "cuda:1"),
        ({"part": "auto"}, {"SLURM_LOCALID": "2"}, "cuda:2"),
        ({"part": "auto"}, {}, "auto"),
        ({"part": "auto", "device": "cuda:3"}, {"LOCAL_RANK": "1"}, "cuda:3"),
        ({"part": "2/4"}, {"LOCAL_RANK": "1"}, "auto"),
        ({}, {"LOCAL_RANK": "1"}, "auto"),
    ],
)
def test_each_of_several_processes_on_a_machine_takes_its_own_card(monkeypatch, values, environment, expected):
    monkeypatch.setattr(device, "resolve_device", lambda name: "cuda")
    monkeypatch.setattr(device.torch.cuda, "device_count", lambda: 4)
    config = Config.from_values({"dataset": "x.txt", **values})
    assert with_own_device(config, environment).device == expected


@pytest.mark.timeout(300)
def test_parts_make_what_one_run_makes_and_the_run_without_part_only_writes_it_down(
    run, output, prompts, tmp_path, caplog
):
    dataset, alone = prompts(*TEXTS), type(output)(tmp_path / "alone")
    run(dataset=dataset, output=str(alone.folder))
    for number in (1, 2, 3):
        state = run(dataset=dataset, part=f"{number}/3")
        assert state.is_completed()
        assert state.message.startswith(f"part {number}/3: ")
        assert sorted(path.name for path in output.folder.iterdir()) == [".t2i"]  # no names, no manifest, no report
    assert "part      3/3: " in caplog.text
    assert output.pixels() == alone.pixels()
    assert run(dataset=dataset).message == "0 images made, 9 reused"
    assert output.manifest_is_true()


@pytest.mark.timeout(300)
def test_a_part_that_is_run_again_makes_nothing_and_loads_nothing(run, output, prompts, monkeypatch):
    dataset = prompts(*TEXTS)
    first = run(dataset=dataset, part="2/3")
    times = {key: path.stat().st_mtime_ns for key, path in output.stored().items()}
    monkeypatch.setattr("t2i_core.engine.load.load_model", lambda load_config: pytest.fail("the model was loaded"))
    assert run(dataset=dataset, part="2/3").message == first.message
    assert {key: path.stat().st_mtime_ns for key, path in output.stored().items()} == times


@pytest.mark.timeout(300)
def test_the_status_says_what_is_missing_and_what_became_of_the_parts(run, output, prompts, caplog):
    dataset = prompts(*TEXTS)
    run(dataset=dataset, part="1/3")
    caplog.clear()
    state = run(dataset=dataset, status=True)
    made = len(output.stored())
    assert state.message == f"9 images: {made} made, 0 failed, {9 - made} missing"
    assert "parts     1 of 3 complete" in caplog.text
    assert "part      2/3: 0 made" in caplog.text
    assert caplog.text.count("never started") == 2
    assert "part      1/3" not in caplog.text


@pytest.mark.timeout(300)
def test_the_status_needs_no_part_and_writes_nothing_to_look_at(run, output, prompts, no_model):
    state = run(dataset=prompts(*TEXTS), status=True)
    assert state.message == "9 images: 0 made, 0 failed, 9 missing"
    assert not (output.folder / ".t2i" / "output.json").exists()


@pytest.mark.timeout(300)
def test_images_that_a_part_could_not_make_are_said_and_counted(run, output, prompts, monkeypatch, caplog):
    from t2i_core.errors import ImageFailure
    from t2i_core.generation import image_writer

    def black(image, spec):
        raise ImageFailure("the image is black")

    monkeypatch.setattr(image_writer, "checked_pixels", black)
    dataset = prompts(*TEXTS)
    state = run(dataset=dataset, part="1/2")
    assert state.name == "TooManyFailures"
    assert "failed    the image is black" in caplog.text
    assert "0 made" in state.message
    assert "0 missing" in state.message
    assert run(dataset=dataset, part="1/2", max_failures=9.0).is_completed()
