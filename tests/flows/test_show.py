"""`text2image show FILE`: what a picture tells, and the command that makes exactly it again."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows import show
from flows.cli import command_line, main
from t2i_core.errors import ImageFailure
from t2i_core.generation import image_writer
from tests.conftest import ROOT, Output, header_of


@pytest.fixture
def shown(capsys):
    """What `show` prints of files, and its exit code."""

    def call(*files):
        capsys.readouterr()  # of the run
        code = show.main([str(file) for file in files])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def again(run, shown, tmp_path, monkeypatch):
    """Run the command that `show` prints for a copy of a picture; return the record of what it makes."""
    monkeypatch.chdir(tmp_path)

    def call(path):
        copy = tmp_path / "a copy"
        shutil.copy(path, copy)
        code, out, _ = shown(copy)
        assert code == 0
        data, command = out[out.index("printf ") :].splitlines()[:2]
        subprocess.run(["sh", "-c", data], check=True)
        arguments = shlex.split(command.removeprefix("python -m flows.text2image"))
        options = command_line().parse(arguments).options.model_dump(exclude_unset=True)
        assert run(**options).is_completed()
        (picture,) = pq.read_table(f"{options['output']}/images.parquet").to_pylist()
        assert Output(options["output"]).manifest_is_true()
        return picture

    return call


def pictures(output):
    """The pictures of a run, with their paths and their keys."""
    return pq.read_table(output.folder / "images.parquet").to_pylist()


def test_the_command_makes_exactly_the_same_image_again(run, output, prompts, again, lora):
    own = {"seed": 7, "width": 96, "height": 48, "negative_prompt": 'blurry, it\'s\n"bad"', "steps": 2}
    dataset = prompts(
        {"conversations": "a fox ", "generation": own},
        {"conversations": [{"content": "its $prompt"}, {"content": "一只狐狸"}], "generation": {"steps": None}},
    )
    template = " {prompt}, `photo` "
    settings = {"images_per_prompt": 2, "prompt_template": template, "lora": [f"{lora}:0.5"], "batch_size": 3}
    assert run(dataset=dataset, **settings).is_completed()
    made = pictures(output)
    assert len(made) == 6
    assert [image["seed"] for image in made[:2]] == [7, 8]
    for image in (made[1], made[2], made[5]):
        remade = again(image["path"])
        assert (remade["key"], remade["pixels_sha256"]) == (image["key"], image["pixels_sha256"])
        assert remade["batch_size"] == 3


@pytest.mark.parametrize("form", ["webp", "jpeg"])
def test_a_replacement_in_another_format_is_made_again_under_its_own_seed(
    run, output, prompts, again, monkeypatch, form
):
    dataset, checked_pixels = prompts("a fox"), image_writer.checked_pixels

    def black(image, spec):
        raise ImageFailure("black")

    monkeypatch.setattr(image_writer, "checked_pixels", black)
    run(dataset=dataset)
    monkeypatch.setattr(image_writer, "checked_pixels", checked_pixels)
    assert run(dataset=dataset, retry_failed=True, reseed=True, image_format=form).is_completed()
    (image,) = pictures(output)
    assert image["replaces"]
    remade = again(image["path"])
    assert (remade["key"], remade["pixels_sha256"]) == (image["key"], image["pixels_sha256"])


def test_the_command_works_when_it_is_pasted_into_a_shell(run, output, prompts, shown, tmp_path):
    assert run(dataset=prompts("it's a fox"), negative_prompt="").is_completed()
    (image,) = pictures(output)
    done = subprocess.run(
        [sys.executable, "-m", "flows.text2image", "show", output.folder / f".t2i/images/{image['key'][:2]}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    _, out, _ = shown(image["path"])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    lines = "\n".join(out[out.index("printf ") :].splitlines()[:2])
    subprocess.run(
        ["sh", "-ec", lines], cwd=tmp_path, env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}, check=True
    )
    (remade,) = tmp_path.glob("again-*/sample0_condition0/sample0_condition0_0.png")
    assert header_of(remade)["pixels_sha256"] == image["pixels_sha256"]


def test_named_stored_and_copied_pictures_tell_the_same(run, output, prompts, shown, tmp_path, capsys):
    assert run(dataset=prompts("a fox")).is_completed()
    (image,) = pictures(output)
    (stored,) = output.stored().values()
    copy = tmp_path / "elsewhere.dat"
    shutil.copy(stored, copy)
    texts = {shown(path)[1].split("\n", 1)[1] for path in (image["path"], stored, copy)}
    assert len(texts) == 1
    assert main(["show", str(copy)]) == 0
    out = capsys.readouterr().out
    for expected in ("a fox", image["key"], image["pixels_sha256"], str(image["seed"]), "torch", "--model=demo"):
        assert expected in out


def test_several_files_are_shown_and_one_that_is_none_of_ours_is_named(run, output, prompts, shown, tmp_path):
    assert run(dataset=prompts("a fox")).is_completed()
    (image,) = pictures(output)
    code, out, err = shown(tmp_path / "absent.png", image["path"])
    assert code == 2
    assert err == f"error: {tmp_path / 'absent.png'} does not exist; check the path\n"
    assert json.dumps("a fox") in out


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0)])
def test_without_a_file_the_usage_is_shown(arguments, code, capsys):
    assert show.main(arguments) == code
    assert "FILE [FILE ...]" in capsys.readouterr().out


def test_named_images_without_metadata_are_shown_by_their_output_and_stay_when_nothing_changes(
    run, output, prompts, shown, tmp_path
):
    dataset = prompts("a fox", "a cat")
    assert run(dataset=dataset).is_completed()
    assert run(dataset=dataset, embed_metadata="none").is_completed()
    assert output.counts()["images_reused"] == 2
    paths = [image["path"] for image in pictures(output)]
    assert [header_of(path) for path in paths] == [None, None]
    assert {header_of(path)["key"] for path in output.stored().values()} == {i["key"] for i in pictures(output)}
    code, out, _ = shown(paths[1])
    assert code == 0
    assert "a cat" in out
    copy = shutil.copy(paths[1], tmp_path / "copy.png")
    code, _, err = shown(copy)
    assert code == 2
    assert "has no record of this tool" in err
    before = {path: Path(path).stat().st_mtime_ns for path in [*paths, output.folder / "manifest.jsonl"]}
    assert run(dataset=dataset, embed_metadata="none").is_completed()
    assert before == {path: Path(path).stat().st_mtime_ns for path in before}
    assert run(dataset=prompts("a cat"), embed_metadata="none").is_completed()
    assert not Path(paths[1]).exists()
    assert output.manifest()[0]["images"] == [paths[0]]
    assert "a cat" in shown(paths[0])[1]
    assert run(dataset=dataset).is_completed()
    assert output.manifest_is_true()
