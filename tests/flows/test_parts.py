"""What parts make together, and how they are said to stand."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from flows import text2image
from flows.parts import begin_part
from t2i_core.output.part_marks import PartMarks
from t2i_core.planning.parts import Part
from t2i_core.storage.holders import Holder
from t2i_core.storage.leases import InUse
from t2i_core.storage.workspace import Workspace
from tests.conftest import ROOT, command

TEXTS = [f"a fox number {i}" for i in range(9)]


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
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")  # torchrun would end all other parts
    assert run(dataset=dataset, part="1/2").is_completed()


@pytest.mark.timeout(300)
def test_the_last_command_is_named_without_what_would_make_all_again(run, prompts, caplog):
    run(dataset=prompts(*TEXTS), part="1/2", refresh=True, retry_failed=True)
    assert "run the same command without --part and --refresh and --retry-failed: it writes" in caplog.text


@pytest.mark.timeout(600)
def test_torchrun_starts_parts_that_meet_in_one_output_each_with_a_server_of_its_own(output, prompts, tmp_path):
    """Real processes at the same time, started as docs/scale.md says; then the same command without --part."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    module, *flags = command(f"--dataset={prompts(*TEXTS)}", f"--output={output.folder}")[2:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", module, *flags]

    def start(*arguments):
        return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    done = start(*torchrun, "--part=auto")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("1/2", "2/2"):
        assert f"part      this run makes part {part}\n" in done.stdout
    assert "twice" not in done.stdout
    assert len(output.stored()) == len(TEXTS)
    assert not (tmp_path / "home" / "prefect.db").exists()
    refused = start(*torchrun)
    assert "torchrun starts 2 processes, and each would make all images; write --part auto" in refused.stderr
    done = start(sys.executable, "-m", module, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert output.counts()["images_reused"] == len(TEXTS)
    assert output.manifest_is_true()


@pytest.fixture
def begin(tmp_path, caplog):
    """Begin a part beside other runs that live: `begin("1/2", ("2/2", its plan))`, "" for one that only looks."""
    workspace = Workspace(tmp_path)

    def begun(text, *others, plan="p1"):
        caplog.clear()
        holder = Holder("there", 7, 0.0)
        living = [InUse(f"r{i}", theirs, holder, makes) for i, (makes, theirs) in enumerate(others)]
        part = Part.parse(text) if text else None
        begin_part(part, workspace, SimpleNamespace(others=lambda: living), "r", plan)
        assert set(PartMarks(workspace).all()) >= ({part} if part else set())
        return caplog.text

    caplog.set_level("INFO")
    return begun


def test_a_part_says_which_one_it_is_and_that_others_make_it_too(begin):
    assert "part      this run makes part 1/2\n" in begin("1/2")
    assert "twice" not in begin("2/2", ("1/2", "p1"))
    text = begin("1/2", ("2/2", "p1"), ("1/2", "p1"), ("1/2", "p1"))
    assert "part      process 7 on there, since " in text
    assert " makes part 1/2 (and 1 more): some images are made twice" in text


@pytest.mark.parametrize(("text", "meets"), [("1/4", True), ("2/4", False), ("1/3", True), (None, True), ("1/2", True)])
def test_parts_of_other_totals_and_whole_runs_are_warned_of_where_they_meet(begin, text, meets):
    assert ("some images are made twice" in begin(text, ("1/2", "p1"))) == meets


@pytest.mark.parametrize("text", [None, "3/8"])
def test_a_run_of_all_images_is_warned_of_and_one_that_only_looks_is_not(begin, text):
    assert re.search("part      process 7 .* makes all images: some images are made twice", begin(text, ("1/1", "p1")))
    for odd in ("", "x", "0/3", "1/2/3", "9" * 99):
        assert "process 7" not in begin(text, (odd, "p1"))


def test_a_part_that_belongs_to_another_data_set_or_other_settings_says_so(begin):
    text = begin("1/2", ("2/2", "another"))
    assert "part      process 7 on there, since " in text
    assert " makes part 2/2 of another data set or with other settings: the two do not belong together" in text
    assert "belong together" not in begin("1/2", ("2/2", "p1"), ("1/1", "another"))


@pytest.mark.timeout(300)
def test_runs_tell_each_other_what_they_make_by_their_leases(run, prompts, monkeypatch):
    told = []
    monkeypatch.setattr(text2image, "hold_plan", lambda workspace, lease, plan, makes: told.append(makes))
    dataset = prompts(*TEXTS)
    for values in ({}, {"part": "1/2"}, {"status": True}, {"dry_run": True}):
        run(dataset=dataset, **values)
    assert told == ["1/1", "1/2", "", ""]


@pytest.mark.timeout(300)
def test_the_status_names_parts_that_belong_to_something_else(run, prompts, caplog):
    dataset = prompts(*TEXTS)
    run(dataset=dataset, part="1/2")
    run(dataset=dataset, part="2/2", seed=5)
    caplog.clear()
    run(dataset=dataset, status=True)
    assert re.search(r"part      2/2: 0 made, .* finished .*, with another data set or other settings\n", caplog.text)
