"""SIGKILL at each point of a run: at most the batch in flight is lost, and the end is that of an undisturbed run."""

import shutil
import signal

import pyarrow.parquet as pq
import pytest

from flows.text2image import text2image
from tests.conftest import QUICK, Output, header_of, in_process
from tests.crash import POINTS

pytestmark = pytest.mark.timeout(400)

BEFORE = ["a fox", "a cat", "a house", "a moon"]
AFTER = ["a boat", "a fox", "a cat", "a kite", "a house", "a moon"]

# At which call of its function a point strikes. Batches have two images, shards two batches.
STRIKES = {
    "temporary file before rename": 2,
    "after an image": 1,
    "after the images before the result": 1,
    "after the result before the manifest": 1,
    "while names change": 2,
    "while Parquet is written": 1,
    "before the manifest appears": 1,
}


def settings(dataset, output):
    return [f"--dataset={dataset}", f"--output={output.folder}", "--save-interval=2"]


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """The outputs of two runs, before and after the data set was edited, with nothing in between."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {
        "server": server,
        "first": _made(folder / "first", BEFORE),
        "second": _made(folder / "second", BEFORE, AFTER),
    }


def _made(folder, *versions):
    folder.mkdir()
    output = Output(folder / "out")
    for texts in versions:
        options = QUICK | {"dataset": str(_write(folder, texts)), "output": str(output.folder), "save_interval": 2}
        assert text2image(**options, return_state=True).is_completed()
    return output


def _write(folder, texts):
    path = folder / "prompts.txt"
    path.write_text("\n".join(texts) + "\n")
    return path


def test_every_point_strikes_somewhere():
    assert set(STRIKES) == set(POINTS)


@pytest.mark.parametrize("point", STRIKES)
def test_a_killed_run_goes_on(run, undisturbed, tmp_path, point):
    """Killed in the second run of an output, where names change their meaning; then run again."""
    folder = tmp_path / "killed"
    folder.mkdir()
    output = Output(folder / "out")
    # A manifest gives paths as the output was given: the copy starts where the undisturbed first run ended.
    shutil.copytree(undisturbed["first"].folder, output.folder)
    dataset = _write(folder, AFTER)
    before = set(output.stored())
    killed = in_process(point, STRIKES[point], *settings(dataset, output), "--replace", driver="tests.crash")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    if (output.folder / "manifest.jsonl").exists():
        assert _names_tell_the_truth(output)
    kept = set(output.stored()) - before
    assert run(dataset=str(dataset), output=str(output.folder), save_interval=2).is_completed()
    counts = output.run()["accounting"]
    missing = len(set(AFTER) - set(BEFORE))
    assert counts["images_generated"] >= missing - len(kept)
    assert counts["images_generated"] <= missing - len(kept) + QUICK["batch_size"]
    expected = undisturbed["second"]
    assert output.pixels() == expected.pixels()
    assert _rows(output) == _rows(expected)
    assert output.manifest_is_true()
    assert _provenance(output) == _provenance(expected)
    for leftover in output.folder.rglob("*.tmp"):  # hidden, and removed once an hour old: tests/storage
        assert leftover.name.startswith(".")


def _names_tell_the_truth(output):
    from pathlib import Path

    for row in output.manifest():
        for path in row["images"]:
            # The copied manifest gives the paths of where it was made; the names are the same here.
            name = output.folder / Path(*Path(path).parts[-2:])
            assert header_of(name)["spec"]["prompt"] == row["prompt"]
    return True


def _rows(output):
    prefix = str(output.folder)
    return [row | {"images": [path.removeprefix(prefix) for path in row["images"]]} for row in output.manifest()]


def _provenance(output):
    columns = ["row", "condition", "image", "key", "seed", "prompt", "pixels_sha256", "batch_size"]
    return pq.read_table(output.folder / "images.parquet", columns=columns).to_pylist()


def test_two_runs_at_once_do_no_harm(undisturbed, tmp_path):
    import subprocess

    from tests.conftest import ROOT, command

    output = Output(tmp_path / "out")
    arguments = settings(_write(tmp_path, AFTER), output)
    runs = [
        subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    outputs = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert output.pixels() == undisturbed["second"].pixels()
    assert output.manifest_is_true()
