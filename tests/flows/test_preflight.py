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

# Option -> what a path in it looks like, for a path `{}`, and what the path should name.
OPTIONS = {
    "dataset": ("{}.jsonl", "file"),
    "model": ("{}", "folder"),
    "lora": ("{}.safetensors", "file"),
    "prepare": ("{}.py:f", "file"),
    "config": ("{}.yaml", "file"),
    "output": ("{}", "folder"),
    "cache-dir": ("{}", "folder"),
    "local-dir": ("{}", "folder"),
}
CONTENT = {
    "dataset": '{"conversations": "a fox"}\n',
    "lora": "weights",
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
    *((option, "read-only") for option in ("dataset", "model", "lora", "prepare", "config", "cache-dir", "local-dir")),
    *((option, "in a read-only folder") for option in ("dataset", "model", "lora", "prepare", "config")),
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


@pytest.fixture(scope="module")
def answers():
    """(option, kind) -> what came of it, for an ordinary user."""
    with tempfile.TemporaryDirectory(prefix="sweep") as name:
        folder = Path(name)
        folder.chmod(0o777)
        cases = [(option, kind) for option in OPTIONS for kind in KINDS]
        lines = [[f"--{option}={prepared(folder, option, kind)}"] for option, kind in cases]
        # Everything but the option under test is in order.
        (folder / "rows.jsonl").write_text(CONTENT["dataset"])
        for (option, _), line in zip(cases, lines, strict=True):
            line += [] if option == "dataset" else [f"--dataset={folder / 'rows.jsonl'}"]
            line += [] if option == "model" else ["--model=demo"]
            line += [] if option == "output" else [f"--output={folder / 'out'}"]
        done = subprocess.run(
            [sys.executable, "-m", "tests.flows.ordinary_user"],
            cwd=ROOT, input=json.dumps(lines), capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        yield dict(zip(cases, json.loads(done.stdout), strict=True))
        for path in folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o777)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", OPTIONS)
def test_a_mistake_in_a_path_is_one_line_and_exit_code_2_at_once(answers, option, kind):
    answer = answers[option, kind]
    assert answer["imported"] == []
    assert answer["seconds"] < 5
    if (option, kind) in FINE:
        assert (answer["code"], answer["text"]) == (0, "accepted\n")
        return
    assert answer["code"] == 2, answer["text"]
    assert answer["text"].startswith("error: ")
    assert answer["text"].count("\n") == 1
    assert len(answer["text"]) < 600
