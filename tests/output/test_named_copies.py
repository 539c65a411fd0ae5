"""Named images that are copies, where links do not work: each stands for its image, whatever its size and time."""

import os
import time
from types import SimpleNamespace

import pytest

from t2i_core.output import named_copies
from t2i_core.output.named_links import NamedImage, NamedLinks
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, picture, store_image
from tests.output.test_named_links import files, name


def swap(*paths):
    """Let two files change their contents in place; sizes and times stay."""
    contents, states = [path.read_bytes() for path in paths], [path.stat() for path in paths]
    for path, content, state in zip(paths, reversed(contents), states, strict=True):
        path.chmod(0o644)
        path.write_bytes(content)
        path.chmod(0o444)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.fixture
def alike(workspace):
    """The keys of two images whose files have the same size and time."""
    pixels = picture(image_spec(0))
    keys = [store_image(workspace, image_spec(i), pixels).key for i in (1, 2)]
    for key in keys:
        os.utime(workspace.images.path(key), ns=(0, 10**18))
    assert len({(file.size, file.mtime_ns) for file in map(workspace.images.stat, keys)}) == 1
    return keys


def settle():
    """Wait until a further change of a file shows in its change time."""
    time.sleep(0.05)


def test_a_copy_that_was_changed_is_made_again(workspace, links, wanted, key, no_links):
    names = {name(0): key[0]}
    links.apply(links.changes(wanted(names)))
    copy = workspace.root / name(0)
    copy.chmod(0o644)
    copy.write_bytes(copy.read_bytes() + b"x")
    assert links.changes(wanted(names)).to_link == [NamedImage(name(0), key[0])]


def test_a_copy_with_another_time_is_a_copy(workspace, links, wanted, key, no_links):
    names = {name(0): key[0]}
    links.apply(links.changes(wanted(names)))
    os.utime(workspace.root / name(0), (5, 5))
    assert not links.changes(wanted(names))


def test_copies_of_equal_size_and_time_are_told_apart_by_their_headers(workspace, links, wanted, alike, no_links):
    links.apply(links.changes(wanted({name(0): alike[0], name(1): alike[1]})))
    settle()
    assert not links.changes(wanted({name(0): alike[0], name(1): alike[1]}))
    swapped = {name(0): alike[1], name(1): alike[0]}
    changes = links.changes(wanted(swapped))
    assert changes.to_link == [NamedImage(name(0), alike[1]), NamedImage(name(1), alike[0])]
    assert links.outdated_names(changes) == {name(0), name(1)}
    links.apply(changes)
    assert links.key_of(name(0)) == alike[1]


def test_what_was_found_of_a_copy_is_kept_and_its_header_read_once(
    workspace, links, wanted, alike, no_links, monkeypatch
):
    names = {name(0): alike[0], name(1): alike[1]}
    links.apply(links.changes(wanted(names)))
    settle()
    assert not links.changes(wanted(names))
    monkeypatch.setattr(named_copies, "read_header", lambda file: pytest.fail("read again"))
    assert not NamedLinks(Workspace(workspace.root)).changes(wanted(names))
    monkeypatch.undo()


@pytest.mark.parametrize("how", ["written in place", "renamed"])
def test_copies_that_changed_places_are_noticed_whatever_their_size_and_time(
    workspace, links, wanted, alike, no_links, how
):
    names = {name(0): alike[0], name(1): alike[1]}
    for _ in range(2):
        links.apply(links.changes(wanted(names)))
        settle()
    one, other = workspace.root / name(0), workspace.root / name(1)
    if how == "renamed":
        one.rename(workspace.root / "between")
        other.rename(one)
        (workspace.root / "between").rename(other)
    else:
        swap(one, other)
    assert [image.name for image in links.changes(wanted(names)).to_link] == [name(0), name(1)]


def test_a_copy_of_the_picture_that_an_image_had_before_is_not_right(workspace, links, wanted, no_links):
    """`--refresh` makes an image again under its key, perhaps with other pixels."""
    key = store_image(workspace, image_spec(1)).key
    for _ in range(2):
        links.apply(links.changes(wanted({name(0): key})))
        settle()
    before = workspace.images.stat(key)
    store_image(workspace, image_spec(1), 255 - picture(image_spec(1)))
    os.utime(workspace.images.path(key), ns=(0, before.mtime_ns))
    assert workspace.images.stat(key).size == before.size
    assert links.changes(wanted({name(0): key})).to_link == [NamedImage(name(0), key)]


def test_where_the_file_system_keeps_no_change_time_headers_are_read_each_time(
    workspace, links, wanted, alike, no_links, monkeypatch
):
    """As on FAT: there the change time is the modification time, and so it is what somebody set."""
    real = os.stat

    def stat(*arguments, **options):
        found = real(*arguments, **options)
        return SimpleNamespace(
            **{field: getattr(found, field) for field in dir(found) if field.startswith("st_")}
            | {"st_ctime_ns": found.st_mtime_ns}
        )

    names = {name(0): alike[0], name(1): alike[1]}
    monkeypatch.setattr(os, "stat", stat)
    for _ in range(2):
        links.apply(links.changes(wanted(names)))
        settle()
    swap(workspace.root / name(0), workspace.root / name(1))
    assert [image.name for image in links.changes(wanted(names)).to_link] == [name(0), name(1)]


def test_a_copy_is_replaced_by_a_link_where_one_can_be_made(workspace, links, wanted, key):
    copy = workspace.root / name(0)
    copy.parent.mkdir()
    copy.write_bytes(workspace.images.read(key[0]))
    changes = links.changes(wanted({name(0): key[0]}))
    assert changes.to_link == [NamedImage(name(0), key[0])]
    assert links.outdated_names(changes) == set()
    assert list(files(workspace)) == ["sample0_condition0", name(0)]  # nothing is left of the attempt
    links.apply(changes)
    assert copy.stat().st_ino == workspace.images.stat(key[0]).inode


def test_where_one_image_has_all_the_links_it_can_have_its_copies_stay(workspace, links, wanted, key, monkeypatch):
    names = {name(0): key[0], name(1): key[0]}
    real = os.link

    def link(source, target):
        if os.stat(source).st_nlink > 1:
            raise OSError("too many links")
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    links.apply(links.changes(wanted(names)))
    assert not links.changes(wanted(names))
