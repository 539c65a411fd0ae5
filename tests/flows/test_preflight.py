"""Mistakes in paths: each is one line and exit code 2, at once, whatever the option and whatever is wrong."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from t2i_core.bundled import DEMO_MODEL
from tests.conftest import ROOT


def weights(tensor):
    """A safetensors file of one tensor, as text."""
    header = json.dumps({tensor: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    return chr(len(header)) + "\0" * 7 + header + "\0" * 4


# Option -> what a path in it looks like, for a path `{}`, and what the path should name.
OPTIONS = {
    "dataset": ("{}.jsonl", "file"),
    "model": ("{}", "folder"),
    "transformer": ("{}.safetensors", "file"),
    "lora": ("{}.safetensors", "file"),
    "prepare": ("{}.py:f", "file"),
    "config": ("{}.yaml", "file"),
    "output": ("{}", "folder"),
    "cache-dir": ("{}", "folder"),
    "local-dir": ("{}", "folder"),
}
CONTENT = {
    "dataset": '{"conversations": "a fox"}\n',
    "transformer": weights("transformer_blocks.0.a"),
    "lora": weights("a.lora_A.weight"),
    "prepare": "def f(pipeline):\n    pass\n",
    "config": "steps: 1\n",
}
KINDS = (
    *("too long", "no permission", "in a folder without permission", "of the wrong kind", "below a file"),
    *("dangling link", "circle of links", "pipe", "read-only", "in a read-only folder", "missing"),
    *("NUL", "blank", "empty", "URL", "unknown user", "not UTF-8", "device"),
)
# What is no mistake: a folder that is missing is made, what is only read may be read-only, and data sets have URLs.
FINE = {
    *((option, "read-only") for option in ("dataset", "model", "transformer", "lora", "prepare", "config")),
    *((option, "read-only") for option in ("cache-dir", "local-dir")),
    *((option, "in a read-only folder") for option in ("dataset", "model", "transformer", "lora", "prepare", "config")),
    *((option, "missing") for option in ("output", "cache-dir", "local-dir")),
    ("dataset", "URL"),
}


def prepared(folder, option, kind):
    """The value of an option with this mistake in it, made in `folder`."""
    form, wanted = OPTIONS[option]
    base = folder / f"{option}-{kind.replace(' ', '-')}"
    suffix = form.removeprefix("{}").partition(":")[0]
    path = Path(f"{base}{suffix}")

    def make(path, what=wanted):
        if what == "file":
            path.write_text(CONTENT.get(option, "text"))
        elif option == "model":
            shutil.copytree(DEMO_MODEL, path)
        else:
            path.mkdir()

    if kind == "too long":
        base = folder / ("x" * 300)
    elif kind == "no permission":
        make(path)
        path.chmod(0)
    elif kind == "in a folder without permission":
        base.mkdir(mode=0)
        base /= "inside"
    elif kind == "of the wrong kind":
        make(path, "folder" if wanted == "file" else "file")
    elif kind == "below a file":
        base.write_text("")
        base /= "inside"
    elif kind == "dangling link":
        path.symlink_to(folder / "nowhere" / "at" / "all")
    elif kind == "circle of links":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
        path.chmod(0o666)
    elif kind == "device":
        path.symlink_to("/dev/null")
    elif kind == "read-only":
        make(path)
        path.chmod(0o444 if wanted == "file" else 0o555)
    elif kind == "in a read-only folder":
        base.mkdir()
        if (option, kind) in FINE:
            make(base / f"inside{suffix}")
        base.chmod(0o555)
        base /= "inside"
    elif kind == "missing":
        base.mkdir()
        base.chmod(0o777)
        base = base / "not" / "there"
    plain = {
        "NUL": "a\0b",
        "not UTF-8": "a\udcff",
        "blank": " ",
        "empty": "",
        "unknown user": "~no-such-user/a",
        "URL": "s3://bucket/a",
    }
    value = plain.get(kind, str(base))
    return value if kind in ("blank", "empty") else form.format(value)


PROMPT = "a fox darting between snow-covered pines at dusk, " * 6


def ours_read_only(folder):
    (folder / ".t2i/results").mkdir(parents=True)
    (folder / ".t2i").chmod(0o777)
    (folder / ".t2i/results").chmod(0o555)
    return [f"--output={folder}"]


def model_with(mode, path):
    def prepare(folder):
        shutil.copytree(DEMO_MODEL, folder, dirs_exist_ok=True)
        (folder / path).chmod(mode)
        return [f"--model={folder}"]

    return prepare


def data_folder(folder):
    (folder / "a.jsonl").write_text(CONTENT["dataset"])
    (folder / "b.jsonl").write_text(CONTENT["dataset"])
    (folder / "b.jsonl").chmod(0)
    return [f"--dataset={folder}"]


def locked(folder):
    (folder / "locked").mkdir(mode=0)
    return [f"--dataset={folder}/locked/*.jsonl"]


def lora_with_weight(folder):
    (folder / "style.safetensors").write_text("weights")
    (folder / "style.safetensors").chmod(0)
    return [f"--lora={folder}/style.safetensors:0.5"]


# What was done -> (what makes it in a folder of its own and returns the arguments, words of the answer).
OTHER_MISTAKES = {
    "a folder of ours cannot be written": (ours_read_only, ".t2i/results cannot be written"),
    "weights cannot be read": (
        model_with(0, "vae/diffusion_pytorch_model.safetensors"),
        "vae/diffusion_pytorch_model.safetensors: Permission denied",
    ),
    "a component cannot be entered": (model_with(0, "vae"), "vae"),
    "one file of a folder cannot be read": (data_folder, "b.jsonl: cannot be read: Permission denied"),
    "a LoRA with a weight cannot be read": (lora_with_weight, "cannot be read: Permission denied"),
    "a prompt in place of a file": (lambda folder: [f"--dataset={PROMPT}"], "if it is a prompt, write it into a .txt"),
    "a prompt without a flag": (lambda folder: [PROMPT], "if it is a prompt, write it into a .txt"),
    "a short prompt": (lambda folder: ["a fox in the snow"], "if it is a prompt, write it into a .txt"),
    "a pattern in a folder that may not be entered": (locked, "cannot be read: Permission denied"),
    "a module of a long name": (lambda folder: [f"--prepare={'x' * 300}:f"], "Python finds no module"),
}


def with_the_rest(folder, arguments):
    """The arguments, and those that make everything else right."""
    flags = {argument.partition("=")[0] for argument in arguments}
    given = "--dataset" in flags or not all(flag.startswith("--") for flag in flags)
    arguments += [] if given else [f"--dataset={folder / 'rows.jsonl'}"]
    arguments += [] if "--model" in flags else ["--model=demo"]
    return arguments + ([] if "--output" in flags else [f"--output={folder / 'out'}"])


@pytest.fixture(scope="module")
def answers():
    """(option, kind), or an other mistake -> what came of it, for an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="sweep") as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "rows.jsonl").write_text(CONTENT["dataset"])
        lines = {
            (option, kind): [f"--{option}={prepared(folder, option, kind)}"] for option in OPTIONS for kind in KINDS
        }
        for mistake, (prepare, _) in OTHER_MISTAKES.items():
            own = folder / mistake
            own.mkdir()
            own.chmod(0o777)
            lines[mistake] = prepare(own)
        done = subprocess.run(
            [sys.executable, "-m", "tests.flows.ordinary_user"],
            cwd=ROOT,
            input=json.dumps([with_the_rest(folder, line) for line in lines.values()]),
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield dict(zip(lines, json.loads(done.stdout), strict=True))
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o777)


def refused(answer):
    """The one line that a mistake was answered with."""
    assert answer["code"] == 2, answer["text"]
    assert answer["text"].startswith("error: ")
    assert answer["text"].count("\n") == 1
    assert len(answer["text"]) < 700
    return answer["text"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_mistake_in_a_path_is_one_line_and_exit_code_2_at_once(answers, option, kind):
    answer = answers[option, kind]
    assert answer["imported"] == []
    assert answer["seconds"] < 5
    if (option, kind) in FINE:
        assert (answer["code"], answer["text"]) == (0, "accepted\n")
    else:
        refused(answer)


@pytest.mark.parametrize("mistake", OTHER_MISTAKES)
def test_other_mistakes_of_an_ordinary_user_are_one_line_too(answers, mistake):
    _, words = OTHER_MISTAKES[mistake]
    assert words in refused(answers[mistake])
    assert answers[mistake]["seconds"] < 5
