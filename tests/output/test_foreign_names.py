"""A picture of the user's under the name of an image is refused; whatever became of an image of ours is not."""

import os
import shutil

import pytest

from t2i_core.errors import OutputError
from t2i_core.output.manifest import check_names, write_manifest
from t2i_core.storage import image_store
from tests.builders import image_spec, make_catalog, store_image

FOLDER = "sample0_condition0"
NAME = f"{FOLDER}/{FOLDER}_0.png"


@pytest.fixture
def catalog(workspace):
    """The catalog of a data set of two rows, whose images are stored."""

    def make():
        for number in range(2):
            if workspace.images.stat(image_spec(number).key) is None:
                store_image(workspace, image_spec(number))
        return make_catalog(workspace, image_spec(0), image_spec(1))

    return make


def refused(name):
    return pytest.raises(OutputError, match=f"holds {name}, which this tool did not write; choose another --output, or")


def foreign_picture(path, kind):
    """Put something that is no image of ours under a name; return the name of what is foreign."""
    if kind == "linked folder":
        (path.parent.parent / "elsewhere").mkdir()
        path.parent.symlink_to("elsewhere")
        return FOLDER
    if kind == "file for a folder":
        path.parent.write_text("theirs")
        return FOLDER
    path.parent.mkdir()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle of links":
        path.symlink_to(path.name)
    else:
        path.write_bytes(b"" if kind == "empty" else b"theirs")
    return NAME


@pytest.mark.parametrize(
    "kind", ["picture", "empty", "folder", "pipe", "circle of links", "linked folder", "file for a folder"]
)
def test_a_file_of_somebody_else_is_refused_before_and_after_the_work(workspace, catalog, config, kind):
    name = foreign_picture(workspace.root / NAME, kind)
    before = sorted(workspace.root.rglob("*"))
    for check in (check_names, write_manifest):
        made = catalog()
        with refused(name):
            check(made, config())
    assert [path for path in sorted(workspace.root.rglob("*")) if workspace.hidden not in path.parents] == [
        path for path in before if workspace.hidden not in path.parents
    ]
    check_names(catalog(), config(named_images="never"))


def test_with_replace_it_is_overwritten(workspace, catalog, config):
    foreign_picture(workspace.root / NAME, "picture")
    check_names(catalog(), config(replace=True))
    write_manifest(catalog(), config(replace=True))
    check_names(catalog(), config())


@pytest.mark.parametrize("links_work", [True, False])
@pytest.mark.parametrize("damage", ["none", "torn", "copied", "another row's", "provenance deleted"])
def test_whatever_became_of_an_image_of_ours_it_is_ours(
    workspace, catalog, config, damage, links_work, monkeypatch, tmp_path
):
    if not links_work:
        monkeypatch.setattr(image_store.os, "link", lambda *both: (_ for _ in ()).throw(OSError(1, "no links")))
    write_manifest(catalog(), config())
    path = workspace.root / NAME
    content = path.read_bytes()
    if damage != "none":
        path.unlink()
    if damage in ("torn", "copied", "another row's"):
        other = workspace.root / "sample1_condition0/sample1_condition0_0.png"
        path.write_bytes({"torn": content[:100], "copied": content}.get(damage, other.read_bytes()))
    if damage == "provenance deleted":
        (workspace.root / "images.parquet").unlink()
    check_names(catalog(), config())
    write_manifest(catalog(), config())
    assert path.read_bytes() == content


def test_the_name_of_an_image_that_was_damaged_and_made_again_is_ours(workspace, catalog, config):
    write_manifest(catalog(), config())
    stored = workspace.images.root / workspace.images.location(image_spec(0).key)
    stored.chmod(0o644)
    stored.write_bytes(b"damaged")  # and with it its other name
    check_names(make_catalog(workspace, image_spec(0), image_spec(1)), config())
    store_image(workspace, image_spec(0))
    write_manifest(catalog(), config())
    assert (workspace.root / NAME).read_bytes() == stored.read_bytes()


def test_a_picture_that_took_the_place_of_ours_is_theirs(workspace, catalog, config):
    write_manifest(catalog(), config())
    shutil.rmtree(workspace.root / FOLDER)
    foreign_picture(workspace.root / NAME, "picture")
    with refused(NAME):
        check_names(catalog(), config())
    with refused(NAME):
        write_manifest(catalog(), config())
    assert (workspace.root / NAME).read_bytes() == b"theirs"


def test_files_beside_images_are_no_obstacle(workspace, catalog, config):
    (workspace.root / FOLDER).mkdir()
    (workspace.root / FOLDER / "notes.txt").write_text("theirs")
    check_names(catalog(), config())
    write_manifest(catalog(), config())
