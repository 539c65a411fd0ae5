"""Which part and which card a launcher's variables mean; what they leave open is refused at once."""

from types import SimpleNamespace

import pytest

from flows.launchers import check_launcher, find_part, with_own_device
from flows.preflight import check_at_once
from t2i_core.config import Config
from t2i_core.engine import device
from t2i_core.errors import ConfigError
from t2i_core.planning.parts import Part


def array(number, first=0, last=7, count=8, **more):
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    return {**dict(zip(names, map(str, (number, first, last, count)), strict=True)), **more}


def torchrun(rank, world, local=None):
    return {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(local or world)}


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
        ("auto", array(2) | torchrun(5, 8), Part(22, 64)),  # each task of the array starts torchrun
        ("auto/64", array(2) | torchrun(5, 8), Part(22, 64)),
        ("auto/8", array(2), Part(3, 8)),
        ("auto/64", {"JOB_COMPLETION_INDEX": "40", "RANK": "0", "WORLD_SIZE": "1"}, Part(41, 64)),  # of many images
        ("auto/4", {"JOB_COMPLETION_INDEX": "3"} | torchrun(5, 8), Part(30, 32)),  # in each Pod for itself
        ("auto", {"JOB_COMPLETION_INDEX": "3"} | torchrun(29, 32, local=8), Part(30, 32)),  # over all Pods
        ("auto/4", {"JOB_COMPLETION_INDEX": "3"} | torchrun(29, 32, local=8), Part(30, 32)),
        ("auto", {"JOB_COMPLETION_INDEX": "0"} | torchrun(5, 8), Part(6, 8)),  # one Pod
        ("auto", array(2) | torchrun(29, 64, local=8), Part(30, 64)),  # the tasks are the machines of one torchrun
        ("auto", array(1) | {"SLURM_JOB_NUM_NODES": "2"} | torchrun(5, 16, local=8), Part(22, 128)),  # two nodes a task
        ("auto", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"} | torchrun(5, 8), Part(14, 16)),  # each its own
        ("auto", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"} | torchrun(13, 16, local=8), Part(14, 16)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "0"}, Part(1, 16)),
        ("auto/16", {"JOB_COMPLETION_INDEX": "15"}, Part(16, 16)),
        # The user's own RANK=$SLURM_PROCID, or that of the array; or a rank in each job of the array.
        ("auto", array(2, SLURM_PROCID="3", SLURM_STEP_NUM_TASKS="4", RANK="3", WORLD_SIZE="4"), Part(12, 32)),
        ("auto", array(2, RANK="1", WORLD_SIZE="4"), Part(10, 32)),
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
        ("auto/3", {"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETION_INDEX 3 is not in auto/3"),
        ("auto", array(3, first=3, last=9, count=3) | {"SLURM_ARRAY_TASK_ID": "5"}, "the array has gaps"),
        ("auto", array(7, first=3, last=17, count=3), "submit --array=0-2"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "8"}, "RANK is 'x' in the environment, not a number"),
        (
            "auto",
            {"RANK": "8", "WORLD_SIZE": "8"},
            "RANK is 8 and WORLD_SIZE is 8 in the environment; write part/parts",
        ),
        ("auto", {"RANK": "0", "WORLD_SIZE": "0"}, "RANK is 0 and WORLD_SIZE is 0"),
        ("auto", {"SLURM_PROCID": "4", "SLURM_STEP_NUM_TASKS": "4"}, "SLURM_PROCID is 4"),
        # The array's own number, or that of a process in each of its jobs: the number alone does not tell.
        ("auto", array(2, RANK="2", WORLD_SIZE="8"), "RANK and the array both count 8 processes"),
        ("auto", array(2, RANK="1", WORLD_SIZE="8"), "RANK and the array both count 8 processes"),
        ("auto", array(70, last=63, count=64), "the array has gaps .task 70, 64 tasks from 0 to 63"),
        ("auto", array(0, count=0), "the array has gaps"),
        ("auto/16", array(40, last=63, count=64), "part: auto/16, and the launcher started 64; write auto"),
        ("auto", {"JOB_COMPLETION_INDEX": "3"} | torchrun(5, 8), "write auto/COMPLETIONS"),
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
        ({"part": "auto", "device": "cpu"}, {"LOCAL_RANK": "1"}, "cpu"),
        ({"part": "auto", "device": "cuda"}, {"LOCAL_RANK": "1"}, "cuda:1"),
        ({"part": "2/4"}, {"SLURM_LOCALID": "1"}, "cuda:1"),  # --part $((SLURM_PROCID + 1))/4
        ({}, {"SLURM_LOCALID": "1"}, "cuda:1"),  # each task has a data set of its own
        ({"part": "auto", "workers": "auto"}, {"SLURM_LOCALID": "1"}, "auto"),  # of workers each has its own
    ],
)
def test_each_of_several_processes_on_a_machine_takes_its_own_card(monkeypatch, values, environment, expected):
    monkeypatch.setattr(device, "resolve_device", lambda name: "cuda")
    monkeypatch.setattr(device.torch.cuda, "init", lambda: None)
    monkeypatch.setattr(device.torch.cuda, "device_count", lambda: 4)
    config = Config.from_values({"dataset": "x.txt", **values})
    assert with_own_device(config, environment).device == expected


def srun(task, per_node, node=0, **more):
    return {
        "SLURM_PROCID": str(task), "SLURM_STEP_NUM_TASKS": "8", "SLURM_NODEID": str(node),
        "SLURM_STEP_TASKS_PER_NODE": per_node, **more,
    }  # fmt: skip


SEVERAL = [
    torchrun(1, 8), srun(1, "8"), srun(1, "4(x2)"), srun(7, "1,7", node=1), srun(1, "8", SLURM_TRES_PER_TASK="cpu=4"),
]  # fmt: skip
ONE = [
    {}, torchrun(1, 8, local=1), srun(1, "1(x8)"), srun(0, "1,7"), srun(1, "4(x2)", SLURM_GPUS_PER_TASK="1"),
    srun(1, "8", SLURM_TRES_PER_TASK="gres/gpu:1"),
]  # fmt: skip


@pytest.mark.parametrize("environment", SEVERAL)
def test_processes_of_a_machine_that_would_use_the_same_cards_are_refused(environment):
    config = Config.from_values({"dataset": "x.txt", "part": "auto", "workers": "auto"})
    with pytest.raises(ConfigError, match=r"workers: (torchrun|srun) starts [478] processes on this machine, and each"):
        check_launcher(config, environment)
    slices = environment | {"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}
    with pytest.raises(ConfigError, match=r"several slices .MIG., of which each would use the first"):
        check_launcher(Config.from_values({"dataset": "x.txt", "part": "auto"}), slices)
    check_launcher(Config.from_values({"dataset": "x.txt", "part": "auto"}), environment)
    check_launcher(Config.from_values({"dataset": "x.txt", "workers": 2, "status": True}), environment)


@pytest.mark.parametrize("environment", ONE)
def test_a_process_that_has_cards_of_its_own_may_have_several_workers(environment):
    part = "auto" if environment else "1/2"
    check_launcher(Config.from_values({"dataset": "x.txt", "part": part, "workers": "auto"}), environment)


def test_torchrun_without_a_part_would_make_the_same_several_times():
    config = Config.from_values({"dataset": "x.txt"})
    for environment in (torchrun(1, 8), torchrun(1, 8, local=1)):
        with pytest.raises(ConfigError, match="torchrun starts 8 processes, and each would make all images"):
            check_launcher(config, environment)
    check_launcher(config, torchrun(0, 1))
    check_launcher(Config.from_values({"dataset": "x.txt", "status": True}), torchrun(1, 8))
    check_launcher(Config.from_values({"dataset": "x.txt", "part": "2/8"}), torchrun(1, 8))  # a shell that counts


@pytest.mark.parametrize("odd", [{"LOCAL_WORLD_SIZE": ""}, {"SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "x"}])
def test_odd_variables_of_a_launcher_do_not_matter_where_no_part_is_asked_for(odd):
    check_launcher(Config.from_values({"dataset": "x.txt"}), odd)


def test_a_machine_without_a_card_is_left_to_say_so(monkeypatch):
    monkeypatch.setattr(device, "resolve_device", lambda name: "cpu")
    assert with_own_device(Config.from_values({"dataset": "x.txt"}), {"SLURM_LOCALID": "1"}).device == "auto"


def test_a_terminal_that_srun_opened_is_not_taken_for_one_of_its_tasks(monkeypatch):
    terminal = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PTY_PORT": "4000"}
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert find_part("auto", terminal | torchrun(5, 8)) == Part(6, 8)
    with pytest.raises(ConfigError, match="write part/parts"):
        find_part("auto", terminal)
    # A task that srun starts from there has its variable, and no terminal.
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    assert find_part("auto", terminal) == Part(1, 8)


def test_a_process_without_a_launcher_is_told_before_a_server_is_started(tmp_path, monkeypatch):
    for name in ("RANK", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_NUM_TASKS", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "prompts.txt").write_text("a fox\n")
    values = {"dataset": str(tmp_path / "prompts.txt"), "model": "demo", "output": str(tmp_path / "out")}
    with pytest.raises(ConfigError, match="write part/parts, for example 3/64"):
        check_at_once(Config.from_values({**values, "part": "auto"}))
