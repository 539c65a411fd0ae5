"""Named images without metadata: what they are is remembered by their content; no file of a user is taken for one."""

import io
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from t2i_core.errors import OutputError
from t2i_core.output import bare_copies
from t2i_core.output.bare_copies import BareCopies
from t2i_core.output.foreign_names import refuse_foreign_names
from t2i_core.output.named_links import NamedImage, NamedLinks
from t2i_core.storage.formats import FORMATS, read_header
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, picture, store_image


def name(row, suffix=".png"):
    return f"sample{row}_condition0/sample{row}_condition0_0{suffix}"


@pytest.fixture
def key(workspace):
    """The key of a stored image, by number."""
    return [store_image(workspace, image_spec(i)).key for i in range(4)]


def wanted(workspace, keys_by_name):
    keys = list(keys_by_name.values())
    inodes = np.array([workspace.images.stat(key).inode for key in keys], np.uint64)
    return [(list(keys_by_name), keys, inodes)]


def apply(workspace, keys_by_name, *, bare=True):
    """What a run does; returns the changes that it made."""
    links = NamedLinks(workspace, bare=bare)
    changes = links.changes(wanted(workspace, keys_by_name))
    links.apply(changes)
    return changes


def changes(workspace, keys_by_name, *, bare=True):
    return NamedLinks(workspace, bare=bare).changes(wanted(workspace, keys_by_name))


@pytest.fixture
def read(monkeypatch):
    """The named files whose content was read."""
    seen = []
    real = bare_copies.hashlib.sha256

    def sha256(content):
        seen.append(content)
        return real(content)

    monkeypatch.setattr(bare_copies.hashlib, "sha256", sha256)
    return seen


@pytest.mark.parametrize("form", FORMATS)
def test_a_copy_has_the_pixels_of_its_image_and_nothing_else(workspace, form):
    key = store_image(workspace, image_spec(0), format=form).key
    stored = workspace.images.read(key)
    apply(workspace, {name(0): key})
    copy = workspace.root / name(0)
    with Image.open(copy) as image, Image.open(io.BytesIO(stored)) as original:
        assert (np.asarray(image) == np.asarray(original)).all()
        assert not image.getexif()
        assert not {"xmp", "exif", "parameters", "text2image", "comment"} & set(image.info)
    assert b"text2image" not in copy.read_bytes()
    assert workspace.images.read(key) == stored  # which keeps its record
    assert copy.stat().st_mode & 0o777 == 0o444


def test_once_written_nothing_is_left_to_change_and_no_file_is_read(workspace, key, read):
    names = {name(0): key[0], name(1): key[1]}
    assert len(apply(workspace, names).to_link) == 2
    read.clear()
    assert not changes(workspace, names)
    assert not apply(workspace, names)
    assert not changes(workspace, names)
    assert read == []


def test_a_name_that_stands_for_another_image_is_outdated_and_written_again(workspace, key):
    apply(workspace, {name(0): key[0], name(1): key[1]})
    links = NamedLinks(workspace, bare=True)
    swapped = links.changes(wanted(workspace, {name(0): key[1], name(1): key[0]}))
    assert links.outdated_names(swapped) == {name(0), name(1)}
    links.apply(swapped)
    assert NamedLinks(workspace).key_of(name(0)) == key[1]


def test_two_copies_that_were_swapped_by_hand_are_told_apart_whatever_their_size_and_time(workspace, key):
    names = {name(0): key[0], name(1): key[1]}
    apply(workspace, names)
    one, other, third = (workspace.root / path for path in (name(0), name(1), "third"))
    one.rename(third)
    other.rename(one)
    third.rename(other)
    for path in (one, other):
        os.utime(path, (5, 5))
    assert [image.name for image in changes(workspace, names).to_link] == [name(0), name(1)]


def test_a_name_nobody_wants_any_more_is_removed_and_a_file_of_the_users_own_is_not(workspace, key):
    apply(workspace, {name(0): key[0], name(1): key[1], name(2): key[2]})
    own = workspace.root / name(1)
    own.unlink()
    own.write_bytes(b"mine")
    removed = apply(workspace, {name(0): key[0]}).to_remove
    assert removed == [workspace.root / name(2)]
    assert own.read_bytes() == b"mine"
    assert not (workspace.root / name(2)).exists()


@pytest.mark.parametrize("edit", ["in place", "another file", "same size"])
def test_a_copy_that_was_edited_is_written_again(workspace, key, edit):
    apply(workspace, {name(0): key[0]})
    path = workspace.root / name(0)
    content = path.read_bytes()
    path.chmod(0o644)
    if edit == "another file":
        path.unlink()
    path.write_bytes(content[:-1] + b"?" if edit == "same size" else content + b"?")
    assert changes(workspace, {name(0): key[0]}).to_link == [NamedImage(name(0), key[0])]
    apply(workspace, {name(0): key[0]})
    assert path.read_bytes() == content


@pytest.mark.parametrize("how", ["copied", "times lost"])
def test_the_copies_of_an_output_that_was_copied_are_known_by_their_content(workspace, tmp_path, key, how, read):
    names = {name(0): key[0], name(1): key[1]}
    apply(workspace, names)
    moved = Workspace(tmp_path / "moved")
    shutil.copytree(workspace.root, moved.root, copy_function=shutil.copy2 if how == "copied" else shutil.copy)
    assert not apply(moved, names)
    read.clear()
    assert not changes(moved, names)  # and then they are known again without a look at them
    assert read == []


def test_links_become_copies_and_copies_links_without_a_name_that_is_wrong(workspace, key):
    names = {name(0): key[0]}
    for bare in (False, True, False, True):
        links = NamedLinks(workspace, bare=bare)
        found = links.changes(wanted(workspace, names))
        assert found.to_link == [NamedImage(name(0), key[0])]
        if (workspace.root / name(0)).exists():
            assert links.outdated_names(found) == set()
        links.apply(found)
        with (workspace.root / name(0)).open("rb") as file:
            assert (read_header(file) is None) == bare
        assert not changes(workspace, names, bare=bare)


@pytest.mark.parametrize("content", [None, b"", b"torn", b"PAR1torn"])
def test_without_what_is_remembered_copies_are_written_again(workspace, key, content):
    apply(workspace, {name(0): key[0]})
    (workspace.hidden / "bare.parquet").unlink()
    if content is not None:
        (workspace.hidden / "bare.parquet").write_bytes(content)
    assert NamedLinks(workspace).key_of(name(0)) is None
    assert apply(workspace, {name(0): key[0]}).to_link
    assert not changes(workspace, {name(0): key[0]})


def test_what_was_written_before_an_error_is_remembered(workspace, key, monkeypatch):
    names = {name(i): key[i] for i in range(3)}
    links = NamedLinks(workspace, bare=True)
    found = links.changes(wanted(workspace, names))
    workspace.images.delete(key[1])
    with pytest.raises(OutputError, match="damaged or gone"):
        links.apply(found)
    assert NamedLinks(workspace).key_of(name(0)) == key[0]
    assert NamedLinks(workspace).key_of(name(2)) is None
    assert not list(workspace.root.rglob("*.tmp"))


@pytest.mark.parametrize("broken", ["absent.png", "", "a\0b", "\ud800"])
def test_what_is_no_copy_has_no_key(workspace, key, broken):
    apply(workspace, {name(0): key[0]})
    assert BareCopies(workspace).key_of(broken) is None
    (workspace.root / name(1)).parent.mkdir()
    buffer = io.BytesIO()
    Image.fromarray(picture(image_spec(0))).save(buffer, "PNG")
    (workspace.root / name(1)).write_bytes(buffer.getvalue())
    assert NamedLinks(workspace).key_of(name(1)) is None


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("bare", [True, False])
def test_a_copy_is_no_file_of_somebody_else_even_if_nothing_is_remembered(workspace, form, bare):
    key = store_image(workspace, image_spec(0), format=form).key
    apply(workspace, {name(0): key}, bare=bare)
    refuse_foreign_names(workspace, [NamedImage(name(0), key)])
    (workspace.hidden / "bare.parquet").unlink(missing_ok=True)
    refuse_foreign_names(workspace, [NamedImage(name(0), key)])
    path = workspace.root / name(0)
    path.unlink()
    Image.fromarray(picture(image_spec(0))).save(path, {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}[form])
    if form != "png":  # a plain PNG of the same pixels is the copy, bit by bit
        with pytest.raises(OutputError, match="did not write"):
            refuse_foreign_names(workspace, [NamedImage(name(0), key)])


def test_a_torn_image_is_not_copied(workspace, key):
    path = workspace.images.path(key[0])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(OutputError, match="damaged or gone"):
        apply(workspace, {name(0): key[0]})


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_no_copy_and_is_not_opened(workspace, key, kind):
    apply(workspace, {name(0): key[0]})
    path = workspace.root / name(0)
    content = path.rename(workspace.root / "content")
    {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir, "link": lambda: path.symlink_to(content)}[kind]()
    copies = BareCopies(workspace)
    assert copies.key_of(name(0)) is None
    assert not copies.is_copy_of(name(0), key[0])
    assert not copies.are_right([name(0)], [key[0]]).any()
