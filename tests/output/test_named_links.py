"""Names in an output folder: which are wrong is asked without a change, and nothing of a user's own is touched."""

import os
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from t2i_core.output.named_links import NamedImage
from t2i_core.storage.files import STALE_SECONDS
from tests.builders import image_spec, picture, store_image


def name(row, image=0, stem="sample"):
    folder = f"{stem}{row}_condition0"
    return f"{folder}/{folder}_{image}.png"


def files(workspace):
    """{path relative to the output: inode} of everything but what is hidden."""
    paths = [path for path in workspace.root.rglob("*") if workspace.hidden not in (path, *path.parents)]
    return {path.relative_to(workspace.root).as_posix(): path.stat().st_ino for path in paths}


def test_names_that_are_absent_are_to_be_linked_and_nothing_is_changed(workspace, links, wanted, key):
    changes = links.changes(wanted({name(0): key[0], name(1): key[1]}))
    assert changes.to_link == [NamedImage(name(0), key[0]), NamedImage(name(1), key[1])]
    assert changes.to_remove == []
    assert changes
    assert files(workspace) == {}


def test_once_applied_each_name_is_its_image_and_nothing_is_left_to_change(workspace, links, wanted, key):
    names = {name(0): key[0], name(1): key[1], name(1, 1): key[2]}
    links.apply(links.changes(wanted(names)))
    assert {n: i for n, i in files(workspace).items() if n.endswith(".png")} == {
        n: workspace.images.stat(k).inode for n, k in names.items()
    }
    assert not links.changes(wanted(names))


def test_a_name_of_another_image_is_to_be_linked_and_then_right(workspace, links, wanted, key):
    links.apply(links.changes(wanted({name(0): key[0], name(1): key[1]})))
    swapped = {name(0): key[1], name(1): key[1]}
    changes = links.changes(wanted(swapped))
    assert changes.to_link == [NamedImage(name(0), key[1])]
    assert changes.to_remove == []
    links.apply(changes)
    assert links.key_of(name(0)) == links.key_of(name(1)) == key[1]
    assert not links.changes(wanted(swapped))


def test_a_remade_image_is_linked_again(workspace, links, wanted, key):
    links.apply(links.changes(wanted({name(0): key[0]})))
    workspace.images.delete(key[0])
    store_image(workspace, image_spec(0))
    changes = links.changes(wanted({name(0): key[0]}))
    assert [image.name for image in changes.to_link] == [name(0)]
    assert links.outdated_names(changes) == set()  # it is the same picture all the while


def test_many_names_are_told_apart(workspace, links, wanted, key):
    names = {name(i): key[i % 4] for i in range(200)}
    links.apply(links.changes(wanted(names)))
    assert not links.changes(wanted(names))
    fewer = {one: key for one, key in names.items() if not one.startswith("sample1")}
    changes = links.changes(wanted(fewer))
    assert changes.to_link == []
    assert {path.relative_to(workspace.root).as_posix() for path in changes.to_remove} == names.keys() - fewer.keys()


def test_names_may_come_in_several_chunks(links, wanted, key):
    both = [*wanted({name(0): key[0]}), *wanted({name(1): key[1]})]
    links.apply(links.changes(both))
    assert not links.changes([*wanted({name(0): key[0]}), *wanted({name(1): key[1]})])
    (removed,) = links.changes(wanted({name(1): key[1]})).to_remove
    assert removed.name == "sample0_condition0_0.png"


def test_a_name_that_nobody_wants_is_removed_with_the_folder_it_leaves_empty(workspace, links, wanted, key):
    links.apply(links.changes(wanted({name(0): key[0], name(1): key[1], name(1, 1): key[2]})))
    changes = links.changes(wanted({name(1): key[1]}))
    assert changes.to_link == []
    assert sorted(changes.to_remove) == [workspace.root / name(0), workspace.root / name(1, 1)]
    links.apply(changes)
    assert list(files(workspace)) == ["sample1_condition0", name(1)]
    assert workspace.images.read(key[0]) is not None


def test_what_another_run_removed_in_the_meantime_is_no_error(workspace, links, wanted, key):
    links.apply(links.changes(wanted({name(0): key[0]})))
    changes = links.changes([])
    (workspace.root / name(0)).unlink()
    links.apply(changes)
    assert files(workspace) == {}


def test_a_folder_with_a_file_of_the_users_own_stays(workspace, links, wanted, key):
    links.apply(links.changes(wanted({name(0): key[0]})))
    note = workspace.root / "sample0_condition0/notes.txt"
    note.write_text("mine")
    links.apply(links.changes([]))
    assert list(files(workspace)) == ["sample0_condition0", "sample0_condition0/notes.txt"]


@pytest.mark.parametrize("content", [b"mine", "a picture"])
def test_a_file_of_the_users_own_is_not_removed_whatever_its_name(workspace, links, content):
    mine = workspace.root / name(7)
    mine.parent.mkdir()
    if content == "a picture":
        from PIL import Image

        Image.fromarray(picture(image_spec(1))).save(mine)
    else:
        mine.write_bytes(content)
    changes = links.changes([])
    assert not changes
    links.apply(changes)
    assert mine.exists()


@pytest.mark.parametrize(
    "elsewhere",
    [
        "sample0_condition0/sample1_condition0_0.png",  # not named after its folder
        "sample0_condition0/sample0_condition0_0.bmp",
        "best/sample0_condition0_0.png",
        "sample0_condition0_0.png",
    ],
)
def test_an_image_that_the_user_copied_elsewhere_is_left_alone(workspace, links, key, elsewhere):
    copy = workspace.root / elsewhere
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(workspace.images.read(key[0]))
    assert not links.changes([])


def test_a_folder_that_is_a_symbolic_link_is_not_entered(workspace, links, key, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/sample0_condition0_0.png").write_bytes(workspace.images.read(key[0]))
    (workspace.root / "sample0_condition0").symlink_to(tmp_path / "theirs")
    assert not links.changes([])


def test_a_symbolic_link_in_the_place_of_a_name_becomes_a_link_that_lasts(workspace, links, wanted, key):
    names = {name(0): key[0]}
    (workspace.root / "sample0_condition0").mkdir()
    (workspace.root / name(0)).symlink_to((workspace.root / workspace.images.location(key[0])).absolute())
    changes = links.changes(wanted(names))
    assert changes.to_link == [NamedImage(name(0), key[0])]
    links.apply(changes)
    assert not (workspace.root / name(0)).is_symlink()
    assert not links.changes(wanted(names))


def test_names_made_of_an_id_are_names_of_ours(workspace, links, wanted, key):
    named = name(0, stem="a.b-c")
    links.apply(links.changes(wanted({named: key[0]})))
    assert not links.changes(wanted({named: key[0]}))
    assert links.changes([]).to_remove == [workspace.root / named]


def test_where_links_do_not_work_a_name_is_a_copy_and_stays_right(workspace, links, wanted, key, no_links):
    names = {name(0): key[0]}
    links.apply(links.changes(wanted(names)))
    copy, stored = workspace.root / name(0), workspace.images.stat(key[0])
    assert copy.read_bytes() == workspace.images.read(key[0])
    assert copy.stat().st_ino != stored.inode
    assert copy.stat().st_mtime_ns == stored.mtime_ns
    assert not links.changes(wanted(names))


def test_a_copy_of_an_image_that_is_gone_is_not_right(workspace, links, wanted, key, no_links):
    names = wanted({name(0): key[0]})
    links.apply(links.changes(names))
    workspace.images.delete(key[0])
    assert links.changes(names).to_link == [NamedImage(name(0), key[0])]


def test_a_link_to_another_image_of_the_same_size_and_time_is_not_taken_for_a_copy(workspace, links, wanted):
    pixels = picture(image_spec(0))
    one, other = (store_image(workspace, image_spec(i), pixels) for i in (1, 2))
    paths = [workspace.root / workspace.images.location(record.key) for record in (one, other)]
    for path in paths:
        os.utime(path, ns=(0, 10**18))
    assert paths[0].stat().st_size == paths[1].stat().st_size
    links.apply(links.changes(wanted({name(0): one.key})))
    assert links.changes(wanted({name(0): other.key})).to_link == [NamedImage(name(0), other.key)]


def test_where_a_directory_entry_has_another_inode_than_its_file_the_file_is_looked_at(
    workspace, links, wanted, key, monkeypatch
):
    names = {name(0): key[0], name(1): key[1]}
    links.apply(links.changes(wanted(names)))
    real = os.scandir

    @contextmanager
    def scandir(path):
        with real(path) as found:
            yield [
                SimpleNamespace(
                    name=entry.name,
                    path=entry.path,
                    is_dir=entry.is_dir,
                    inode=lambda entry=entry: entry.inode() + 2**63,
                )
                for entry in found
            ]

    monkeypatch.setattr(os, "scandir", scandir)
    assert not links.changes(wanted(names))
    assert [image.name for image in links.changes(wanted({name(0): key[2], name(1): key[1]})).to_link] == [name(0)]


def test_names_that_are_right_cost_no_look_at_a_file(links, wanted, key, monkeypatch):
    names = {name(0): key[0], name(1): key[1]}
    links.apply(links.changes(wanted(names)))
    inodes = wanted(names)
    monkeypatch.setattr(os, "stat", lambda *arguments, **more: pytest.fail("a file was looked at"))
    assert not links.changes(inodes)


def test_a_temporary_file_that_a_killed_run_left_is_removed_once_it_is_stale(workspace, links):
    folder = workspace.root / "sample0_condition0"
    folder.mkdir()
    stale, fresh = (folder / f".sample0_condition0_0.png.{number}-5.tmp" for number in (1, 2))
    for path in (stale, fresh):
        path.write_bytes(b"x")
    long_ago = time.time() - STALE_SECONDS - 60
    os.utime(stale, (long_ago, long_ago))
    assert not links.changes([])
    assert list(folder.iterdir()) == [fresh]


def test_names_are_outdated_that_will_stand_for_another_picture_or_vanish(workspace, links, wanted, key):
    links.apply(links.changes(wanted({name(i): key[i] for i in range(4)})))
    (workspace.root / name(2)).unlink()
    changes = links.changes(wanted({name(0): key[0], name(1): key[0], name(2): key[3]}))
    # Of a name whose file is gone nobody knows any more what it stood for.
    assert links.outdated_names(changes) == {name(1), name(2), name(3)}


def test_a_copy_that_is_made_again_is_not_outdated(workspace, links, wanted, key, no_links):
    names = {name(0): key[0]}
    links.apply(links.changes(wanted(names)))
    with (workspace.root / name(0)).open("ab") as file:
        file.write(b"x")
    changes = links.changes(wanted(names))
    assert changes.to_link
    assert links.outdated_names(changes) == set()


def test_linking_twice_leaves_no_temporary_file(workspace, links, wanted, key):
    changes = links.changes(wanted({name(0): key[0]}))
    links.apply(changes)
    links.apply(changes)  # as two runs at once may do
    assert list(files(workspace)) == ["sample0_condition0", name(0)]


@pytest.mark.parametrize("broken", ["absent.png", "", "a\0b", "sample0_condition0", "note.txt", "\ud800"])
def test_what_is_no_image_of_ours_has_no_key(workspace, links, broken):
    (workspace.root / "sample0_condition0").mkdir()
    (workspace.root / "note.txt").write_text("mine")
    assert links.key_of(broken) is None


def test_a_picture_without_a_key_of_ours_has_no_key(workspace, links):
    from t2i_core.storage.formats import Encoding, encode_image

    (workspace.root / "other.png").write_bytes(encode_image(picture(image_spec(0)), {"key": 5}, Encoding()).data)
    assert links.key_of("other.png") is None
