"""The folder of an export: it is there whole or not at all, and no file of the user's is lost."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from filelock import FileLock

from t2i_core.errors import OutputError
from t2i_core.export import sharded
from t2i_core.export.survey import Surveyor
from t2i_core.export.target import EXPORT, Target, is_image, is_whole
from tests.builders import image_spec
from tests.conftest import ROOT

IDENTITY = "0123456789abcdef" * 2
FORMS = ("webdataset", "parquet", "imagefolder", "captions", "llava")


def small(form):
    """Options for shards of two images, where there are shards."""
    return {"shard_size": 2} if form in ("webdataset", "parquet") else {}


class Killed(BaseException):
    """What ends an export as a signal does."""


def content(folder):
    """Path -> bytes of every file, but for those that say when and where."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (EXPORT, "settings"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def beside(folder):
    """What lies beside an export."""
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_export_leaves_nothing_that_looks_finished_and_the_next_one_ends_it(
    output, tmp_path, form, monkeypatch
):
    output.make(*[{"id": number} for number in range(6)])
    whole = content(output.export(form, **small(form), to=str(tmp_path / "whole")))
    folder = tmp_path / "killed"
    done = []

    def kill(sample):
        done.append(sample)
        if len(done) == 5:
            raise Killed

    with monkeypatch.context() as patch:
        samples = Surveyor.samples
        patch.setattr(
            Surveyor,
            "samples",
            lambda self, found, wanted=None: (kill(sample) or sample for sample in samples(self, found, wanted)),
        )
        with pytest.raises(Killed):
            output.export(form, **small(form), to=str(folder))
    assert not folder.exists()
    output.export(form, **small(form), to=str(folder))
    assert content(folder) == whole
    assert beside(folder) == ["out", "whole"]


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_export_over_an_earlier_one_leaves_that_as_it_was(output, form, monkeypatch):
    output.make(*[{"id": number} for number in range(4)])
    folder = output.export(form, **small(form))
    before = content(folder)
    output.make(*[{"id": number + 10} for number in range(6)])
    with monkeypatch.context() as patch:
        patch.setattr(Target, "commit", lambda *arguments: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            output.export(form, **small(form))
    assert content(folder) == before
    output.export(form, **small(form))
    assert output.summary["images"] == 6
    assert content(folder) != before


def test_shards_of_a_killed_export_are_not_written_again(output, monkeypatch):
    output.make(*[{"id": number} for number in range(6)])
    original = sharded.Sharded._write_shard
    written = []

    def write(self, shard, samples):
        if len(written) == 2:
            raise Killed
        original(self, shard, samples)
        written.append(shard.number)

    with monkeypatch.context() as patch:
        patch.setattr(sharded.Sharded, "_write_shard", write)
        with pytest.raises(Killed):
            output.export("webdataset", shard_size=2)
        written = ["begun"]
        output.export("webdataset", shard_size=2)
    assert written == ["begun", 2]


def test_what_a_killed_export_with_other_options_left_is_removed(output, monkeypatch):
    output.make(*[{"id": number} for number in range(3)])
    with monkeypatch.context() as patch:
        patch.setattr(Target, "commit", lambda *arguments: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            output.export("imagefolder", image_format="webp")
    folder = output.export("imagefolder")
    assert not list(folder.rglob("*.webp"))
    assert len(list(folder.rglob("*.png"))) == 3


@pytest.mark.parametrize("when", ["before the renames", "between the renames", "after the renames"])
def test_a_process_that_dies_while_the_folder_is_put_into_place(output, when):
    output.make({"id": 1}, {"id": 2}).export("webdataset")
    script = f"""
import os, sys
from pathlib import Path
import t2i_core.export.target as target
from t2i_core.planning.catalog import Catalog
renames = []
original = Path.rename
def rename(self, other):
    if self.name in ("webdataset", ".webdataset.partial"):
        if len(renames) == {["before the renames", "between the renames", "after the renames"].index(when)}:
            os._exit(9)
        renames.append(self)
    return original(self, other)
Path.rename = rename
target.shutil.rmtree = lambda *a, **k: os._exit(9) if len(renames) == 2 else None
from tests.export.conftest import Output
from tests.builders import image_spec
output = Output({str(output.root)!r})
output.make({{"id": 3}}, {{"id": 4}}, {{"id": 5}}).export("webdataset")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
    )
    assert done.returncode == 9, done.stderr.decode()
    folder = output.root / "exports" / "webdataset"
    assert folder.exists() is (when != "between the renames")
    output.make({"id": 3}, {"id": 4}, {"id": 5}).export("webdataset")
    assert output.summary["images"] == 3
    assert beside(folder) == []


def test_files_of_the_user_stay_where_they_are(output):
    folder = output.make({"id": 1}).export("captions")
    cache = folder / "train" / f"{IDENTITY}_flux.npz"
    cache.write_bytes(b"latents")
    (folder / "notes.md").write_text("mine")
    (folder / "train" / f"{IDENTITY}.png").write_bytes(b"named as ours are")
    output.make({"id": 1}, {"id": 2}).export("captions")
    assert cache.read_bytes() == b"latents"
    assert (folder / "notes.md").read_text() == "mine"
    assert (folder / "train" / f"{IDENTITY}.png").read_bytes() == b"named as ours are"
    assert len(list(folder.glob("train/*.png"))) == 2 + 1
    output.make({"id": 2, "specs": [image_spec(1)]}).export("captions")
    assert len(list(folder.glob("train/*.png"))) == 1 + 1


def test_an_export_without_its_hidden_folder_is_known_all_the_same(output):
    folder = output.make({}, {}).export("captions")
    shutil.rmtree(folder / ".t2i")
    output.make({}, {}, {}).export("captions")
    assert len(list(folder.glob("train/*.png"))) == 3


@pytest.mark.parametrize("text", ["# Mine\n", None])
def test_a_card_that_somebody_wrote_is_not_overwritten(output, text):
    folder = output.make({"id": 1}).export("webdataset")
    card = folder / "README.md"
    changed = text or card.read_text("utf-8").replace("Licence", "License"[:7])
    card.write_text(changed, "utf-8")
    output.make({"id": 1}, {"id": 2})
    with pytest.raises(OutputError, match=r"README.md was changed since the export; choose another --to, or move it"):
        output.export("webdataset")
    assert card.read_text("utf-8") == changed
    assert beside(folder) == []
    card.unlink()
    output.export("webdataset")
    assert card.read_text("utf-8").startswith("---\n")


def test_a_file_of_the_user_with_the_name_of_a_new_one_is_not_overwritten(output):
    folder = output.make({"id": 1}).export("webdataset", shard_size=1)
    (folder / "train" / "00001.tar").write_bytes(b"mine")
    output.make({"id": 1}, {"id": 2})
    with pytest.raises(OutputError, match=r"00001.tar is not the export's, which now has a file of this name"):
        output.export("webdataset", shard_size=1)
    assert (folder / "train" / "00001.tar").read_bytes() == b"mine"
    assert json.loads((folder / EXPORT).read_text())["images"] == 1


def test_a_folder_with_other_files_is_refused(output, tmp_path):
    output.make({"id": 1})
    other = tmp_path / "other"
    other.mkdir()
    output.export("webdataset", to=str(other))  # an empty one is taken
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "train.tar").write_text("mine")
    with pytest.raises(OutputError, match=r"full holds train.tar and no export; name a new or empty folder"):
        output.export("webdataset", to=str(tmp_path / "full"))
    with pytest.raises(OutputError, match=r"train.tar is a file; name a folder"):
        output.export("webdataset", to=str(tmp_path / "full" / "train.tar"))
    with pytest.raises(OutputError, match="holds the output itself"):
        output.export("webdataset", to=str(tmp_path))
    with pytest.raises(OutputError, match="holds the output itself"):
        output.export("webdataset", to=str(output.root))
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == ["train.tar"]


def test_another_format_takes_the_place_of_an_export(output, tmp_path):
    output.make({"id": 1}, {"id": 2})
    folder = output.export("webdataset", to=str(tmp_path / "to"))
    output.export("parquet", to=str(folder))
    assert sorted(path.name for path in (folder / "train").iterdir()) == ["00000.parquet"]


@pytest.mark.parametrize("name", [".to.partial", ".to.old"])
def test_a_folder_of_the_user_with_a_hidden_name_is_not_removed(output, tmp_path, name):
    output.make({"id": 1}).export("webdataset", to=str(tmp_path / "to"))
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").write_text("mine")
    output.make({"id": 2}, {"id": 3})
    with pytest.raises(OutputError, match=f"{name} is not an export's; choose another --to, or move it away"):
        output.export("webdataset", to=str(tmp_path / "to"))
    assert (tmp_path / name / "mine.txt").read_text() == "mine"
    assert json.loads((tmp_path / "to" / EXPORT).read_text())["images"] == 1


def test_two_exports_do_not_write_to_one_folder_at_once(output, tmp_path):
    output.make({"id": 1})
    with FileLock(tmp_path / ".to.lock"), pytest.raises(OutputError, match="another export is being written to"):
        output.export("webdataset", to=str(tmp_path / "to"))


@pytest.mark.parametrize(
    "name, ours",
    [
        (f"{IDENTITY}.png", True),
        (f"{IDENTITY}-12.txt", True),
        (f"{IDENTITY}_flux.npz", False),
        (f"{IDENTITY}.npz", False),
        (f"{IDENTITY}-a.png", False),
        ("fox.png", False),
        ("00000.tar", False),
    ],
)
def test_an_image_of_an_export_is_known_by_its_name(name, ours):
    assert is_image(name) is ours


def test_an_export_is_whole_while_its_files_are_as_it_left_them(output):
    folder = output.make({"id": 1}).export("webdataset")
    written = output.summary["written"]
    assert is_whole(folder, written)
    assert not is_whole(folder, "another")
    images = output.export("imagefolder")
    assert is_whole(images, written)
    next(images.rglob("*.png")).unlink()
    assert not is_whole(images, written)
    (folder / "train" / "00000.tar").unlink()
    assert not is_whole(folder, written)
    for text in ("{", "[]", '{"files": 3}'):
        (folder / EXPORT).write_text(text)
        assert not is_whole(folder, written)
